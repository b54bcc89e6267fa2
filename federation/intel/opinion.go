package intel

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// opinion is one organisation's, however many sites of it speak.
type opinion struct {
	org    string
	odds   float64 // for 1 it is hostile, for -1 innocent, by how sure
	weight float64
}

// number notes when a word's evidence first came here, by our own count: an author
// may date its word as it likes. Who repeats its word keeps its place.
func (s *Set) number(old, e *entry) {
	s.nth++
	e.nth = s.nth
	if old != nil && old.ind != nil && old.ind.EvidenceHash == e.ind.EvidenceHash {
		e.nth = old.nth
	}
}

// sound lists the words that count, by when they came: on validated evidence that no
// other organisation showed here first (else it is an echo), of one that stands well
// enough. What this site knows to be innocent supports nothing.
func (s *Set) sound(now time.Time, words []*entry) (out []*entry) {
	first := make(map[wire.Hash]*entry)
	words = slices.Clone(words)
	slices.SortStableFunc(words, func(a, b *entry) int { return cmp.Compare(a.nth, b.nth) })
	for _, e := range words {
		if e.ind.Evidence != wire.Validated || !e.inForce() || s.cfg.Trust.cleared(now, e) {
			continue
		}
		h := e.ind.EvidenceHash
		if f := first[h]; f != nil && f.org != e.org {
			continue
		}
		first[h] = e
		if s.cfg.Trust.Reputation(now, e.org) >= repFloor {
			out = append(out, e)
		}
	}
	return out
}

// hosts is as narrow as an address is; opinions and judge take it to hear every word.
const hosts = 128

// part says whether what is bits wide is a network within a /64 of IPv6: to have met
// one address of it is not to have met it.
func part(key wire.Target, bits int) bool {
	return key.Prefix.Addr().Is6() && key.Prefix.Bits() == corrBits6 && bits < hosts
}

// opinions makes one of each organisation of the words that count about what is bits
// wide. For a network only those speak that mean all of it; against it, all do.
func (s *Set) opinions(now time.Time, key wire.Target, bits int) []opinion {
	byOrg := make(map[string]float64)
	for _, e := range s.sound(now, s.words(key)) {
		odds := logOdds(e.ind)
		if odds > 0 && e.target.Prefix.Bits() > bits {
			continue
		}
		if old, ok := byOrg[e.org]; !ok || math.Abs(odds) > math.Abs(old) {
			byOrg[e.org] = odds
		}
	}
	var out []opinion
	for org, odds := range byOrg {
		out = append(out, opinion{org, odds, s.cfg.Trust.Reputation(now, org)})
	}
	slices.SortFunc(out, func(a, b opinion) int { return cmp.Or(cmp.Compare(a.odds, b.odds), cmp.Compare(a.org, b.org)) })
	return out
}

// logOdds is how much a word says: its score as log-odds, by its confidence.
func logOdds(ind *wire.Indicator) float64 {
	p := min(max(ind.Score, 0.01), 0.99)
	odds := math.Log(p/(1-p)) * ind.Confidence
	if ind.Stance == wire.Disputes {
		return -math.Abs(odds)
	}
	return odds
}

// median is the weighted median of the opinions' log-odds; the lower one of two.
func median(ops []opinion) float64 {
	var all, below float64
	for _, o := range ops {
		all += o.weight
	}
	for _, o := range ops {
		if below += o.weight; 2*below >= all {
			return o.odds
		}
	}
	return 0
}
