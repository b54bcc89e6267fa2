package tabular

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// How much of a table takes part in choosing.
const (
	chooseFolds  = 4
	chooseNormal = 20_000 // normal rows that train
	chooseFamily = 4_000  // rows of a family that train
	tryNormal    = 6_000  // normal rows that are tried
	tryFamily    = 400    // rows of a family that are tried
	fewRows      = 8      // a family of fewer is not tried
	commonKind   = 0.1    // a kind of normal rows beyond this share is never left out
)

// Figures are means over families of attacks, each weighed by the root of its
// size: neither does one great flood decide, nor do three rows of a rarity.
type Figures struct {
	AUC      float64 `json:"auc"`
	At1      float64 `json:"dr_at_1pct"`
	At5      float64 `json:"dr_at_5pct"`
	Families int     `json:"families"`
	weight   float64
}

func (f *Figures) add(g Figures) {
	n, m := f.weight, g.weight
	if n+m == 0 {
		return
	}
	mix := func(a, b float64) float64 { return (a*n + b*m) / (n + m) }
	f.AUC, f.At1, f.At5 = mix(f.AUC, g.AUC), mix(f.At1, g.At1), mix(f.At5, g.At5)
	f.Families, f.weight = f.Families+g.Families, n+m
}

// Trial is one way of combining, tried on training rows only.
type Trial struct {
	Way    Way     `json:"way"`
	Known  Figures `json:"known"`  // families that were shown, on rows that were not
	Unseen Figures `json:"unseen"` // families that were not shown
	Worth  float64 `json:"worth"`  // what the choice goes by
	Chosen bool    `json:"chosen"`
	folds  []float64
}

// Choose finds the way of combining the parts by cross-validation within the
// training rows, made so that it is like what comes later: in each fold some
// families of attacks are shown to nobody, and some kinds of normal rows (equal
// in all their words) are not shown either, since tomorrow's normal is not all
// like today's. What it goes by is the mean detection at 1 % and at 5 % false
// alarms, over families, so that no family is so large that the others do not
// count. All trials are returned.
func Choose(ctx context.Context, t *Table, o Options) (Way, []Trial, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Way{}, nil, err
	}
	c := newChooser(t, o)
	if err := c.normals(ctx); err != nil {
		return Way{}, nil, fmt.Errorf("choose how to combine: %w", err)
	}
	return c.choose(ctx)
}

// choose tries all ways and takes the best.
func (c *chooser) choose(ctx context.Context) (Way, []Trial, error) {
	o := c.o
	c.trials = nil
	for _, w := range ways(c.kinds) {
		c.trials = append(c.trials, Trial{Way: w})
	}
	for fold := range chooseFolds {
		o.Progress(fmt.Sprintf("choose: families, %d of %d", fold+1, chooseFolds))
		if err := c.try(ctx, fold); err != nil {
			return Way{}, nil, fmt.Errorf("choose how to combine: %w", err)
		}
	}
	best := 0
	for i := range c.trials {
		x := &c.trials[i]
		if x.Unseen.Families == 0 && o.Unseen > 0 {
			// One family cannot be hidden from the training and be there too:
			// nothing is known of what is not shown, so all parts speak.
			if x.Way.String() == AllParts(o.Rounds).String() {
				best = i
			}
			continue
		}
		x.Worth = worth(x.Known, x.Unseen, o.Unseen)
		if x.Worth > c.trials[best].Worth {
			best = i
		}
	}
	best = c.broadest(best)
	c.trials[best].Chosen = true
	return c.trials[best].Way, c.trials, nil
}

// worth is mean detection at 1 % and at 5 %, of families shown and not shown.
func worth(known, unseen Figures, share float64) float64 {
	return (1-share)*(known.At1+known.At5)/2 + share*(unseen.At1+unseen.At5)/2
}

// broadest is the way of most parts among those that the folds cannot tell from
// the best: within one standard error of the difference (the rule of Breiman et
// al. 1984, the other way around: what the folds do not imitate is survived by
// parts of different kinds, not by fewer of them). Of as many parts the better
// one is taken.
func (c *chooser) broadest(best int) int {
	top, most := c.trials[best], best
	for i := range c.trials {
		x, have := &c.trials[i], &c.trials[most]
		if !alike(top.folds, x.folds) {
			continue
		}
		if n, m := len(x.Way.Parts), len(have.Way.Parts); n > m || (n == m && x.Worth > have.Worth) {
			most = i
		}
	}
	return most
}

// alike says that the mean difference of two ways over the folds is within its
// standard error.
func alike(top, x []float64) bool {
	n := float64(len(top))
	if n < 2 || len(x) != len(top) {
		return false
	}
	var mean, sq float64
	for f := range top {
		mean += (top[f] - x[f]) / n
	}
	for f := range top {
		d := top[f] - x[f] - mean
		sq += d * d
	}
	return mean <= math.Sqrt(sq/(n-1)/n)
}

type chooser struct {
	t      *Table
	o      Options
	rng    *rand.Rand
	fold   []int  // of each family
	late   []bool // rows that are held out
	novel  []bool // those of them that are of a kind of which no row is shown
	size   []int  // of each family
	class  []int  // of each family
	early  []int  // normal rows that train
	after  []int  // normal rows that are tried
	known  *known // what is learnt from the early ones
	kinds  []Grown
	skip   int // a class that takes no part, if above 0
	trials []Trial
}

func newChooser(t *Table, o Options) *chooser {
	c := &chooser{t: t, o: o, rng: rand.New(rand.NewPCG(o.Seed, 0xc4005e))}
	c.o.Steps = min(o.Steps, 4000)
	c.kinds = []Grown{{o.Rounds, true}, {o.Rounds, false}}
	c.dealFamilies()
	c.holdNormals()
	return c
}

// dealFamilies gives each family the fold in which it is not shown: those of
// one class in turn, so that a class keeps families in each fold where it can.
func (c *chooser) dealFamilies() {
	of := make([][]int, len(c.t.Class.Names))
	n := len(c.t.Family.Names)
	c.fold, c.size, c.class = make([]int, n), make([]int, n), make([]int, n)
	seen := map[int]bool{}
	for r, f := range c.t.Family.Of {
		c.size[f]++
		if f > 0 && !seen[f] {
			seen[f] = true
			c.class[f] = c.t.Class.Of[r]
			of[c.t.Class.Of[r]] = append(of[c.t.Class.Of[r]], f)
		}
	}
	at := 0
	for _, families := range of {
		slices.Sort(families)
		c.rng.Shuffle(len(families), func(i, j int) { families[i], families[j] = families[j], families[i] })
		for _, f := range families {
			c.fold[f] = at % chooseFolds
			at++
		}
	}
}

// holdNormals keeps a quarter of the normal rows for trying, by groups, and
// besides all rows of a quarter of the less common kinds.
func (c *chooser) holdNormals() {
	t := c.t
	fold := t.Folds(4, c.o.Seed)
	kind, size := make([]string, t.Rows()), map[string]int{}
	normals := 0
	for r := range kind {
		if t.Class.Of[r] != 0 {
			continue
		}
		kind[r] = t.kind(r)
		size[kind[r]]++
		normals++
	}
	held := map[string]bool{}
	names := make([]string, 0, len(size))
	for k := range size {
		names = append(names, k)
	}
	slices.Sort(names)
	c.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for i, k := range names {
		held[k] = i%4 == 0 && float64(size[k]) < commonKind*float64(normals)
	}
	c.late, c.novel = make([]bool, t.Rows()), make([]bool, t.Rows())
	for r := range c.late {
		c.novel[r] = t.Class.Of[r] == 0 && held[kind[r]]
		c.late[r] = fold[r] == 0 || c.novel[r]
	}
}

// kind is a row's words together.
func (t *Table) kind(r int) string {
	var b []byte
	for i := range t.Columns {
		if c := &t.Columns[i]; c.IsWords() {
			w := c.Word[r]
			b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
		}
	}
	return string(b)
}

// some draws at most n of the rows.
func (c *chooser) some(rows []int, n int) []int {
	if len(rows) <= n {
		return rows
	}
	c.rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows[:n]
}

// normals parts the normal rows, and learns what is learnt from them alone.
func (c *chooser) normals(ctx context.Context) error {
	t := c.t
	if t.attacks() < minAttack {
		return fmt.Errorf("%w: %d attacks", ErrTooFew, t.attacks())
	}
	c.early = c.some(t.Where(func(r int) bool { return t.Class.Of[r] == 0 && !c.late[r] }), chooseNormal)
	c.after = c.tried()
	if len(c.early) < minNormal || len(c.after) < minNormal {
		return fmt.Errorf("%w: %d and %d normal rows: expected at least %d each", ErrTooFew, len(c.early), len(c.after), minNormal)
	}
	c.o.Progress("choose: normal rows")
	var err error
	c.known, err = fitKnown(ctx, t.Pick(c.early), c.o)
	return err
}

// tried are the normal rows to try: a tenth of them of kinds that are not shown,
// if there are as many.
func (c *chooser) tried() []int {
	t := c.t
	usual := c.some(t.Where(func(r int) bool { return t.Class.Of[r] == 0 && c.late[r] && !c.novel[r] }), tryNormal*9/10)
	novel := c.some(t.Where(func(r int) bool { return c.novel[r] }), len(usual)/9)
	out := slices.Concat(usual, novel)
	c.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// try trains on what a fold shows and tries every way on what it does not.
func (c *chooser) try(ctx context.Context, fold int) error {
	t := c.t
	train, test := slices.Clone(c.early), slices.Clone(c.after)
	var families [][]int // rows of test, after the normals
	var unseen []bool
	var weights []float64
	for f := 1; f < len(t.Family.Names); f++ {
		if c.skip > 0 && c.class[f] == c.skip {
			continue
		}
		away := c.fold[f] == fold
		if !away {
			train = append(train, c.some(t.Where(func(r int) bool { return t.Family.Of[r] == f && !c.late[r] }), chooseFamily)...)
		}
		rows := c.some(t.Where(func(r int) bool { return t.Family.Of[r] == f && (away || c.late[r]) }), tryFamily)
		if len(rows) < fewRows {
			continue
		}
		var at []int
		for _, r := range rows {
			at = append(at, len(test))
			test = append(test, r)
		}
		families, unseen = append(families, at), append(unseen, away)
		weights = append(weights, math.Sqrt(float64(c.size[f])))
	}
	shown := t.Pick(train)
	if shown.attacks() < minAttack || len(families) == 0 {
		return nil // all families are in this fold
	}
	raw, err := c.score(ctx, shown, t.Pick(test))
	if err != nil {
		return err
	}
	// Every third normal row sets the scales, the others are tried.
	var basis, normal []int
	for i := range c.after {
		if i%3 == 0 {
			basis = append(basis, i)
		} else {
			normal = append(normal, i)
		}
	}
	surprise := map[string][]float64{}
	for p, s := range raw {
		sc, err := newScale(pick(s, basis))
		if err != nil {
			return err
		}
		surprise[p] = sc.all(s)
	}
	for i := range c.trials {
		joint := c.trials[i].Way.named().join(surprise)
		var known, unknown Figures
		usual := pick(joint, normal)
		slices.Sort(usual)
		for j, rows := range families {
			f := among(usual, pick(joint, rows))
			f.weight = weights[j]
			if unseen[j] {
				unknown.add(f)
			} else {
				known.add(f)
			}
		}
		c.trials[i].Known.add(known)
		c.trials[i].Unseen.add(unknown)
		c.trials[i].folds = append(c.trials[i].folds, worth(known, unknown, c.o.Unseen))
	}
	return nil
}

// score gives the raw scores of the parts; trees and forests under the names of
// their kinds.
func (c *chooser) score(ctx context.Context, train, test *Table) (map[string][]float64, error) {
	raw := c.known.scores(test)
	for _, g := range c.kinds {
		b, err := fitBoosted(ctx, train, g.Balanced, c.o.boost())
		if err != nil {
			return nil, err
		}
		if raw[g.part(Trees)], err = b.score(test); err != nil {
			return nil, err
		}
		f, err := fitGrove(ctx, train, g.Balanced, c.o)
		if err != nil {
			return nil, err
		}
		if raw[g.part(Grove)], err = f.score(test); err != nil {
			return nil, err
		}
	}
	raw[Contrast] = contrast(raw[Nearest], c.known.attacks(train, c.o.Seed), test)
	return raw, nil
}

// part is the name of a part of this kind.
func (g Grown) part(p string) string {
	if g.Balanced && (p == Trees || p == Grove) {
		return p + ", balanced"
	}
	return p
}

// named is the way with its parts under the names of their kinds.
func (w Way) named() Way {
	w.Parts = slices.Clone(w.Parts)
	for i, p := range w.Parts {
		w.Parts[i] = w.part(p)
	}
	return w
}

// among ranks the rows of one family among normal rows, whose scores are sorted;
// rows of equal score are not parted, as in metrics.Rank, which it equals.
func among(normal, family []float64) Figures {
	f := Figures{Families: 1, weight: 1}
	n, of := float64(len(normal)), float64(len(family))
	for _, x := range family {
		below := sort.SearchFloat64s(normal, x)
		upTo := below + sort.Search(len(normal)-below, func(i int) bool { return normal[below+i] > x })
		f.AUC += float64(below+upTo) / 2
		alarms := float64(len(normal) - below)
		if alarms <= 0.01*n*(1+1e-12) {
			f.At1++
		}
		if alarms <= 0.05*n*(1+1e-12) {
			f.At5++
		}
	}
	f.AUC, f.At1, f.At5 = f.AUC/n/of, f.At1/of, f.At5/of
	return f
}
