package softplane

import (
	"math"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// KeyOf is the key of the flow to which a plane would count a frame. ok is
// false for frames that belong to no flow: not IP, malformed, later fragments.
// Data that the capture cut off is no obstacle as long as the headers are there.
func KeyOf(link LinkType, frame []byte) (key flow.Key, ok bool) {
	var q parsed
	q.parse(link, frame, math.MaxInt32, true)
	if !q.ip || q.NoPorts {
		return flow.Key{}, false
	}
	return q.Key, true
}
