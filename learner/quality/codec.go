package quality

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// MaxEncoded bounds an encoded reference, in bytes.
const MaxEncoded = 256 << 10

// written is a reference as JSON: for each input of the schema its cuts, and the
// shares of the bins between them, the last of which is "absent".
type written struct {
	Schema int       `json:"schema"`
	N      int       `json:"reports"`
	Inputs []binning `json:"inputs"`
}

type binning struct {
	Cuts   []float32 `json:"cuts"`
	Shares []float64 `json:"shares"`
}

// MarshalJSON encodes what UnmarshalJSON reads back, for a process that judges
// windows on behalf of another.
func (r *Reference) MarshalJSON() ([]byte, error) {
	w := written{Schema: feature.Version, N: r.n, Inputs: make([]binning, feature.Dim)}
	for i := range w.Inputs {
		w.Inputs[i] = binning{r.cuts[i], r.p[i]}
	}
	return json.Marshal(w)
}

// UnmarshalJSON decodes a reference and checks it. One of another schema is refused.
func (r *Reference) UnmarshalJSON(b []byte) error {
	if len(b) > MaxEncoded {
		return fmt.Errorf("decode reference: %d bytes: expected at most %d", len(b), MaxEncoded)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var w written
	if err := d.Decode(&w); err != nil {
		return fmt.Errorf("decode reference: %v", err)
	}
	switch {
	case w.Schema != feature.Version:
		return fmt.Errorf("decode reference: schema: %d: expected %d", w.Schema, feature.Version)
	case w.N < 1:
		return fmt.Errorf("decode reference: reports: %d: expected at least 1", w.N)
	case len(w.Inputs) != feature.Dim:
		return fmt.Errorf("decode reference: inputs: %d: expected %d", len(w.Inputs), feature.Dim)
	}
	out := Reference{n: w.N}
	for i, x := range w.Inputs {
		if err := x.check(); err != nil {
			return fmt.Errorf("decode reference: input %s: %w", feature.Name(i), err)
		}
		out.cuts[i], out.p[i] = x.Cuts, x.Shares
	}
	*r = out
	return nil
}

func (x *binning) check() error {
	if len(x.Cuts) > 2*(deciles-1) || len(x.Shares) != len(x.Cuts)+2 {
		return fmt.Errorf("%d cuts and %d shares: expected at most %d cuts, and two shares more", len(x.Cuts), len(x.Shares), 2*(deciles-1))
	}
	for k, c := range x.Cuts {
		if math.IsNaN(float64(c)) || math.IsInf(float64(c), 0) || k > 0 && c <= x.Cuts[k-1] {
			return errors.New("cuts: expected numbers, each above the one before it")
		}
	}
	sum := 0.0
	for _, p := range x.Shares {
		if !(p > 0 && p <= 1) {
			return errors.New("shares: expected each above 0 and at most 1")
		}
		sum += p
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("shares: they sum to %v: expected 1", sum)
	}
	return nil
}
