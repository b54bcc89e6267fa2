package flowlog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is why a line gave no flow.
type Kind string

// Kinds of refusal: the line is broken.
const (
	Broken   Kind = "broken line"   // not of the log's form
	Half     Kind = "half line"     // the file ends within it
	Long     Kind = "line too long" // longer than MaxLine
	Missing  Kind = "value missing" // a field that must be set is not
	NoNumber Kind = "no number"     // NaN and infinities, too
	Negative Kind = "negative"      //
	Range    Kind = "out of range"  // overflow, or what cannot be
	NoAddr   Kind = "no address"    //
	NoTime   Kind = "no time"       //
)

// Kinds of skipping: the line is whole and tells of no flow that Hedgerow knows.
const (
	NotIP   Kind = "not IP"
	NoFlow  Kind = "no flow" // a record of another kind, a summary
	Nothing Kind = "no packets"
)

// LineError is a line that was refused, and why.
type LineError struct {
	Path  string `json:"file"`
	Line  int    `json:"line"`
	Field string `json:"field,omitempty"`
	Kind  Kind   `json:"kind"`
	Found string `json:"found,omitempty"`
	Want  string `json:"expected"`
}

// Error names file, line, field, what stands there and what was expected.
func (e *LineError) Error() string {
	s := fmt.Sprintf("%s: line %d: ", e.Path, e.Line)
	if e.Field != "" {
		s += fmt.Sprintf("field %s: ", e.Field)
	}
	if e.Found != "" {
		s += fmt.Sprintf("found %.60q: ", e.Found)
	}
	return s + "expected " + e.Want
}

// Report says what became of a file's lines.
type Report struct {
	Path    string          `json:"file"`
	Format  Format          `json:"format"`
	Lines   int             `json:"lines"`
	Flows   int             `json:"flows"`
	Refused map[Kind]int    `json:"refused,omitempty"` // broken lines
	Skipped map[Kind]int    `json:"skipped,omitempty"` // whole lines that tell of no flow
	Notes   map[string]int  `json:"notes,omitempty"`   // what was read otherwise than it stands
	Faults  []*LineError    `json:"faults,omitempty"`  // the first refusals
	Lacks   map[string]int  `json:"lacks,omitempty"`   // flows that lack a group of fields
	Joined  map[string]Join `json:"joined,omitempty"`  // logs beside it
	Cut     string          `json:"cut,omitempty"`     // why the file was not read to its end
	Late    int             `json:"late,omitempty"`    // flows that ended too long before their neighbours to be put in order
}

// Join says what a log beside conn.log gave.
type Join struct {
	Lines   int `json:"lines"`
	Refused int `json:"refused,omitempty"`
	Used    int `json:"used"`               // flows that it told of
	LeftOut int `json:"left_out,omitempty"` // entries beyond the memory that joins may take
}

// RefusedLines is their number.
func (r *Report) RefusedLines() int { return total(r.Refused) }

// Words says the report in a few lines.
func (r *Report) Words() []string {
	out := []string{fmt.Sprintf("%s: %s, %d lines, %d flows", r.Path, r.Format, r.Lines, r.Flows)}
	say := func(what string, m map[Kind]int) {
		if len(m) > 0 {
			out = append(out, fmt.Sprintf("  %s: %s", what, tally(m)))
		}
	}
	say("refused", r.Refused)
	say("skipped", r.Skipped)
	for _, k := range slices.Sorted(maps.Keys(r.Notes)) {
		out = append(out, fmt.Sprintf("  %d x %s", r.Notes[k], k))
	}
	for _, k := range slices.Sorted(maps.Keys(r.Joined)) {
		j := r.Joined[k]
		out = append(out, fmt.Sprintf("  joined %s: %d lines, %d flows told of, %d refused, %d left out", k, j.Lines, j.Used, j.Refused, j.LeftOut))
	}
	for _, f := range r.Faults {
		out = append(out, "  "+f.Error())
	}
	if n := r.RefusedLines() - len(r.Faults); n > 0 && len(r.Faults) > 0 {
		out = append(out, fmt.Sprintf("  and %d more refused", n))
	}
	if r.Cut != "" {
		out = append(out, "  ended early: "+r.Cut)
	}
	return out
}

func total(m map[Kind]int) (n int) {
	for _, k := range m {
		n += k
	}
	return n
}

// tally says counts, the largest first.
func tally(m map[Kind]int) string {
	kinds := slices.SortedFunc(maps.Keys(m), func(a, b Kind) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	var out []string
	for _, k := range kinds {
		out = append(out, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(out, ", ")
}
