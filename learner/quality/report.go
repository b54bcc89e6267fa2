package quality

import (
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Verdict of a window.
type Verdict string

// Verdicts.
const (
	Good    Verdict = "good"
	Changed Verdict = "changed" // fit to learn from; its inputs are not what they were
	Bad     Verdict = "bad"     // must not train a model
)

// Report is a window's quality. Shares are of the reports offered, unless a word
// says otherwise.
type Report struct {
	From       time.Time `json:"from,omitzero"`
	To         time.Time `json:"to,omitzero"`
	Offered    int       `json:"reports"`
	Kept       int       `json:"kept"`
	Invalid    int       `json:"invalid,omitempty"`
	Duplicates int       `json:"duplicates,omitempty"`
	Backwards  int       `json:"clock_back,omitempty"`
	Future     int       `json:"clock_ahead,omitempty"`
	TCPEnded   int       `json:"tcp_ended"`
	OneSided   int       `json:"one_sided"` // of TCPEnded
	Attacks    int       `json:"attacks"`   // reports of known attacks
	Unlabelled int       `json:"unlabelled"`
	TopHost    float64   `json:"top_host_share"` // of the reports that were kept
	Compared   int       `json:"inputs_compared"`
	Torn       int       `json:"inputs_torn"` // that hardly overlap with the training window
	Drifted    []Drift   `json:"drifted,omitempty"`
	Verdict    Verdict   `json:"verdict"`
	Reasons    []string  `json:"reasons,omitempty"` // of a verdict that is not good
	Notes      []string  `json:"notes,omitempty"`
}

// Teaches says whether a model may be trained on what the window holds.
func (r *Report) Teaches() bool { return r.Verdict != Bad }

// Words says verdict and reasons in one sentence.
func (r *Report) Words() string {
	s := fmt.Sprintf("%s: %d of %d reports kept", r.Verdict, r.Kept, r.Offered)
	if len(r.Reasons) > 0 {
		s += "; " + strings.Join(r.Reasons, "; ")
	}
	return s
}

// Judge gives the window's report. ref is of what the model was trained on and
// before of the window that came before this one; either may be nil. Inputs that
// are torn from the training window are a reason against learning once: when the
// next window is like this one, that is how the site is now.
func (w *Window) Judge(ref, before *Reference) Report {
	c := &w.count
	r := Report{
		From: c.from, To: c.to, Offered: c.offered, Kept: len(w.items), Invalid: c.invalid, Duplicates: c.duplicate,
		Backwards: c.back, Future: c.ahead, TCPEnded: c.heard, OneSided: c.oneSided, Attacks: c.attacks, Unlabelled: c.unlabelled,
		Verdict: Good,
	}
	for _, n := range w.hosts {
		r.TopHost = max(r.TopHost, float64(n)/float64(max(1, len(w.items))))
	}
	w.against(&r)
	w.drift(&r, ref, before)
	return r
}

func (r *Report) bad(format string, args ...any) {
	r.Verdict = Bad
	r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
}

// over says whether a share is over its limit, where there are enough to say.
func (w *Window) over(n, of int, limit float64) bool {
	return of >= w.l.Least && float64(n) > limit*float64(of)
}

// against looks at what makes reports wrong whatever they tell.
func (w *Window) against(r *Report) {
	if w.over(r.Invalid, r.Offered, w.l.Invalid) {
		r.bad("%d of %d reports break the schema (%s)", r.Invalid, r.Offered, w.count.example)
	}
	if w.over(r.Duplicates, r.Offered, w.l.Duplicate) {
		r.bad("%d of %d reports were there before: the same traffic is read twice", r.Duplicates, r.Offered)
	}
	if w.over(r.Backwards, r.Offered, w.l.Clock) {
		r.bad("%d of %d reports are older than what came before them: the clock went back, or the log is not in order", r.Backwards, r.Offered)
	}
	if w.over(r.Future, r.Offered, w.l.Clock) {
		r.bad("%d of %d reports are of the future: the clock is wrong, or the times are of another zone", r.Future, r.Offered)
	}
	if w.over(r.OneSided, r.TCPEnded, w.l.OneSided) {
		r.bad("%d of %d TCP flows were heard from one side only: the sensor misses a direction, or this is a scan", r.OneSided, r.TCPEnded)
	}
	if r.Unlabelled > 0 && w.over(r.Attacks, r.Kept, w.l.Attacks) {
		r.bad("%d of %d reports are of known attacks, and of %d nobody said that they are none", r.Attacks, r.Kept, r.Unlabelled)
	}
}

// drift compares the inputs with what the model was trained on.
func (w *Window) drift(r *Report, ref, before *Reference) {
	vecs := w.vectors()
	if ref == nil || len(vecs) < Enough {
		return
	}
	r.Drifted, r.Compared, r.Torn = ref.compare(vecs, w.count.blind)
	if len(r.Drifted) == 0 {
		return
	}
	words := fmt.Sprintf("%d of %d inputs are not distributed as in training, most of all: %s", len(r.Drifted), r.Compared, r.Drifted[0].Words)
	if float64(r.Torn) <= w.l.Torn*float64(r.Compared) || w.settled(before, vecs) {
		if r.Verdict == Good {
			r.Verdict = Changed
		}
		r.Reasons = append(r.Reasons, words)
		return
	}
	r.bad("%s; %d hardly overlap: another network, or a broken sensor, until a second window is like it", words, r.Torn)
}

// settled says that the window before was about like this one.
func (w *Window) settled(before *Reference, vecs []feature.Vector) bool {
	if before == nil {
		return false
	}
	_, compared, torn := before.compare(vecs, w.count.blind)
	return float64(torn) <= w.l.Torn/4*float64(compared)
}
