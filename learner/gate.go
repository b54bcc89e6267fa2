package learner

import (
	"fmt"
	"math"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// GateLimits say what a candidate may cost. Zero values take the defaults.
type GateLimits struct {
	// Alpha is the p-value under which the site raises an alarm; default 0.001.
	Alpha float64
	// FalseAlarms is how much higher the candidate's rate of alarms on normal
	// vectors may be; default 0.005. One alarm more is always allowed.
	FalseAlarms float64
	// Detection is how much lower the candidate's share of own attacks
	// detected may be; default 0.05.
	Detection float64
	// MinNormals is how many fresh normal vectors a judgement needs; default 100.
	MinNormals int
}

func (l GateLimits) withDefaults() GateLimits {
	def := func(p *float64, d float64) {
		if *p == 0 {
			*p = d
		}
	}
	def(&l.Alpha, 0.001)
	def(&l.FalseAlarms, 0.005)
	def(&l.Detection, 0.05)
	if l.MinNormals == 0 {
		l.MinNormals = 100
	}
	return l
}

// GateResult is a gate's judgement.
type GateResult struct {
	Pass    bool
	Words   string             // the reason, with the numbers that made it
	Metrics map[string]float64 // of both models
}

// tally is how one model did.
type tally struct{ alarms, detected float64 }

// Gate compares a candidate with the champion on the same vectors, which
// neither was trained on: fresh normal ones, and this site's own confirmed
// attacks. The candidate passes when it raises no more alarms on normal and
// misses no more attacks, beyond the allowances. With too few normals it does
// not pass: what cannot be judged is not adopted.
func Gate(champion, candidate *Model, normal []feature.Vector, attacks []Example, lim GateLimits) GateResult {
	lim = lim.withDefaults()
	old, cur := measure(champion, normal, attacks, lim.Alpha), measure(candidate, normal, attacks, lim.Alpha)
	n, a := float64(len(normal)), float64(len(attacks))
	r := GateResult{Metrics: map[string]float64{
		"normals": n, "attacks": a, "alpha": lim.Alpha,
		"champion_false_alarms": old.alarms, "candidate_false_alarms": cur.alarms,
		"champion_detected": old.detected, "candidate_detected": cur.detected,
	}}
	var against []string
	if len(normal) < lim.MinNormals {
		against = append(against, fmt.Sprintf("only %d fresh normal vectors to judge on, %d are needed", len(normal), lim.MinNormals))
	}
	if cur.alarms > old.alarms+math.Max(1, lim.FalseAlarms*n) {
		against = append(against, fmt.Sprintf("false alarms rose from %.0f to %.0f of %.0f", old.alarms, cur.alarms, n))
	}
	if cur.detected < old.detected-lim.Detection*a {
		against = append(against, fmt.Sprintf("own attacks detected fell from %.0f to %.0f of %.0f", old.detected, cur.detected, a))
	}
	if f := candidate.Floor(); f >= lim.Alpha {
		against = append(against, fmt.Sprintf("it can say no p-value under %.2g, alarms need %.2g", f, lim.Alpha))
	}
	if len(against) > 0 {
		r.Words = "refused: " + strings.Join(against, "; ")
		return r
	}
	r.Pass = true
	r.Words = fmt.Sprintf("passed: false alarms %.0f -> %.0f of %.0f fresh normal vectors, own attacks detected %.0f -> %.0f of %.0f",
		old.alarms, cur.alarms, n, old.detected, cur.detected, a)
	return r
}

func measure(m *Model, normal []feature.Vector, attacks []Example, alpha float64) tally {
	var t tally
	s := NewScratch()
	for i := range normal {
		if m.Score(&normal[i], s).P < alpha {
			t.alarms++
		}
	}
	for i := range attacks {
		if m.Score(&attacks[i].V, s).P < alpha {
			t.detected++
		}
	}
	return t
}
