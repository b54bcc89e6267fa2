package intel

import (
	"cmp"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Claim is an indicator in force and whose it is.
type Claim struct {
	Indicator *wire.Indicator
	Author    identity.ID
	Seq       uint64
	Sent      time.Time
	Enforced  bool
	Level     Op     // Observe, Limit or Enforce
	Org       string // of a foreign author; "" is ours
}

// Outside says whether a message may go to other organisations: what its author
// marked so, and other organisations' own words.
func outside(e *entry) bool {
	if e.ind == nil {
		return e.org != ""
	}
	return e.ind.TLP == wire.TLPClear || e.ind.TLP == wire.TLPGreen
}

// Seen lists the claims in force that speak about a value, latest first. An
// address is spoken about by claims about it, about a prefix around it, and about
// its services; a service by claims about itself and about its address.
func (s *Set) Seen(typ wire.Type, value string) ([]Claim, error) {
	t, err := wire.ParseValue(typ, value)
	if err != nil {
		return nil, err
	}
	var out []Claim
	for e := range s.at[placeOf(t)] {
		if t.Type != "" {
			out = append(out, claimOf(e))
		}
	}
	for bits := t.Prefix.Bits(); bits >= 0; bits-- {
		p, err := t.Prefix.Addr().Prefix(bits)
		if err != nil {
			break
		}
		for e := range s.at[place{prefix: p}] {
			if t.Proto == 0 || e.target.Proto == 0 || e.target == t {
				out = append(out, claimOf(e))
			}
		}
	}
	sortClaims(out)
	return out, nil
}

// Live lists every claim in force, latest first.
func (s *Set) Live() []Claim {
	var out []Claim
	for _, entries := range s.at {
		for e := range entries {
			out = append(out, claimOf(e))
		}
	}
	sortClaims(out)
	return out
}

// Len is how many claims are in force.
func (s *Set) Len() int {
	n := 0
	for _, entries := range s.at {
		n += len(entries)
	}
	return n
}

// Find returns the claim in force of an author under an indicator's id.
func (s *Set) Find(author identity.ID, id string) (Claim, bool) {
	a := s.authors[author]
	if a == nil || a.byID[id] == nil || !a.byID[id].inForce() {
		return Claim{}, false
	}
	return claimOf(a.byID[id]), true
}

func claimOf(e *entry) Claim {
	return Claim{Indicator: e.ind, Author: e.author, Seq: e.msg.Seq, Sent: e.msg.Time, Enforced: e.enforced(), Level: e.level, Org: e.org}
}

func sortClaims(c []Claim) {
	slices.SortFunc(c, func(a, b Claim) int {
		return cmp.Or(b.Sent.Compare(a.Sent), cmp.Compare(a.Author, b.Author), cmp.Compare(a.Seq, b.Seq))
	})
}

// Digest says what was seen of each author, in the order of their ids.
func (s *Set) Digest() []wire.Have {
	var out []wire.Have
	for _, id := range s.ids() {
		if spans := s.authors[id].window.spans(); len(spans) > 0 && len(out) < wire.MaxSite {
			out = append(out, wire.Have{Author: id, Spans: spans})
		}
	}
	return out
}

func (s *Set) ids() []identity.ID {
	ids := make([]identity.ID, 0, len(s.authors))
	for id := range s.authors {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Missing lists sealed messages that the owner of a digest has not seen, by
// author and sequence, up to count messages and size bytes in all. For an owner
// of another organisation it lists what may go there.
func (s *Set) Missing(have []wire.Have, foreign bool, count, size int) (items [][]byte, more bool) {
	seen := make(map[identity.ID][]wire.Span, len(have))
	for _, h := range have {
		seen[h.Author] = h.Spans
	}
	for _, id := range s.ids() {
		for _, e := range s.ordered(id) {
			if within(seen[id], e.msg.Seq) || (foreign && !outside(e)) {
				continue
			}
			if len(items) == count || size < len(e.msg.Raw) {
				return items, true
			}
			size -= len(e.msg.Raw)
			items = append(items, e.msg.Raw)
		}
	}
	return items, false
}

func (s *Set) ordered(id identity.ID) []*entry {
	es := make([]*entry, 0, len(s.authors[id].byID))
	for _, e := range s.authors[id].byID {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *entry) int { return cmp.Compare(a.msg.Seq, b.msg.Seq) })
	return es
}

func within(spans []wire.Span, seq uint64) bool {
	for _, sp := range spans {
		if sp.From <= seq && seq <= sp.To {
			return true
		}
	}
	return false
}

// Highest is the highest sequence seen of an author.
func (s *Set) Highest(id identity.ID) uint64 {
	if a := s.authors[id]; a != nil {
		return a.window.high
	}
	return 0
}

// Complete closes the gaps up to high in what was seen of an author, who has
// itself delivered everything of its own that is alive. Only the author may say
// so: another site could use it to hide an author's messages.
func (s *Set) Complete(id identity.ID, high uint64) {
	if a := s.author(id); high <= wire.MaxSeq {
		a.window.markUpTo(high)
	}
}

type snapshot struct {
	Version int              `cbor:"1,keyasint"`
	Authors []authorSnapshot `cbor:"2,keyasint"`
}

type authorSnapshot struct {
	ID    string   `cbor:"1,keyasint"`
	Spans []uint64 `cbor:"2,keyasint"`
	Items [][]byte `cbor:"3,keyasint"`
	Order []uint64 `cbor:"4,keyasint,omitempty"` // in which they came, one of each item
}

// Snapshot encodes the set. With own, only our own part.
func (s *Set) Snapshot(own bool) ([]byte, error) {
	snap := snapshot{Version: 1}
	for _, id := range s.ids() {
		if own && id != s.cfg.Self {
			continue
		}
		as := authorSnapshot{ID: string(id)}
		for _, sp := range s.authors[id].window.spans() {
			as.Spans = append(as.Spans, sp.From, sp.To)
		}
		for _, e := range s.ordered(id) {
			as.Items, as.Order = append(as.Items, e.msg.Raw), append(as.Order, e.nth)
		}
		snap.Authors = append(snap.Authors, as)
	}
	return cbor.Marshal(snap)
}

// Restore adds what Snapshot wrote. Every message is opened again, so damaged
// or foreign state is left out; dropped counts what was. The error says that
// nothing could be read at all.
func (s *Set) Restore(b []byte, now time.Time, member func(identity.ID) bool) (dropped int, err error) {
	var snap snapshot
	if err := cbor.Unmarshal(b, &snap); err != nil {
		return 0, wire.Refuse(wire.Malformed, "stored intelligence: %v", err)
	}
	if snap.Version != 1 {
		return 0, wire.Refuse(wire.BadVersion, "stored intelligence: %d: expected 1", snap.Version)
	}
	type stored struct {
		id  identity.ID
		raw []byte
		nth uint64
	}
	var items []stored
	for _, as := range snap.Authors {
		id := identity.ID(as.ID)
		if !member(id) {
			dropped += len(as.Items)
			continue
		}
		for i, raw := range as.Items {
			it := stored{id: id, raw: raw}
			if len(as.Order) == len(as.Items) {
				it.nth = as.Order[i]
			}
			items = append(items, it)
		}
	}
	slices.SortStableFunc(items, func(a, b stored) int { return cmp.Compare(a.nth, b.nth) })
	for _, it := range items {
		m, err := wire.Open(it.raw, now, member)
		if err != nil || m.Author != it.id || refused(s.Step(now, m, restored)) {
			dropped++
		}
	}
	for _, as := range snap.Authors {
		if id := identity.ID(as.ID); member(id) {
			s.author(id).window.restore(spansOf(as.Spans))
		}
	}
	return dropped, nil
}

// spansOf reads pairs of bounds, and leaves out those that are none.
func spansOf(bounds []uint64) (spans []wire.Span) {
	for i := 0; i+1 < len(bounds); i += 2 {
		if bounds[i] <= bounds[i+1] && bounds[i+1] <= wire.MaxSeq {
			spans = append(spans, wire.Span{From: bounds[i], To: bounds[i+1]})
		}
	}
	return spans
}

func refused(effects []Effect) bool {
	return len(effects) > 0 && effects[len(effects)-1].Op == Refuse
}
