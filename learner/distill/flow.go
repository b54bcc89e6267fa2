package distill

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// Look is a flow at one milestone.
type Look struct {
	At score.Milestone
	X  score.Vector
	P  float32 // the teacher's p-value of the report at this milestone, 0 to 1
}

// Flow is what the plane showed of one flow, earliest first.
type Flow struct {
	Looks []Look
	// Weight is that of somebody's word that the flow was an attack, above 0 to 1;
	// 0 is that nobody said so.
	Weight float32
}

func (f *Flow) check() error {
	if len(f.Looks) == 0 || len(f.Looks) > score.Milestones {
		return fmt.Errorf("%d looks: expected 1 to %d", len(f.Looks), score.Milestones)
	}
	for i := range f.Looks {
		l := &f.Looks[i]
		if l.At >= score.Milestones || !(l.P >= 0 && l.P <= 1) {
			return fmt.Errorf("look %d: milestone %d, p %v: expected one of %d and 0 to 1", i, l.At, l.P, score.Milestones)
		}
	}
	if !(f.Weight >= 0 && f.Weight <= 1) {
		return fmt.Errorf("weight %v: expected 0 to 1", f.Weight)
	}
	return nil
}
