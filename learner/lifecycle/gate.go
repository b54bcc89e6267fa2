package lifecycle

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Options bound what a candidate may cost and how long its stages last. Zero
// values take the defaults in brackets; a stage of negative length is skipped.
type Options struct {
	Level float64 // p-value under which one report is an alarm [0.001]
	// FalseAlarms is how many more causes of normal traffic a candidate may
	// alarm on, as a share of all [0.01]; MinAlarms more are always allowed [2].
	FalseAlarms float64
	MinAlarms   int
	// Detection is the share of the site's confirmed behaviours that a
	// candidate may miss more than its reference [0.05].
	Detection float64
	// Worse is how much worse in all, the shares of false alarms and of misses added
	// up, a model with the mesh's part may be than what the site made alone; 0 is no
	// such bound.
	Worse      float64
	MinNormals int // later reports that an examination needs [100]

	Shadow  time.Duration // least length of the stage [30 min]
	Canary  time.Duration // [30 min]
	Share   float64       // of hosts in canary [0.1]
	Reports int           // that each of the two stages needs as well [1000]
	Longest time.Duration // a shadow that has too few reports by then is refused; a canary goes on after four lengths [24 h]
	Watch   time.Duration // how long a new active model is watched beside its predecessor [24 h]
	Look    time.Duration // between examinations of the active model [10 min]

	MaxErrors int // scores that are no numbers before a model is given up [3]
	MaxModels int // whose lineage is kept [64, at most 256]
}

func (o Options) withDefaults() Options {
	f := func(p *float64, d float64) {
		if *p == 0 {
			*p = d
		}
	}
	n := func(p *int, d int) {
		if *p == 0 {
			*p = d
		}
	}
	t := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	f(&o.Level, 0.001)
	f(&o.FalseAlarms, 0.01)
	f(&o.Detection, 0.05)
	f(&o.Share, 0.1)
	n(&o.MinAlarms, 2)
	n(&o.MinNormals, 100)
	n(&o.Reports, 1000)
	n(&o.MaxErrors, 3)
	n(&o.MaxModels, 64)
	o.MaxModels = min(max(o.MaxModels, 8), maxModels)
	t(&o.Shadow, 30*time.Minute)
	t(&o.Canary, 30*time.Minute)
	t(&o.Longest, 24*time.Hour)
	t(&o.Watch, 24*time.Hour)
	t(&o.Look, 10*time.Minute)
	return o
}

// Spent is what promotions of the site's own models have used up of the
// allowances, as shares. Improvements pay back, down to none.
type Spent struct {
	FalseAlarms float64 `json:"false_alarms"`
	Detection   float64 `json:"detection"`
}

// verdict is a gate's judgement.
type verdict struct {
	against []string
	words   string
	metrics map[string]float64
	spend   Spent // what a promotion would use up
}

func (v *verdict) pass() bool { return len(v.against) == 0 }

func (v *verdict) why() string {
	if v.pass() {
		return "passed: " + v.words
	}
	return "refused: " + strings.Join(v.against, "; ")
}

func (v *verdict) object(format string, a ...any) {
	v.against = append(v.against, fmt.Sprintf(format, a...))
}

// examine compares the model with the best that the site made alone, within
// what is left of the allowances, and with the active one, within all of them; one
// with the mesh's part also with what is inside of it and was made here.
// Without either it stands for itself: it has to be quiet on normal traffic.
func (o *Options) examine(t *Trial, left Spent, meshed bool) verdict {
	v := verdict{metrics: map[string]float64{
		"normals": float64(t.Normals), "causes": float64(t.Causes), "attacks": float64(t.AttackSet), "known_normal": float64(t.KnownSet),
		"level": o.Level, "false_alarms": float64(t.Own.Alarms), "detected": float64(t.Own.Detected), "known_alarms": float64(t.Own.Known),
	}}
	v.words = fmt.Sprintf("alarms on %d of %d causes of later normal traffic (%d reports), detects %d of %d confirmed behaviours, alarms on %d of %d known-normal canaries",
		t.Own.Alarms, t.Causes, t.Normals, t.Own.Detected, t.AttackSet, t.Own.Known, t.KnownSet)
	if t.Own.Errors > 0 {
		v.object("%d of its scores are no p-values", t.Own.Errors)
	}
	if t.Own.Floor >= o.Level {
		v.object("it can say no p-value under %.2g, alarms need %.2g", t.Own.Floor, o.Level)
	}
	if t.Alone == nil && t.Incumbent == nil {
		o.absolute(&v, t)
		return v
	}
	if t.Normals < o.MinNormals {
		v.object("only %d later reports of normal traffic to judge on, %d are needed", t.Normals, o.MinNormals)
	}
	if t.Alone != nil {
		const who = "the best that this site made alone"
		v.spend = o.compare(&v, t, t.Alone, left, who, "alone_")
		o.inAll(&v, v.spend, meshed, who)
	}
	if t.Base != nil {
		const who = "the part of it that this site made alone"
		o.inAll(&v, o.compare(&v, t, t.Base, Spent{o.FalseAlarms, o.Detection}, who, "base_"), meshed, who)
	}
	if t.Incumbent != nil {
		o.compare(&v, t, t.Incumbent, Spent{o.FalseAlarms, o.Detection}, "the active model", "incumbent_")
	}
	return v
}

// absolute is the gate of a first model, with nothing to compare it with.
func (o *Options) absolute(v *verdict, t *Trial) {
	v.words = "first model, nothing to compare it with; " + v.words
	if most := max(o.MinAlarms, int(0.1*float64(t.Causes))); t.Own.Alarms > most {
		v.object("it would alarm on %d of %d causes of normal traffic, at most %d are allowed", t.Own.Alarms, t.Causes, most)
	}
	if most := max(o.MinAlarms, t.KnownSet/10); t.Own.Known > most {
		v.object("it would alarm on %d of %d known-normal canaries, at most %d are allowed", t.Own.Known, t.KnownSet, most)
	}
}

// compare holds a model against another and returns how much worse it is, as
// shares; better is negative.
func (o *Options) compare(v *verdict, t *Trial, ref *Count, left Spent, who, key string) (worse Spent) {
	v.metrics[key+"false_alarms"], v.metrics[key+"detected"], v.metrics[key+"known_alarms"] = float64(ref.Alarms), float64(ref.Detected), float64(ref.Known)
	v.words += fmt.Sprintf("; %s: %d, %d, %d", who, ref.Alarms, ref.Detected, ref.Known)
	if allowed := o.allowed(t.Causes, left.FalseAlarms); t.Own.Alarms-ref.Alarms > allowed {
		v.object("false alarms %d -> %d of %d causes against %s, at most %d more are allowed", ref.Alarms, t.Own.Alarms, t.Causes, who, allowed)
	}
	if allowed := o.allowed(t.KnownSet, left.FalseAlarms); t.Own.Known-ref.Known > allowed {
		v.object("alarms on known-normal canaries %d -> %d of %d against %s", ref.Known, t.Own.Known, t.KnownSet, who)
	}
	if allowed := int(left.Detection * float64(t.AttackSet)); ref.Detected-t.Own.Detected > allowed {
		v.object("own attacks detected %d -> %d of %d against %s", ref.Detected, t.Own.Detected, t.AttackSet, who)
	}
	return Spent{share(t.Own.Alarms-ref.Alarms, t.Causes), share(ref.Detected-t.Own.Detected, t.AttackSet)}
}

// inAll objects to a model with the mesh's part that is within each allowance and yet
// worse in all than what the site made alone.
func (o *Options) inAll(v *verdict, worse Spent, meshed bool, who string) {
	if sum := worse.FalseAlarms + worse.Detection; meshed && o.Worse > 0 && sum > o.Worse {
		v.object("false alarms and misses together are %.1f points more than with %s, at most %.1f are allowed", 100*sum, who, 100*o.Worse)
	}
}

func (o *Options) allowed(of int, sh float64) int {
	return max(o.MinAlarms, int(sh*float64(of)))
}

func share(n, of int) float64 { return float64(n) / math.Max(1, float64(of)) }

// left is what promotions may still use up.
func (o *Options) left(s Spent) Spent {
	return Spent{max(0, o.FalseAlarms-s.FalseAlarms), max(0, o.Detection-s.Detection)}
}

func (s Spent) plus(d Spent) Spent {
	return Spent{max(0, s.FalseAlarms+d.FalseAlarms), max(0, s.Detection+d.Detection)}
}

// surely is the error that is accepted when a model is given up for what it
// does on live traffic.
const surely = 0.01

// live objects to what a model did beside another, "" for nothing: scores that
// are no numbers, or more causes that only it alarms on than allowed and than
// chance explains (exact sign test on the causes in which the two differ,
// McNemar 1947).
func (o *Options) live(l *Live) string {
	if l.Errors >= o.MaxErrors {
		return fmt.Sprintf("%d of its scores were no p-values", l.Errors)
	}
	if allowed := o.allowed(l.Causes, o.FalseAlarms); l.Only-l.Other > allowed && signTail(l.Only, l.Only+l.Other) < surely {
		return fmt.Sprintf("of %d causes of later traffic it alone would alarm on %d, the other model alone on %d", l.Causes, l.Only, l.Other)
	}
	return ""
}

// signTail is the chance of at least k heads in n throws of a fair coin.
func signTail(k, n int) float64 {
	if 2*k <= n {
		return 1 // a half or more: nothing to see
	}
	lg := func(x int) float64 { y, _ := math.Lgamma(float64(x) + 1); return y }
	var sum float64
	for i := k; i <= n; i++ {
		p := math.Exp(lg(n) - lg(i) - lg(n-i) - float64(n)*math.Ln2)
		sum += p
		if p < 1e-12*sum {
			break // what follows is smaller still
		}
	}
	return math.Min(1, sum)
}
