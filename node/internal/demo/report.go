package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what the demo measured. Durations are nanoseconds in JSON.
type Report struct {
	Seed     uint64        `json:"seed"`
	Where    string        `json:"where"`
	Learner  bool          `json:"learner"`
	Attacks  []string      `json:"attacks"`
	OK       bool          `json:"ok"`
	Failed   string        `json:"failed,omitempty"` // the step that did not happen, and why
	Took     time.Duration `json:"took_ns"`
	Steps    []StepReport  `json:"steps"`
	Caught   []Caught      `json:"caught"`
	Missed   []Missed      `json:"missed"`
	Round    *RoundReport  `json:"round,omitempty"`
	Ordinary Ordinary      `json:"ordinary"`
	// Kernel is each site's scorer in the packet path at the end of the story.
	Kernel map[string]*Kernel `json:"kernel,omitempty"`

	Consortium *ConsortiumReport `json:"consortium,omitempty"`
}

// StepReport is one step of the story.
type StepReport struct {
	Name string        `json:"name"`
	At   time.Duration `json:"at_ns"` // since the demo's start
	Took time.Duration `json:"took_ns"`
	OK   bool          `json:"ok"`
}

// Caught is an attack that was stopped, with the times that matter.
type Caught struct {
	Attack   string `json:"attack"`
	Site     string `json:"site"`
	Address  string `json:"address"`
	Detector string `json:"detector"`
	// Flows is how many sessions the attacker began until the block.
	Flows int `json:"sessions_begun"`
	// FirstRule is from the packet that raised the first alert to the first
	// rule that the plane confirmed.
	FirstRule time.Duration `json:"detection_to_first_rule_ns"`
	// Blocked is from that packet to the confirmed block of the address or
	// service, which needs more evidence than the first rule.
	Blocked time.Duration `json:"detection_to_block_ns"`
	// FirstDrop is from that packet to the first one that any rule of this
	// attack dropped; 0 when the plane told of none.
	FirstDrop time.Duration `json:"detection_to_first_drop_ns"`
	// Elsewhere is from the confirmed block to enforcement at another site.
	Elsewhere map[string]time.Duration `json:"block_to_elsewhere_ns"`
	// Tried and Through are the attacker's connections at other sites, or
	// from them, after the block was there.
	Tried   int `json:"tried_elsewhere"`
	Through int `json:"through_elsewhere"`

	blockedNS int64
}

// Missed is an attack that went through, as this story expects.
type Missed struct {
	Attack   string `json:"attack"`
	Site     string `json:"site"`
	Address  string `json:"address"`
	Sessions int    `json:"sessions"`
	Why      string `json:"why"`
}

// RoundReport is the model rounds that taught the sites.
type RoundReport struct {
	Rounds  int                      `json:"rounds"`
	Adopted map[string]time.Duration `json:"adopted_ns"` // per site, from the first round's start
	Refused map[string]string        `json:"refused,omitempty"`
	Hash    string                   `json:"hash"`
}

// Ordinary is what legitimate work felt.
type Ordinary struct {
	Run         int      `json:"sessions"`
	Lost        int      `json:"lost"`
	FirstLost   []string `json:"first_lost,omitempty"`
	Verdicts    int      `json:"verdicts_against_ordinary"`
	FirstWrong  []string `json:"first_wrong,omitempty"`
	FalseAlerts int      `json:"alerts_on_ordinary"`
}

// Write prints the report as a table, or as JSON.
func (r *Report) Write(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	var b strings.Builder
	r.table(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) table(b *strings.Builder) {
	if len(r.Caught) > 0 {
		b.WriteString("\n")
		t := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "attack\tat\tcaught by\tsessions\tdetection->first rule\t->blocked\t->first drop\tblock->enforced elsewhere\tgot through elsewhere")
		for _, c := range r.Caught {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%d of %d\n", c.Attack, c.Site, c.Detector, c.Flows,
				ms(c.FirstRule), ms(c.Blocked), orNone(c.FirstDrop), elsewhere(c.Elsewhere), c.Through, c.Tried)
		}
		_ = t.Flush() // a strings.Builder takes everything
	}
	for _, m := range r.Missed {
		fmt.Fprintf(b, "\n%s at %s to %s: %d sessions went through, as expected: %s\n", m.Attack, m.Site, m.Address, m.Sessions, m.Why)
	}
	if r.Round != nil {
		fmt.Fprintf(b, "\nshared model %s after %d round(s), adopted: %s\n", short(r.Round.Hash), r.Round.Rounds, elsewhere(r.Round.Adopted))
		for _, site := range sorted(r.Round.Refused) {
			fmt.Fprintf(b, "  refused by %s: %s\n", site, r.Round.Refused[site])
		}
	}
	if r.Consortium != nil {
		r.Consortium.table(b)
	}
	r.kernelTable(b)
	o := r.Ordinary
	fmt.Fprintf(b, "\nordinary sessions %d, lost %d; rules against ordinary traffic %d; alerts on it %d\n", o.Run, o.Lost, o.Verdicts, o.FalseAlerts)
	for _, s := range append(append([]string(nil), o.FirstLost...), o.FirstWrong...) {
		fmt.Fprintf(b, "  %s\n", s)
	}
	if r.OK {
		fmt.Fprintf(b, "everything in the story happened, in %.0f s\n", r.Took.Seconds())
		return
	}
	fmt.Fprintf(b, "did not happen: %s\n", r.Failed)
}

// kernelTable tells of the small models in the packet path. The story does not wait
// for them: it shows how far each site came.
func (r *Report) kernelTable(b *strings.Builder) {
	if len(r.Kernel) == 0 {
		return
	}
	b.WriteString("\n")
	t := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "model in the packet path\tmode\tdistilled\tcompiled\tverified\tswapped\tword->packet path\tmodel->packet path\tmilestones scored\twould suspend at")
	for _, site := range sorted(r.Kernel) {
		k := r.Kernel[site]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", site, k.Mode,
			ms(k.Distilled), ms(k.Compiled), ms(k.Verified), ms(k.Swapped), orNone(k.FromWord), orNone(k.FromModel), k.Scored, k.Would)
	}
	_ = t.Flush() // a strings.Builder takes everything
	for _, site := range sorted(r.Kernel) {
		if k := r.Kernel[site]; k.Held < k.Wanted {
			fmt.Fprintf(b, "  %s's acts on nothing yet: %d normal flows calibrated it, and it takes %d\n", site, k.Held, k.Wanted)
		}
	}
}

func elsewhere(m map[string]time.Duration) string {
	var parts []string
	for _, k := range sorted(m) {
		parts = append(parts, k+" "+ms(m[k]))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func orNone(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return ms(d)
}

// ms prints a duration with a grain that suits its size.
func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func short(hash string) string { return hash[:min(len(hash), 10)] }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
