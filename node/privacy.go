package node

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/crypto/privacy"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// What PrivacyOptions.Unit hides.
const (
	PrivacyOff  = "off"
	PrivacyFlow = "flow"
	PrivacyHost = "host"
)

// PrivacyOptions bound what updates of the shared part tell of one unit of normal
// traffic. They mean what the section [privacy] of the configuration does.
type PrivacyOptions struct {
	Unit                        string // "" is PrivacyOff
	Epsilon, Delta, Clip, Noise float64
}

func (o *PrivacyOptions) on() bool { return o.Unit != "" && o.Unit != PrivacyOff }

const (
	keyPrivacy = "node/privacy"

	// privateBatch is how many units a step is expected to draw, as many rows as
	// a step without noise has. It is the same everywhere: how many units there
	// are shows in nothing that is sent.
	privateBatch = 64

	// privatePool is how many reports the pool holds: the more there are, the less
	// an update tells of each. They take 11 MB.
	privatePool = 32768
)

// discretion is what this site's updates may still tell.
type discretion struct {
	o    PrivacyOptions
	keep func([]byte) error // durable when it returns

	mu      sync.Mutex
	account privacy.Account
	rounds  uint64
	told    bool   // that the budget is spent
	broken  string // why the stored account cannot be used
	left    int    // more rounds like the last; -1 is unknown
}

func newDiscretion(o PrivacyOptions, s *store.Store) (*discretion, error) {
	d := &discretion{o: o, left: -1, keep: func(b []byte) error { return s.Save(keyPrivacy, b) }}
	switch o.Unit {
	case "", PrivacyOff, PrivacyFlow, PrivacyHost:
	default:
		return nil, fmt.Errorf("node: privacy: unit %q: expected off, flow or host", o.Unit)
	}
	b, err := s.Load(keyPrivacy)
	if errors.Is(err, store.ErrNotFound) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("node: privacy: %v", err)
	}
	if err := d.decode(b); err != nil {
		// Whatever was spent, it must not be spent again.
		d.broken = fmt.Sprintf("the stored account of privacy cannot be read (%v)", err)
	}
	return d, nil
}

// The account is stored as: whether its end was told, rounds, and the account.
func (d *discretion) encode() ([]byte, error) {
	b := []byte{0}
	if d.told {
		b[0] = 1
	}
	b = binary.AppendUvarint(b, d.rounds)
	a, err := d.account.MarshalBinary()
	return append(b, a...), err
}

func (d *discretion) decode(b []byte) error {
	x := decoder{b: b}
	told, rounds := x.uvarint(1), x.uvarint(1<<62)
	if x.err != nil {
		return x.err
	}
	if err := d.account.UnmarshalBinary(x.b); err != nil {
		return err
	}
	d.told, d.rounds = told == 1, rounds
	return nil
}

// errSpent says that another update would tell more than the budget allows.
var errSpent = errors.New("the privacy budget is spent")

// charge books steps at a sampling rate, durably, before anything is computed
// that could leave. first says that it is refused for the first time.
func (d *discretion) charge(rate float64, steps int) (first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.account.Clone()
	if err := next.Spend(rate, d.o.Noise, steps); err != nil {
		return false, err
	}
	eps, err := next.Epsilon(d.o.Delta)
	if err != nil {
		return false, err
	}
	was := discretion{account: d.account, rounds: d.rounds, told: d.told}
	if d.broken != "" || eps > d.o.Epsilon {
		first, d.told = !d.told, true
		why := cmp.Or(d.broken, fmt.Sprintf("one more round would come to epsilon %.2f of %g", eps, d.o.Epsilon))
		err = fmt.Errorf("%w: %s", errSpent, why)
		if d.broken != "" || !first {
			return first, err
		}
	} else {
		d.account, d.rounds, d.told = *next, d.rounds+1, false
		d.left, _ = next.Left(d.o.Epsilon, d.o.Delta, rate, d.o.Noise, steps)
	}
	b, failed := d.encode()
	if failed == nil {
		failed = d.keep(b)
	}
	if failed != nil {
		d.account, d.rounds, d.told = was.account, was.rounds, was.told
		return first, fmt.Errorf("privacy: account was not stored: %w", failed)
	}
	return first, err
}

// view is what status tells; nil when privacy is off.
func (d *discretion) view() *api.Privacy {
	if !d.o.on() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	eps, err := d.account.Epsilon(d.o.Delta)
	v := &api.Privacy{Unit: d.o.Unit, Spent: eps, Budget: d.o.Epsilon, Delta: d.o.Delta, Rounds: d.rounds, Left: d.left}
	v.Words = fmt.Sprintf("%s: epsilon %.2f of %g at delta %g, after %d rounds", v.Unit, eps, v.Budget, v.Delta, v.Rounds)
	switch {
	case err != nil || d.broken != "":
		v.Words += "; " + cmp.Or(d.broken, fmt.Sprint(err)) + ": nothing is sent"
	case d.told:
		v.Words += "; spent: nothing more is sent until privacy.epsilon is raised"
	case d.left >= 0:
		v.Words += fmt.Sprintf("; %d more like the last", d.left)
	}
	return v
}

// noisySum gives the learner a sum whose noise nobody can foretell.
type noisySum struct {
	*privacy.Sum
	from *rand.Rand
}

// Release implements learner.Sum.
func (s noisySum) Release(expected float64) ([]float32, error) {
	return s.Sum.Release(expected, s.from)
}

// units are what shall be hidden: flows that ended, or hosts.
func (l *learning) units() [][]feature.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.n.now().Add(-l.n.o.Learner.Wait)
	var out [][]feature.Vector
	if l.n.discreet.o.Unit == PrivacyHost {
		for _, vs := range l.pool.MatureByHost(until, l.suspected) {
			out = append(out, vs)
		}
		return out
	}
	for _, v := range learner.Finished(l.pool.Mature(until, l.suspected)) {
		out = append(out, []feature.Vector{v})
	}
	return out
}

// trainPrivately is Train where privacy is on.
func (l *learning) trainPrivately(ctx context.Context, base []float32, attacks []learner.Example) ([]float32, int, error) {
	d, units := l.n.discreet, l.units()
	if len(units) < learner.MinNormal {
		return nil, 0, fmt.Errorf("site has %d units (%ss) of normal traffic that may teach: privacy needs %d", len(units), d.o.Unit, learner.MinNormal)
	}
	rate := privateBatch / float64(len(units))
	if first, err := d.charge(rate, sharedSteps); err != nil {
		if first {
			l.tellSpent(err)
		}
		if errors.Is(err, errSpent) {
			return nil, 0, fmt.Errorf("%w: %w", federation.ErrAbstains, err)
		}
		return nil, 0, err
	}
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return nil, 0, fmt.Errorf("privacy: %w", err)
	}
	random := rand.New(rand.NewChaCha8(seed))
	sum, err := privacy.NewSum(learner.SharedDim(), d.o.Clip, d.o.Noise)
	if err != nil {
		return nil, 0, err
	}
	cfg := l.cfg
	cfg.Pause = l.n.back.Turns()
	var p []float32
	err = l.n.back.Run(ctx, func(ctx context.Context) (err error) {
		p, err = learner.TrainSharedPrivately(ctx, cfg, base, units, attacks, sharedSteps,
			learner.Private{Rate: rate, Clip: d.o.Clip, Sum: noisySum{sum, random}, Random: random})
		return err
	})
	return p, privateBatch * sharedSteps, err // what was drawn, as far as it may be told
}

// tellSpent says once that this site teaches the mesh no more.
func (l *learning) tellSpent(err error) {
	why := err.Error() + ": this site sends no more changes until privacy.epsilon is raised; it goes on to learn and to adopt"
	l.n.log.Warn("privacy budget is spent", telemetry.KeyReason, err)
	now := l.n.now()
	l.n.outbox.put(job{emit: &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: l.n.o.Site, Kind: event.KindModel,
		Model: &event.Model{Origin: "round", State: "round-failed", Why: why},
	}})
}
