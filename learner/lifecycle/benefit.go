package lifecycle

import (
	"fmt"
	"time"
)

// Benefit is what the mesh's part of a model brings, by the model's newest examination:
// the model beside the part of it that the site made alone, on the same traffic.
type Benefit struct {
	At       time.Time `json:"at"`
	Attacks  int       `json:"attacks"` // behaviours that were confirmed here
	Detected int       `json:"detected"`
	Alone    int       `json:"alone"`
	Causes   int       `json:"causes"` // of later normal traffic
	Alarms   int       `json:"alarms"`
	Quiet    int       `json:"alarms_alone"`
}

// Benefit is nil for a model without the mesh's part, and for one that was not compared
// with its own part yet.
func (x *Model) Benefit() *Benefit {
	t := x.Trial
	if x.Base == x.ID || t == nil {
		return nil
	}
	alone := t.Base
	if alone == nil {
		alone = t.Alone // the champion, which was its base
	}
	if alone == nil {
		return nil
	}
	return &Benefit{t.At, t.AttackSet, t.Own.Detected, alone.Detected, t.Causes, t.Own.Alarms, alone.Alarms}
}

// Words says it in a sentence.
func (b *Benefit) Words() string {
	alarms := fmt.Sprintf("alarms on %d of %d causes of later normal traffic, alone on %d", b.Alarms, b.Causes, b.Quiet)
	switch {
	case b.Attacks == 0:
		return "what it detects more than alone is not known, for no attack was confirmed here; " + alarms
	case b.Detected == b.Alone:
		return fmt.Sprintf("detects as many of the %d behaviours that were confirmed here as alone (%d); %s", b.Attacks, b.Alone, alarms)
	case b.Alone == 0:
		return fmt.Sprintf("detects %d of the %d behaviours that were confirmed here, alone none; %s", b.Detected, b.Attacks, alarms)
	}
	more, by := "more", b.Detected-b.Alone
	if by < 0 {
		more, by = "fewer", -by
	}
	return fmt.Sprintf("detects %.0f %% %s of the behaviours that were confirmed here than alone (%d beside %d of %d); %s",
		100*float64(by)/float64(b.Alone), more, b.Detected, b.Alone, b.Attacks, alarms)
}
