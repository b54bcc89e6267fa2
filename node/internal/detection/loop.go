package detection

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
)

// measure goes through the captures.
func (o *Options) measure(ctx context.Context, teach, test []*seen) (rows []Row, err error) {
	for _, c := range captures {
		if !strings.Contains(c.path, o.Only) {
			continue
		}
		o.Progress(c.path)
		fs, err := read(ctx, o.Data, c)
		if err != nil {
			return nil, err
		}
		r := Row{Capture: c.path, Class: c.class, Companion: companion}
		if len(fs) < leastAttacks {
			r.Absent = fmt.Sprintf("%d of its flows reach packet 4: %d are needed to teach with half of them", len(fs), leastAttacks)
			rows = append(rows, r)
			continue
		}
		s := study{seed: o.Seed, normal: teach, testNormal: test, attack: fs[:len(fs)/2], testEvil: fs[len(fs)/2:]}
		if r, err = s.row(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
		rows = append(rows, r)
	}
	more, err := o.plant(ctx)
	return append(rows, more...), err
}

// plant judges each capture of the plant by what the other two taught.
func (o *Options) plant(ctx context.Context) (rows []Row, err error) {
	for i, c := range modbus {
		if !strings.Contains(c.path, o.Only) {
			continue
		}
		o.Progress(c.path)
		s := study{seed: o.Seed}
		for k, other := range modbus {
			fs, err := read(ctx, o.Data, other)
			if err != nil {
				return nil, err
			}
			for _, f := range fs {
				to := &s.normal
				switch {
				case k == i && f.attack:
					to = &s.testEvil
				case k == i:
					to = &s.testNormal
				case f.attack:
					to = &s.attack
				}
				*to = append(*to, f)
			}
		}
		r, err := s.row(ctx, Row{Capture: c.path, Class: c.class, Companion: "its own harmless flows; taught by the other two"})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// loop times a site's way from a label to a scorer. Its memory is filled with the
// companion's flows again and again, times and sizes a little changed each time, and
// the model is a warm one: what is timed is one more training and the distillation.
func (o *Options) loop(ctx context.Context, normal []*seen) (*Loop, error) {
	evil, err := read(ctx, o.Data, captures[2])
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0x100b))
	mem := distill.NewMemory(o.Flows, o.Seed)
	l := &Loop{Labelled: len(evil)}
	vecs, _ := lesson(normal, nil)
	warm, err := learner.Train(ctx, learner.Config{Seed: o.Seed}, nil, vecs, nil)
	if err != nil {
		return nil, err
	}
	scratch := learner.NewScratch()
	for i := range o.Flows {
		f := normal[i%len(normal)]
		for k, x := range f.flow.Looks {
			x.P = float32(warm.Score(&f.vecs[k], scratch).P)
			jitter(&x.X, rng)
			mem.Add(int64(i), distill.Tag{Flow: uint64(i), Cause: uint64(i % 5000)}, &x)
			l.Looks++
		}
	}
	for i, f := range evil {
		for _, x := range f.flow.Looks {
			mem.Add(int64(i), distill.Tag{Flow: 1<<40 + uint64(i), Cause: 1 << 40, Incident: "new"}, &x)
		}
	}
	mem.Confirm("new", 0, 1)
	l.Flows, l.Labelled = mem.Len()
	_, examples := lesson(nil, evil)
	began := time.Now()
	if _, err := learner.Train(ctx, learner.Config{Seed: o.Seed}, warm, vecs, examples); err != nil {
		return nil, err
	}
	l.Retrained = time.Since(began)
	began = time.Now()
	good, bad := mem.Lesson(1 << 62)
	x, err := distill.Distil(ctx, good, bad, distill.Options{Seed: o.Seed})
	if err != nil {
		return nil, err
	}
	l.Distilled, l.Found, l.Over, l.Held = time.Since(began), x.Report.Found, x.Report.Over, x.Report.Held
	return l, nil
}

// jitter changes times and payload sizes by up to a sixteenth.
func jitter(v *score.Vector, rng *rand.Rand) {
	for i := score.Duration; i <= score.Answer; i++ {
		v[i] += v[i] / 256 * int32(rng.IntN(32)-16)
	}
	for i := score.Gap1; i < score.DirBase; i++ {
		v[i] += v[i] / 256 * int32(rng.IntN(32)-16)
	}
}
