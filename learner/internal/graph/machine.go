package graph

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// machine runs a graph's operations one after the other in the goroutine that
// asks for it, into memory that stays.
//
// Gorgonia's own machines start a goroutine for each run. Whoever gives his
// thread a low priority to train on would train on other threads all the same;
// and each step would hand over between two threads. They also compute all that
// differentiation put into the graph, the gradient of the inputs too; this one
// computes what is wanted only.
type machine struct {
	steps  []step
	values []gorgonia.Value // by slot
	slots  map[int64]int    // of a node's id
}

// step is one operation: from the values in some slots to that in another.
type step struct {
	op   gorgonia.Op
	into gorgonia.UsePreallocDoer // nil: op makes a new value each time
	mem  gorgonia.Value           // for into: no other step writes it
	from []int
	in   []gorgonia.Value // scratch
	to   int
}

// newMachine prepares what the wanted nodes need.
func newMachine(g *gorgonia.ExprGraph, wanted ...*gorgonia.Node) (*machine, error) {
	sorted, err := gorgonia.Sort(g)
	if err != nil {
		return nil, err
	}
	m := &machine{slots: map[int64]int{}}
	needed := map[int64]bool{}
	for _, n := range wanted {
		needed[n.ID()] = true
	}
	for _, n := range sorted { // results come before what they are made of
		if needed[n.ID()] {
			for kids := g.From(n.ID()); kids.Next(); {
				needed[kids.Node().ID()] = true
			}
		}
	}
	for i := len(sorted) - 1; i >= 0; i-- {
		if n := sorted[i]; needed[n.ID()] {
			if err := m.add(g, n); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *machine) add(g *gorgonia.ExprGraph, n *gorgonia.Node) error {
	to := len(m.values)
	m.slots[n.ID()] = to
	m.values = append(m.values, n.Value())
	op := n.Op()
	if op == nil {
		if n.Value() == nil {
			return fmt.Errorf("node %s: an input without a value", n.Name())
		}
		return nil
	}
	s := step{op: op, to: to}
	for kids := g.From(n.ID()); kids.Next(); {
		at, ok := m.slots[kids.Node().ID()]
		if !ok {
			return fmt.Errorf("node %s: it comes before its inputs", n.Name())
		}
		s.from = append(s.from, at)
	}
	s.in = make([]gorgonia.Value, len(s.from))
	if into, ok := op.(gorgonia.UsePreallocDoer); ok && n.Shape().Dims() > 0 {
		s.into, s.mem = into, tensor.New(tensor.Of(n.Dtype()), tensor.WithShape(n.Shape()...))
	}
	m.steps = append(m.steps, s)
	return nil
}

// run computes all values anew.
func (m *machine) run() (err error) {
	for i := range m.steps {
		s := &m.steps[i]
		for j, at := range s.from {
			s.in[j] = m.values[at]
		}
		if s.into != nil {
			m.values[s.to], err = s.into.UsePreallocDo(s.mem, s.in...)
		} else {
			m.values[s.to], err = s.op.Do(s.in...)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", s.op, err)
		}
	}
	return nil
}

// value is what the last run made of a wanted node; nil before the first.
func (m *machine) value(n *gorgonia.Node) gorgonia.Value { return m.values[m.slots[n.ID()]] }
