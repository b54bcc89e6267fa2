package sim

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/federation/attack"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// What a site makes alone depends on neither rule nor attackers: the cells of a sweep
// that differ in nothing else have it in common, and it is half of what they compute.

// path is what the sites of a scenario make alone.
type path struct {
	models  [][][]float32 // of each site, after each round; nil: they are not kept
	mu      sync.Mutex
	figures map[figureKey]Figures
	used    int // when it was asked for last, by the clock of paths
}

// figureKey names a measurement of one site's model.
type figureKey struct {
	site, round int
	set         string
	trigger     attack.Trigger
}

// paths keeps them between the cells of a sweep, within bounds.
type paths struct {
	mu    sync.Mutex
	room  int // numbers of models that may still be kept
	clock int
	made  map[string]*path
}

// pathRoom is how many numbers of models a sweep keeps: 256 MiB.
const pathRoom = 64 << 20

// pathKey is all of a scenario that decides what sites make alone.
func pathKey(s *Scenario) (string, error) {
	k := Scenario{Seed: s.Seed, Sites: s.Sites, Data: s.Data, Training: s.Training, Gate: Gate{Held: s.Gate.Held}, Measure: s.Measure}
	k.Sites.Absent = 0
	b, err := k.Encode()
	return string(b), err
}

// of gives the path of a scenario whose models have so many numbers: a whole one, or
// one to be filled, which is kept when keep is called. Without paths nothing is kept.
func (p *paths) of(s *Scenario, params int) (w *path, whole bool, keep func(), err error) {
	fresh := &path{figures: map[figureKey]Figures{}}
	if p == nil {
		return fresh, false, func() {}, nil
	}
	key, err := pathKey(s)
	if err != nil {
		return nil, false, nil, err
	}
	size := s.Sites.Count * s.Training.Rounds * params
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	if have := p.made[key]; have != nil {
		have.used = p.clock
		return have, true, func() {}, nil
	}
	if !p.fits(size) {
		return fresh, false, func() {}, nil
	}
	fresh.models = make([][][]float32, s.Sites.Count)
	for i := range fresh.models {
		fresh.models[i] = make([][]float32, s.Training.Rounds)
	}
	return fresh, false, func() { p.keep(key, fresh, size) }, nil
}

// fits makes room, if it can, by dropping what was not asked for in a long while.
func (p *paths) fits(size int) bool {
	for key, x := range p.made {
		if p.room < size && p.clock-x.used > 4*len(p.made) {
			p.room += x.size()
			delete(p.made, key)
		}
	}
	return p.room >= size
}

// keep takes in a whole path; another cell may have made the same meanwhile.
func (p *paths) keep(key string, x *path, size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[key] != nil || p.room < size {
		return
	}
	if p.made == nil {
		p.made = map[string]*path{}
	}
	p.room -= size
	x.used = p.clock
	p.made[key] = x
}

// size is how many numbers the kept models have.
func (x *path) size() (n int) {
	for _, site := range x.models {
		for _, m := range site {
			n += len(m)
		}
	}
	return n
}

// alone lets a site train a step further by itself. A model once made is not written
// to any more.
func (w *world) alone(t *mlp.Trainer, x *site, round int) error {
	if w.walked {
		x.alone = w.path.models[x.id][round-1]
		return nil
	}
	next := slices.Clone(x.alone)
	o := mlp.Options{Steps: w.s.Training.Steps, Batch: w.s.Training.Batch, Rate: w.s.Training.Rate}
	if err := t.Train(next, w.b.learn, x.teach, nil, o, source(w.s.Seed, forAlone, x.id, round)); err != nil {
		return fmt.Errorf("site %d alone: %w", x.id, err)
	}
	x.alone = next
	if w.path.models != nil {
		w.path.models[x.id][round-1] = next
	}
	return nil
}

// aloneFigures measures what a site has alone after a round, once.
func (w *world) aloneFigures(t *mlp.Trainer, x *site, round int, set string) (f Figures, err error) {
	key := figureKey{x.id, round, set, w.attack.Trigger}
	w.path.mu.Lock()
	f, known := w.path.figures[key]
	w.path.mu.Unlock()
	if known {
		return f, nil
	}
	if f, err = measure(t, x.alone, w.exam(set), w.b.classes); err != nil {
		return f, err
	}
	w.path.mu.Lock()
	defer w.path.mu.Unlock()
	w.path.figures[key] = f
	return f, nil
}
