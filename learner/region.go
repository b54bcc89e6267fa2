package learner

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// A Region is where the flows of one behaviour lie: for some of a flow's own
// features bounds that are coarse on purpose. It is made of several flows and of
// steps of an eighth, so that it shows none of them, and it says nothing of their
// surroundings.
type Region struct {
	lo, hi [ownFeatures]uint8 // levels, both included; lo above hi is no bound
}

const (
	regionLevels = 16 // from -1 to 1
	// RegionFlows is the least number of flows that a region is made of.
	RegionFlows = 6
	// regionLeast is how many features must be bounded, and regionNarrow and
	// regionWide the least and the most levels that a bound spans.
	regionLeast, regionNarrow, regionWide = 12, 3, 8
	noBound                               = 0xf0 // lo 15, hi 0
)

// errRegion says that a text is no region that this site can use.
var errRegion = errors.New("region")

func regionLevel(x float32) uint8 {
	return uint8(min(max(int((x+1)*regionLevels/2), 0), regionLevels-1))
}

// NewRegion bounds what all of some vectors know of their own flow and agree about.
func NewRegion(vs []feature.Vector) (*Region, error) {
	if len(vs) < RegionFlows {
		return nil, fmt.Errorf("%w: %d flows: expected at least %d", errRegion, len(vs), RegionFlows)
	}
	r := &Region{}
	for i := range r.lo {
		lo, hi, known := uint8(regionLevels-1), uint8(0), true
		for k := range vs {
			known = known && vs[k].Known(i)
			l := regionLevel(vs[k].X[i])
			lo, hi = min(lo, l), max(hi, l)
		}
		// One level more on either side: the next flow lies somewhat elsewhere.
		lo, hi = max(lo, 1)-1, min(hi+1, regionLevels-1)
		for hi-lo+1 < regionNarrow {
			lo, hi = max(lo, 1)-1, min(hi+1, regionLevels-1)
		}
		if !known || hi-lo+1 > regionWide {
			lo, hi = regionLevels-1, 0
		}
		r.lo[i], r.hi[i] = lo, hi
	}
	return r, r.check()
}

func (r *Region) check() error {
	bounded := 0
	for i := range r.lo {
		if r.lo[i] > r.hi[i] {
			continue
		}
		bounded++
		if n := r.hi[i] - r.lo[i] + 1; n < regionNarrow || n > regionWide {
			return fmt.Errorf("%w: feature %d spans %d levels: expected %d to %d", errRegion, i, n, regionNarrow, regionWide)
		}
	}
	if bounded < regionLeast {
		return fmt.Errorf("%w: %d features are bounded: expected at least %d", errRegion, bounded, regionLeast)
	}
	return nil
}

// String is the region as it is shared, with the schema that it is meant in.
func (r *Region) String() string {
	b := make([]byte, len(r.lo))
	for i := range b {
		b[i] = r.lo[i]<<4 | r.hi[i]
	}
	return fmt.Sprintf("features-%d:%s", feature.Version, base64.RawURLEncoding.EncodeToString(b))
}

// ParseRegion reads what String wrote. Another schema's is refused by name.
func ParseRegion(s string) (*Region, error) {
	schema, enc, ok := strings.Cut(s, ":")
	if want := fmt.Sprintf("features-%d", feature.Version); !ok || schema != want {
		return nil, fmt.Errorf("%w: schema %.20q: expected %s", errRegion, schema, want)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(enc)
	if err != nil || len(b) != ownFeatures {
		return nil, fmt.Errorf("%w: expected bounds of %d features in base64", errRegion, ownFeatures)
	}
	r := &Region{}
	for i, x := range b {
		r.lo[i], r.hi[i] = x>>4, x&15
		if r.lo[i] > r.hi[i] && x != noBound {
			return nil, fmt.Errorf("%w: feature %d: %d to %d: expected bounds, or 15 to 0 for none", errRegion, i, r.lo[i], r.hi[i])
		}
	}
	return r, r.check()
}

// Contains says whether a flow lies in the region: all that is bounded is known of
// it and within. It allocates nothing.
func (r *Region) Contains(v *feature.Vector) bool {
	for i := range r.lo {
		if r.lo[i] > r.hi[i] {
			continue
		}
		if !v.Known(i) {
			return false
		}
		if l := regionLevel(v.X[i]); l < r.lo[i] || l > r.hi[i] {
			return false
		}
	}
	return true
}

// Covers is the share of the memory's normal vectors that a region contains; 0
// while it knows none.
func (m *Memory) Covers(r *Region) float64 {
	n := 0
	for i := range m.normals {
		if r.Contains(&m.normals[i]) {
			n++
		}
	}
	return float64(n) / float64(max(1, len(m.normals)))
}
