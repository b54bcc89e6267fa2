package learner

import (
	"math"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
)

// Exam is what models are measured on. None of them may have been trained on
// Normal, which is later than all of their training.
type Exam struct {
	Normal  []feature.Vector
	Causes  []uint64         // of each in Normal: who did what where, as Reservoir.Later gives it
	Known   []feature.Vector // this site's known-normal canaries
	Attacks []Example        // this site's confirmed behaviours
	Level   float64          // p-value under which a report is an alarm
}

// Trial is the exam's sizes, for the answer to an examination.
func (x *Exam) Trial() lifecycle.Trial {
	seen := map[uint64]bool{}
	for _, c := range x.Causes {
		seen[c] = true
	}
	return lifecycle.Trial{Normals: len(x.Normal), Causes: len(seen), KnownSet: len(x.Known), AttackSet: len(x.Attacks)}
}

// Measure says how a model does in an exam.
func (m *Model) Measure(x *Exam) lifecycle.Count {
	c := lifecycle.Count{Floor: m.Floor()}
	s := NewScratch()
	alarm := func(v *feature.Vector) bool {
		sc := m.Score(v, s)
		if !sc.Sound() {
			c.Errors++
		}
		return sc.P < x.Level
	}
	causes := map[uint64]bool{}
	for i := range x.Normal {
		if alarm(&x.Normal[i]) {
			causes[x.Causes[i]] = true
		}
	}
	c.Alarms = len(causes)
	for i := range x.Known {
		if alarm(&x.Known[i]) {
			c.Known++
		}
	}
	for i := range x.Attacks {
		if alarm(&x.Attacks[i].V) {
			c.Detected++
		}
	}
	return c
}

// Hash is the model's, as in Meta.
func (m *Model) Hash() string { return m.meta.Hash }

// Sound says that a score is made of numbers.
func (s *Score) Sound() bool {
	ok := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	return ok(s.Self) && ok(s.Attack) && s.P > 0 && s.P <= 1
}

// Later gives the vectors seen after a time, in no order, less those of suspected
// peers as in Mature, and of each a hash of its cause: one host and one service of
// one peer.
func (r *Reservoir) Later(after time.Time, suspect func(peer uint64) bool) (v []feature.Vector, causes []uint64) {
	limit := after.UnixNano()
	for i := range r.entries {
		if e := &r.entries[i]; e.at > limit && (suspect == nil || !suspect(e.peer)) {
			v = append(v, e.v)
			causes = append(causes, Cause(e.host, e.peer, e.service))
		}
	}
	return v, causes
}

// Cause joins the hashes of host, peer and service.
func Cause(host, peer, service uint64) uint64 {
	h := uint64(14695981039346656037)
	for _, x := range [...]uint64{host, peer, service} {
		h = (h ^ x) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}
