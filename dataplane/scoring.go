package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// Scoring is what a plane judges flows by itself with, at packets 4, 8, 16, 32
// and 64. The zero value judges nothing.
//
// A score that says so suspends the flow, or limits it to a rate, for Hold; the
// packet that decided it is the first to be dropped. Both are of this one flow
// only and end by themselves; what more there is to do about its ends is for
// whoever reads the event. In monitor mode, and while the daemon is away for
// longer than the plane waits for it, nothing of it acts.
type Scoring struct {
	// Active decides, for all flows but those that Canary picks.
	Active *score.Scorer
	// Trial is scored beside Active. For flows of the inside hosts that Canary
	// picks it decides in place of Active, for all others it is only told. It may
	// stand alone, in shadow.
	Trial  *score.Scorer
	Canary score.Share // zero: nobody, which is shadow
	// Shadow makes Active, too, act on nothing: its verdicts are counted and told.
	Shadow bool
	// Hold is how long a flow is suspended or limited, 1 s to 1 h; 0 is DefaultHold.
	Hold time.Duration
	// Rate is how many IP bytes a second a limited flow may have; 0 is DefaultHeldRate.
	Rate uint32
	// Reason travels with every drop that a verdict causes, as that of a rule.
	Reason uint32
}

// Defaults of Scoring.
const (
	DefaultHold     = 30 * time.Second
	DefaultHeldRate = 16 << 10
)

// Judges says whether there is anything to score with.
func (s *Scoring) Judges() bool { return s.Active != nil || s.Trial != nil }

// Filled is s with its defaults in place.
func (s Scoring) Filled() Scoring {
	if s.Hold == 0 {
		s.Hold = DefaultHold
	}
	if s.Rate == 0 {
		s.Rate = DefaultHeldRate
	}
	return s
}

// Validate checks the form of s and of its scorers.
func (s *Scoring) Validate() error {
	if s.Hold != 0 && (s.Hold < time.Second || s.Hold > time.Hour) {
		return fmt.Errorf("scoring: hold %s: expected 1s to 1h", s.Hold)
	}
	if s.Canary.Below > 0 && (s.Active == nil || s.Trial == nil) {
		return errors.New("scoring: canary: needs an active and a trial scorer")
	}
	for name, one := range map[string]*score.Scorer{"active": s.Active, "trial": s.Trial} {
		if one == nil {
			continue
		}
		if err := one.Validate(); err != nil {
			return fmt.Errorf("scoring: %s: %w", name, err)
		}
	}
	return nil
}

// ScoredHost is the end of a flow by which Scoring.Canary picks: the one inside,
// the initiator where both or none are.
func ScoredHost(r *flow.Record) netip.Addr {
	if r.InitInside || !r.RespInside {
		return r.Initiator().Addr()
	}
	return r.Responder().Addr()
}

// Outcome is what came of a verdict.
type Outcome uint8

// Outcomes. The numbers are those of the kernel.
const (
	Acted     Outcome = iota // the flow is held, see Verdict.Until
	Shadowed                 // the scorer is in shadow, or on trial and not for this host
	Monitored                // the plane is in monitor mode
	Spared                   // the never-block list names the packet
	Crowded                  // too many flows are held: only this packet was dropped
	Outcomes  = iota
)

var outcomeNames = [Outcomes]string{"acted", "shadow", "monitor", "never-block", "full"}

// String is the outcome's word.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome-%d", uint8(o))
}

// Verdict is what the plane's own scorer found of a flow. That a scorer passes a
// flow is counted, but no verdict.
type Verdict struct {
	Model     [32]byte // score.Scorer.Hash of what decided
	Version   uint32   // its Version
	Trial     bool     // it is Scoring.Trial
	Milestone score.Milestone
	Score     int32
	Action    score.Action // RateLimit or Suspend
	Outcome   Outcome
	Until     int64 // when the hold ends; 0 unless the outcome is Acted
}

// Model names a scorer that a plane has loaded.
type Model struct {
	Hash    [32]byte
	Version uint32
}

// ScoringState says what a plane judges by, and how often it did. Totals are
// since the tables were made, over swaps and takeovers.
type ScoringState struct {
	Active, Trial *Model // nil: none
	Shadow        bool
	// Stale says that the daemon was away for too long, and nothing acts.
	Stale bool
	// Instructions is how long the program is; 0 in software.
	Instructions int
	// Compile, Load and Swap are how long the last SetScoring of this process took.
	Compile, Load, Swap time.Duration
	Swaps               uint64 // of this process
	// Due are the milestones that were reached while something was loaded, and
	// Scored those of them at which it was asked, by milestone.
	Due, Scored [score.Milestones]uint64
	// Verdicts are counted by Scoring.Active and Trial, then action, then outcome.
	Verdicts [2][score.Suspend + 1][Outcomes]uint64
	Held     int    // flows that are suspended or limited now
	Dropped  uint64 // packets of such flows that were dropped, those that decided included
}

// Scorer is the part of a plane that judges flows by itself.
type Scorer interface {
	// SetScoring replaces all of it in one step: each milestone is scored by what
	// was set before or by what is set now. On an error, what was set before
	// stays. Flows that are held stay held until their time, unless s judges
	// nothing: then none is held any more, and no earlier verdict acts.
	SetScoring(s Scoring) error
	// ScoringState reads back what decides now, from the plane itself.
	ScoringState() (ScoringState, error)
	// Held lists the flows that are suspended or limited now, as rules. Remove
	// with a flow as its target frees one.
	Held() ([]Hit, error)
}
