package learner

import (
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Sample is a copy of the normal vectors that the model remembers, at most 512,
// spread evenly over what it was trained on: what later traffic is compared with.
func (m *Model) Sample() []feature.Vector { return slices.Clone(m.self.refs.v) }
