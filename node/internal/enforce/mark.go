package enforce

import (
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// A mark is a fingerprint or a behaviour that sites shared. It blocks nobody by
// itself: a flow that bears it and that this site's own model finds unusual is
// taken for what the author saw, and from then on for what its own evidence
// carries. A mark that ordinary flows bear here says nothing here.
type mark struct {
	r      Received
	print  uint64          // of a fingerprint
	region *learner.Region // of a behaviour
	common int             // flows that bore it and were usual
}

const (
	typeFingerprint = "fingerprint"
	typeBehaviour   = "behaviour"

	maxMarks = 512
	// mostCovered is the share of this site's normal that a behaviour may cover, and
	// mostCommon how many usual flows may bear a mark, before it says nothing.
	mostCovered = 0.002
	mostCommon  = 20
)

// Marks says whether an indicator's type is one that Mark takes.
func Marks(typ string) bool { return typ == typeFingerprint || typ == typeBehaviour }

// Mark takes a fingerprint or a behaviour; why is set when it was refused.
func (s *Sensor) Mark(now time.Time, r Received) (why string) {
	if r.Limit {
		return fmt.Sprintf("a %s is looked for from the rung on that blocks", r.Type)
	}
	m := &mark{r: r}
	switch r.Type {
	case typeFingerprint:
		m.print = flow.PrintOf(r.Value)
	case typeBehaviour:
		var err error
		if m.region, err = learner.ParseRegion(r.Value); err != nil {
			return err.Error()
		}
		if c := s.memory.Covers(m.region); c > mostCovered {
			return fmt.Sprintf("%.1f %% of what is normal here lies in it", 100*c)
		}
	}
	for k, old := range s.marks {
		if old.r.Value == r.Value {
			m.common = old.common
			if r.Expires.Before(old.r.Expires) {
				return "another site's word about it stands for longer"
			}
			s.marks[k] = m
			return ""
		}
		if !now.Before(old.r.Expires) {
			s.marks[k] = m
			return ""
		}
	}
	if len(s.marks) >= maxMarks {
		return fmt.Sprintf("%d fingerprints and behaviours are looked for already", maxMarks)
	}
	s.marks = append(s.marks, m)
	return ""
}

// Unmark ends what an author's word led to.
func (s *Sensor) Unmark(author, value string) {
	for k, m := range s.marks {
		same := m.r.Author == author || foreign(m.r.Author) && foreign(author)
		if m.r.Value == value && same {
			s.marks = append(s.marks[:k], s.marks[k+1:]...)
			return
		}
	}
}

// Marked is how many are looked for.
func (s *Sensor) Marked() int { return len(s.marks) }

// marked is the mark that a flow bears, nil for none. It allocates nothing.
func (s *Sensor) marked(rec *flow.Record, v *feature.Vector, usual bool) *mark {
	for _, m := range s.marks {
		bears := m.region != nil && m.region.Contains(v) || m.print != 0 && rec.Hello != nil && rec.Hello.Print == m.print
		if !bears || m.common >= mostCommon || rec.Last >= m.r.Expires.UnixNano() {
			continue
		}
		if !usual {
			return m
		}
		m.common++
	}
	return nil
}

// reason says in words why a flow that bears the mark is suspected.
func (m *mark) reason() event.Reason {
	what := "it behaves as flows that " + m.r.Author + " confirmed as an attack"
	if m.print != 0 {
		what = "its client greets as one that " + m.r.Author + " warns of, " + m.r.Value
	}
	if m.r.Sentence != "" {
		what += ": " + m.r.Sentence
	}
	return event.Reason{Feature: "indicator", Words: what, Value: 1, Weight: 1}
}
