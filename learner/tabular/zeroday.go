package tabular

import (
	"context"
	"fmt"
	"slices"
)

// LeftOut is how well attacks of a class were found that nobody was shown.
type LeftOut struct {
	Class    string  `json:"class"`
	Rows     int     `json:"rows"` // of the class, in the test
	Way      Way     `json:"way"`
	Together Figures `json:"together"`
	Trees    Figures `json:"classifier"`
	Self     Figures `json:"autoencoder"`
	Nearest  Figures `json:"nearest"`
}

// LeaveOut takes each class of attacks out of all training in turn, the choice
// of the way included, and looks for it in the test among normal rows. What is
// learnt from normal rows alone is the same each time.
func LeaveOut(ctx context.Context, train, test *Table, o Options) ([]LeftOut, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	fitRows, held := train.hold(o.Seed)
	k, err := fitKnown(ctx, fitRows.normals(), o)
	if err != nil {
		return nil, fmt.Errorf("leave out: %w", err)
	}
	o.Unseen = 1
	c := newChooser(fitRows, o)
	c.kinds = slices.DeleteFunc(c.kinds, func(g Grown) bool { return !g.Balanced }) // half the time
	if err := c.normals(ctx); err != nil {
		return nil, fmt.Errorf("leave out: %w", err)
	}
	var out []LeftOut
	for class := 1; class < len(train.Class.Names); class++ {
		rows := test.Where(func(r int) bool { return test.Class.Of[r] == class })
		if len(rows) < fewRows {
			continue
		}
		o.Progress("leave out " + train.Class.Names[class])
		c.skip = class
		x, err := leaveOut(ctx, c, k, held, test, o)
		if err != nil {
			return nil, fmt.Errorf("leave out %s: %w", train.Class.Names[class], err)
		}
		x.Class, x.Rows = train.Class.Names[class], len(rows)
		out = append(out, x)
	}
	return out, nil
}

func leaveOut(ctx context.Context, c *chooser, k *known, held, test *Table, o Options) (LeftOut, error) {
	class := c.skip
	without := func(t *Table) *Table {
		return t.Pick(t.Where(func(r int) bool { return t.Class.Of[r] != class }))
	}
	way, _, err := c.choose(ctx)
	if err != nil {
		return LeftOut{}, err
	}
	d, err := assemble(ctx, k, without(c.t), without(held), way, o)
	if err != nil {
		return LeftOut{}, err
	}
	part := test.Pick(test.Where(func(r int) bool { return test.Class.Of[r] == 0 || test.Class.Of[r] == class }))
	s, err := d.Surprises(part)
	if err != nil {
		return LeftOut{}, err
	}
	normal := part.Where(func(r int) bool { return part.Class.Of[r] == 0 })
	family := part.Where(func(r int) bool { return part.Class.Of[r] != 0 })
	x := LeftOut{Way: way}
	for _, f := range []struct {
		to    *Figures
		score []float64
	}{{&x.Together, d.Join(s)}, {&x.Trees, s[Trees]}, {&x.Self, s[Self]}, {&x.Nearest, s[Nearest]}} {
		usual := pick(f.score, normal)
		slices.Sort(usual)
		*f.to = among(usual, pick(f.score, family))
	}
	return x, nil
}
