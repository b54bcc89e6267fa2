package intel

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// trustSnapshot is what a site remembers of others' conduct.
type trustSnapshot struct {
	Version   int               `cbor:"1,keyasint"`
	Standings []standingAt      `cbor:"2,keyasint"`
	Settled   []settledSnapshot `cbor:"3,keyasint"`
	Innocent  []settledSnapshot `cbor:"4,keyasint,omitempty"` // Org is ""
}

type standingAt struct {
	Org  string  `cbor:"1,keyasint"`
	Good float64 `cbor:"2,keyasint"`
	Bad  float64 `cbor:"3,keyasint"`
	At   int64   `cbor:"4,keyasint"` // s since the Unix epoch
}

type settledSnapshot struct {
	Org    string `cbor:"1,keyasint"`
	Prefix []byte `cbor:"2,keyasint"`
	Proto  uint8  `cbor:"3,keyasint"`
	Port   uint16 `cbor:"4,keyasint"`
	Until  int64  `cbor:"5,keyasint"`
	Type   string `cbor:"6,keyasint,omitempty"` // of what is no address
	Name   string `cbor:"7,keyasint,omitempty"`
}

// TrustSnapshot encodes the standing of other organisations, and for what they have
// earned or lost it already. nil without Config.Trust.
func (s *Set) TrustSnapshot() ([]byte, error) {
	t := s.cfg.Trust
	if t == nil {
		return nil, nil
	}
	snap := trustSnapshot{Version: 1}
	for org, r := range t.reps {
		snap.Standings = append(snap.Standings, standingAt{org, r.good, r.bad, r.at.Unix()})
	}
	for p, until := range t.paid {
		x, err := snapshotOf(p, until)
		if err != nil {
			return nil, err
		}
		snap.Settled = append(snap.Settled, x)
	}
	for key, until := range t.clear {
		x, err := snapshotOf(payment{"", key}, until)
		if err != nil {
			return nil, err
		}
		snap.Innocent = append(snap.Innocent, x)
	}
	slices.SortFunc(snap.Standings, func(a, b standingAt) int { return cmp.Compare(a.Org, b.Org) })
	for _, xs := range [][]settledSnapshot{snap.Settled, snap.Innocent} {
		slices.SortFunc(xs, func(a, b settledSnapshot) int {
			return cmp.Or(cmp.Compare(a.Org, b.Org), slices.Compare(a.Prefix, b.Prefix), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
		})
	}
	return cbor.Marshal(snap)
}

func snapshotOf(p payment, until time.Time) (settledSnapshot, error) {
	prefix, err := p.key.Prefix.MarshalBinary()
	return settledSnapshot{p.org, prefix, p.key.Proto, p.key.Port, until.Unix(), string(p.key.Type), p.key.Name}, err
}

// target is what a stored row is about.
func (p settledSnapshot) target() (wire.Target, error) {
	if p.Type != "" {
		t, err := wire.ParseValue(wire.Type(p.Type), p.Name)
		if err != nil || t.Type == "" {
			return wire.Target{}, wire.Refuse(wire.BadField, "stored standing of %q: %.80q: expected a name", p.Org, p.Name)
		}
		return t, nil
	}
	var prefix netip.Prefix
	if err := prefix.UnmarshalBinary(p.Prefix); err != nil || !prefix.IsValid() {
		return wire.Target{}, wire.Refuse(wire.BadField, "stored standing of %q: expected a network", p.Org)
	}
	return wire.Target{Prefix: prefix, Proto: p.Proto, Port: p.Port}, nil
}

// RestoreTrust takes over what TrustSnapshot wrote, before any word is heard. After an
// error everybody stands in the middle.
func (s *Set) RestoreTrust(b []byte) error {
	var snap trustSnapshot
	if err := cbor.Unmarshal(b, &snap); err != nil {
		return wire.Refuse(wire.Malformed, "stored standing: %v", err)
	}
	if snap.Version != 1 || s.cfg.Trust == nil {
		return wire.Refuse(wire.BadVersion, "stored standing: %d: expected 1, in a consortium", snap.Version)
	}
	t := NewTrust(s.cfg.Trust.cfg)
	sound := func(x float64) bool { return x >= 1 && x <= repMost && !math.IsNaN(x) }
	for _, r := range snap.Standings {
		if !sound(r.Good) || !sound(r.Bad) {
			return wire.Refuse(wire.BadField, "stored standing of %q: %g and %g: expected 1 to %d", r.Org, r.Good, r.Bad, repMost)
		}
		t.reps[r.Org] = &reputation{good: r.Good, bad: r.Bad, at: time.Unix(r.At, 0)}
	}
	for _, p := range snap.Settled[:min(len(snap.Settled), maxLocal)] {
		key, err := p.target()
		if err != nil {
			return err
		}
		t.paid[payment{p.Org, key}] = time.Unix(p.Until, 0)
	}
	for _, p := range snap.Innocent[:min(len(snap.Innocent), maxLocal)] {
		key, err := p.target()
		if err != nil {
			return err
		}
		t.clear[key] = time.Unix(p.Until, 0)
	}
	s.cfg.Trust = t
	return nil
}

// Standing is what an organisation's word weighs, between 0 and 1. Who has done nothing
// yet has 0.5, and below 0.25 nothing is counted.
func (s *Set) Standing(now time.Time, org string) float64 {
	if s.cfg.Trust == nil {
		return 0
	}
	return s.cfg.Trust.Reputation(now, org)
}
