package demo

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// narrator prints the timeline: what the story does, and the first of each
// kind of thing that a site tells of each hostile address.
type narrator struct {
	mu      sync.Mutex
	out     io.Writer
	began   time.Time
	hostile map[netip.Addr]bool
	verbose bool
	told    map[string]bool
	blocked map[netip.Addr]int64 // when its first block was in force
	n       int
}

func newNarrator(out io.Writer, began time.Time, hostile map[netip.Addr]bool, verbose bool) *narrator {
	return &narrator{
		out: out, began: began, hostile: hostile, verbose: verbose,
		told: make(map[string]bool), blocked: make(map[netip.Addr]int64),
	}
}

func (v *narrator) title(o Options) {
	var attacks []string
	for _, a := range o.Attacks {
		attacks = append(attacks, string(a))
	}
	what := strings.Join(attacks, ", ")
	if what == "" {
		what = "none"
	}
	learner := "on"
	if !o.Learner {
		learner = "off"
	}
	fmt.Fprintf(v.out, "Hedgerow demo, seed %d: three branch sites of one organisation, %s\nattacks: %s; learner: %s\n",
		o.Scenario.Seed, o.Where, what, learner)
}

// step begins a chapter.
func (v *narrator) step(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.n++
	fmt.Fprintf(v.out, "\n%d. %s\n", v.n, name)
}

// say prints one line of the timeline, now.
func (v *narrator) say(site, words string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.line(time.Now(), site, words)
}

func (v *narrator) line(at time.Time, site, words string) {
	fmt.Fprintf(v.out, "%7.2f s  %-6s %s\n", at.Sub(v.began).Seconds(), site, words)
}

// event prints what a site told, if it is new to the story.
func (v *narrator) event(e *event.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key, words := v.words(e)
	if words == "" || !v.verbose && v.told[e.Site+key] {
		return
	}
	v.told[e.Site+key] = true
	v.line(e.Time, e.Site, words)
}

// words renders an event; key tells whether something like it was told before.
// No words: nothing that the story is about.
func (v *narrator) words(e *event.Event) (key, words string) {
	switch e.Kind {
	case event.KindAlert:
		if !v.verbose && !v.hostilePeer(e.Alert.Peer) {
			return "", ""
		}
		return "alert" + e.Alert.Peer, fmt.Sprintf("alert by %s at packet %d: %s", e.Alert.Detector, e.Alert.Milest, e.Alert.Sentence)
	case event.KindVerdict:
		return v.verdict(e)
	case event.KindIndicator:
		return v.indicator(e)
	case event.KindModel:
		m := e.Model
		if (m.Origin != "round" || slices.Contains(passing, m.State)) && !v.verbose {
			return "", ""
		}
		return "model" + m.Hash + m.State, fmt.Sprintf("model %s of round %d: %s: %s", short(m.Hash), m.Round, m.State, m.Why)
	}
	return "", ""
}

// passing are the stages of a model's life that only the curious want to see.
var passing = []string{"candidate", "shadow", "canary", "retired"}

func (v *narrator) verdict(e *event.Event) (key, words string) {
	d := e.Verdict
	if v.wrong(e) {
		return "wrong" + e.ID, fmt.Sprintf("WRONG: %s %s: %s", d.Action, d.Target, d.Sentence)
	}
	who := v.culprit(d.Target)
	if !who.IsValid() && !v.verbose {
		return "", ""
	}
	switch {
	case d.FirstDropNS != 0:
		return "drop" + d.Action + who.String(), fmt.Sprintf("%s drops its first packet of %s", d.Action, d.Target)
	case d.EnforcedNS == 0:
		return "said" + d.Action + who.String(), fmt.Sprintf("%s %s: %s", d.Action, d.Target, d.Sentence)
	}
	if d.Action == "block" && v.blocked[who] == 0 {
		v.blocked[who] = d.EnforcedNS
	}
	words = fmt.Sprintf("%s %s", d.Action, d.Target)
	if d.DetectedNS != 0 {
		words += fmt.Sprintf(", in force %s after the packet that showed it", ms(since(d.DetectedNS, d.EnforcedNS)))
	}
	return d.Action + who.String(), words
}

func (v *narrator) indicator(e *event.Event) (key, words string) {
	i := e.Indicator
	who := v.culprit(i.Value)
	if !who.IsValid() && !v.verbose {
		return "", ""
	}
	key = "indicator" + i.Op + i.Outcome + i.Value
	switch i.Outcome {
	case "sent":
		return key, fmt.Sprintf("tells the mesh: %s %s, %s evidence", i.Type, i.Value, i.Evidence)
	case "enforced":
		words = fmt.Sprintf("enforces what %s told of %s", i.Author, i.Value)
		if at := v.blocked[who]; at != 0 && i.DoneNS != 0 {
			words += fmt.Sprintf(", %s after its block", ms(since(at, i.DoneNS)))
		}
		return key, words
	}
	return key, fmt.Sprintf("%s what %s told of %s: %s", i.Outcome, i.Author, i.Value, i.Why)
}

// culprit is the hostile address in a target, or the zero Addr.
func (v *narrator) culprit(target string) netip.Addr {
	for _, a := range addresses(target) {
		if v.hostile[a] {
			return a
		}
	}
	return netip.Addr{}
}

func (v *narrator) hostilePeer(addr string) bool { return v.culprit(addr).IsValid() }

// wrong says whether an event is a rule against ordinary traffic.
func (v *narrator) wrong(e *event.Event) bool {
	if e.Kind != event.KindVerdict || e.Verdict.FirstDropNS != 0 || v.hostilePeer(e.Verdict.Target) {
		return false
	}
	switch e.Verdict.Action {
	case "suspend", "rate-limit", "block":
		return true
	}
	return false
}
