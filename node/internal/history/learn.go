package history

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
)

// Bounds of what files may teach.
const (
	maxFamilies  = 32
	perFamily    = 500
	maxExamples  = 3000
	maxNormals   = 8192
	maxBadTold   = 20
	maxFamilyLen = 96
	// slackAhead is how far a log's clock may be ahead.
	slackAhead = 5 * time.Minute
)

// LearnOptions say what of the past may teach.
type LearnOptions struct {
	Options
	Now    time.Time
	Wait   time.Duration      // normal traffic has to be that old
	Ref    *quality.Reference // of what the model in use was trained on; nil for none
	Limits quality.Limits
}

// Window is a judged stretch of one file.
type Window struct {
	File string `json:"file"`
	quality.Report
}

// Example is a labelled attack and the file that it is from.
type Example struct {
	learner.Example
	Source string
}

// Lesson is what files taught.
type Lesson struct {
	Files    []*File        `json:"files"`
	Reports  int            `json:"reports"`
	Classes  map[string]int `json:"classes"`         // reports by what is known of them
	Weights  map[string]int `json:"attack_families"` // attack reports that teach, by family
	Young    int            `json:"younger_than_wait"`
	Cold     int            `json:"before_settled"` // normal ones, while nobody was familiar yet
	Timeless int            `json:"without_time"`   // of no time or nobody
	Contrary int            `json:"labels_contrary"`
	Unused   int            `json:"labels_unused"`
	Refused  int            `json:"labels_refused"`
	Windows  map[string]int `json:"windows"` // by verdict
	Drifted  map[string]int `json:"drifted,omitempty"`
	Bad      []Window       `json:"bad_windows,omitempty"` // the first ones
	Notes    []string       `json:"notes,omitempty"`

	Normals *learner.Reservoir `json:"-"` // a fair sample
	Attacks []Example          `json:"-"`
}

// pupil gathers a lesson.
type pupil struct {
	o      LearnOptions
	l      *Lesson
	win    *quality.Window
	before *quality.Reference
	seed   maphash.Seed
	rng    *rand.Rand
	met    map[string]int // attack reports offered, by family
	by     map[string][]Example
}

// Learn reads files and keeps, of what is fit to, what teaches: a fair sample of
// normal traffic that is old enough, and labelled attacks of every family.
func Learn(ctx context.Context, files []string, o LearnOptions) (*Lesson, error) {
	if len(files) == 0 {
		return nil, errors.New("learn history: no file given")
	}
	pool, err := learner.NewReservoir(learner.ReservoirOptions{Size: maxNormals, Seed: o.Seed})
	if err != nil {
		return nil, err
	}
	win, err := quality.NewWindow(o.Limits)
	if err != nil {
		return nil, err
	}
	p := &pupil{o: o, win: win, seed: maphash.MakeSeed(), rng: rand.New(rand.NewPCG(o.Seed, 0x4157)), met: map[string]int{}, by: map[string][]Example{}}
	p.l = &Lesson{Classes: map[string]int{}, Weights: map[string]int{}, Windows: map[string]int{}, Drifted: map[string]int{}, Normals: pool}
	for _, path := range files {
		f, err := Read(ctx, path, o.Options, func(r *Report) { p.report(path, r) })
		if err != nil {
			return nil, fmt.Errorf("learn history: %w", err)
		}
		p.close(path) // a window is of one file: the next has another clock, and may be of another place
		p.win.NewClock()
		p.before = nil
		p.l.Files = append(p.l.Files, f)
	}
	p.examples()
	n, first := o.Truth.Unused()
	p.l.Unused = n
	p.l.Refused = o.Truth.Refused
	p.l.Notes = append(p.l.Notes, append(o.Truth.Faults, first...)...)
	return p.l, nil
}

// report takes one report into the window, unless it can teach nothing.
func (p *pupil) report(path string, r *Report) {
	p.l.Reports++
	p.l.Classes[r.Class.String()]++
	if r.Contrary {
		p.l.Contrary++
	}
	at := time.Unix(0, r.Record.Last)
	attack := r.Class == flowlog.Attack
	switch {
	case r.Record.Lacks&(flow.LackAddrs|flow.LackClock) != 0:
		p.l.Timeless++
		return
	case r.Class == flowlog.Unsure:
		return
	case attack:
	case at.After(p.o.Now.Add(-p.o.Wait)) && !at.After(p.o.Now.Add(slackAhead)): // beyond, the gate counts it
		p.l.Young++
		return
	case !r.Settled:
		p.l.Cold++
		return
	}
	it := quality.Item{
		At: at, Seen: at, Key: p.key(r), V: *r.V, Final: r.Final, Blind: feature.All().Without(feature.Given(r.Record.Lacks)),
		Class: quality.Unlabelled, Weight: r.Weight,
	}
	switch r.Class {
	case flowlog.Normal:
		it.Class = quality.Normal
	case flowlog.Attack:
		it.Class = quality.Attack
		it.Family = strings.ToValidUTF8(r.Family[:min(len(r.Family), maxFamilyLen)], "")
		if it.Family == "" {
			it.Family = "attack"
		}
	}
	it.Host, it.Peer, it.Service = owners(r.Record)
	p.win.Add(p.o.Now, &it)
	if p.win.Full() {
		p.close(path)
	}
}

func (p *pupil) key(r *Report) uint64 {
	x := r.Record
	return maphash.Comparable(p.seed, struct {
		k           flow.Key
		start, last int64
		out, in     uint32
		bytes       uint64
		final       bool
	}{x.Key, x.Start, x.Last, x.Dir[0].Packets, x.Dir[1].Packets, x.Dir[0].Bytes + x.Dir[1].Bytes, r.Final})
}

// close judges the window and lets it teach, if it may.
func (p *pupil) close(path string) {
	w := p.win
	p.win = w.Next()
	if w.Offered() == 0 {
		return
	}
	rep := w.Judge(p.o.Ref, p.before)
	if now := w.Reference(); now != nil && now.N() >= quality.Enough {
		p.before = now
	}
	p.l.Windows[string(rep.Verdict)]++
	for _, d := range rep.Drifted {
		p.l.Drifted[d.Feature]++
	}
	if !rep.Teaches() {
		if len(p.l.Bad) < maxBadTold {
			p.l.Bad = append(p.l.Bad, Window{path, rep})
		}
		return
	}
	for i := range w.Items() {
		it := &w.Items()[i]
		if it.Class == quality.Attack {
			p.example(path, it)
			continue
		}
		p.l.Normals.Add(it.At, &it.V, it.Host, it.Peer, it.Service)
	}
}

// example keeps an even sample of each family's reports (Vitter's algorithm R).
func (p *pupil) example(path string, it *quality.Item) {
	name := it.Family
	if _, known := p.met[name]; !known && len(p.met) >= maxFamilies {
		name = "other"
	}
	p.met[name]++
	x := Example{learner.Example{V: it.V, Weight: it.Weight, Family: strings.Clone(name)}, strings.ToValidUTF8(path, "?")}
	if len(p.by[name]) < perFamily {
		p.by[name] = append(p.by[name], x)
		return
	}
	if at := p.rng.IntN(p.met[name]); at < perFamily {
		p.by[name][at] = x
	}
}

// examples puts the families together, each with its share of what fits.
func (p *pupil) examples() {
	names := make([]string, 0, len(p.by))
	for n := range p.by {
		names = append(names, n)
	}
	slices.Sort(names)
	each := maxExamples / max(1, len(names))
	for _, n := range names {
		xs := p.by[n]
		if len(xs) > each {
			p.rng.Shuffle(len(xs), func(i, j int) { xs[i], xs[j] = xs[j], xs[i] })
			xs = xs[:each]
		}
		p.l.Weights[n] = len(xs)
		p.l.Attacks = append(p.l.Attacks, xs...)
	}
}

// Words says the lesson in lines.
func (l *Lesson) Words() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, f := range l.Files {
		if f.Log != nil {
			out = append(out, f.Log.Words()...)
			continue
		}
		say("%s: %s, %d packets, %d flows", f.Path, f.Format, f.Packets, f.Flows)
		if f.Cut != "" {
			say("  ended early: %s", f.Cut)
		}
	}
	say("reports: %d (%s)", l.Reports, counts(l.Classes))
	for _, x := range []struct {
		n    int
		what string
	}{
		{l.Young, "younger than the waiting time: not learnt"}, {l.Cold, "seen before it was clear who is familiar: not learnt"},
		{l.Timeless, "without times or addresses: not learnt (`hedgerow evaluate` reads such tables)"},
		{l.Contrary, "labelled otherwise by the log itself: the given truth counts"}, {l.Unused, "labels that name no flow of the data"},
		{l.Refused, "labels that cannot be used"},
	} {
		if x.n > 0 {
			say("  %d %s", x.n, x.what)
		}
	}
	out = append(out, l.Notes...)
	say("quality: %s of %d windows", counts(l.Windows), sum(l.Windows))
	for _, b := range l.Bad {
		say("  %s, %s to %s: %s", b.File, b.From.UTC().Format(time.RFC3339), b.To.UTC().Format(time.RFC3339), b.Words())
	}
	if len(l.Drifted) > 0 {
		say("  inputs that moved against the model in use, by windows: %s", counts(l.Drifted))
	}
	say("teaches: %d reports of normal traffic, %d of attacks (%s)", l.Normals.Len(), len(l.Attacks), counts(l.Weights))
	return out
}

func sum(m map[string]int) (n int) {
	for _, k := range m {
		n += k
	}
	return n
}

// counts says a map of counts, the largest first, at most eight.
func counts(m map[string]int) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return strings.Compare(a, b)
	})
	if len(keys) == 0 {
		return "none"
	}
	var out []string
	for _, k := range keys[:min(8, len(keys))] {
		out = append(out, fmt.Sprintf("%d %s", m[k], k))
	}
	if len(keys) > 8 {
		out = append(out, fmt.Sprintf("%d more kinds", len(keys)-8))
	}
	return strings.Join(out, ", ")
}
