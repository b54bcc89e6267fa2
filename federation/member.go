package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/intel"
	"github.com/hedgerow-mesh/hedgerow/federation/round"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Keys in Storage.
const (
	keySeq   = "federation/seq"
	keyIntel = "federation/intel"
	keyOwn   = "federation/own"
	keyTrust = "federation/trust"
	keyRound = "federation/round"
)

// Figures that no configuration needs.
const (
	saveEvery  = 2 * time.Second // of what the others could give us again
	tickAtMost = time.Second     // so that a clock that jumps costs a second
	maxQueue   = 1 << 16
)

// Member is a site's part in the mesh. Its methods may be called from several goroutines.
type Member struct {
	opt    Options
	sites  []identity.ID // sorted, with ourselves
	names  map[identity.ID]string
	people atomic.Pointer[people] // of other organisations; nil outside of a consortium

	out    *queue[outgoing]
	events *queue[func()]
	poke   chan struct{} // the timers have changed
	train  chan struct{} // there is something in toTrain
	adopt  chan struct{} // there is something in toAdopt

	mu         sync.Mutex
	intel      *intel.Set
	rounds     *round.Machine   // of our own sites; nil without a Trainer, and where council is not
	council    *council.Machine // between organisations; nil where there are too few
	parley     parley
	seq        sequences
	rng        *rand.Rand
	peers      map[identity.ID]*peer
	metAt      map[identity.ID][]netip.Prefix // where sites were met directly
	refused    map[wire.Reason]uint64
	asks       bucket
	dirty      bool // the stored intelligence is behind
	savedAt    time.Time
	ownUnsaved bool // our own intelligence is not stored: nobody may pull from us
	unsaved    bool // the stored round is behind: nothing of rounds may be sent
	toTrain    *round.Train
	toAdopt    *round.Head
	stopJob    context.CancelFunc // of the training in progress
	fetching   map[wire.Hash]int  // requests under way
	syncAt     time.Time
	tickBy     time.Time       // the next tick, if nothing asks for one sooner
	running    context.Context // the life of Run, for the work that it waits for; nil outside of it
	ran        bool
	work       sync.WaitGroup
	later      Later // nil: goroutines and timers of our own
}

type outgoing struct {
	topic Topic
	b     []byte
}

// peer is what we know of another site beyond the transport.
type peer struct {
	lastSeen time.Time
	refused  uint64
	reasons  map[wire.Reason]uint64
	serve    bucket
	queries  bucket
	pulling  bool
	repull   bool // asked for again while pulling
}

func newPeer() *peer { return &peer{reasons: make(map[wire.Reason]uint64)} }

// New checks the options and restores what Storage holds. Nothing runs until
// Run. The error names the option.
func New(opt Options) (*Member, error) {
	if err := opt.fill(); err != nil {
		return nil, fmt.Errorf("federation: %w", err)
	}
	m := &Member{
		opt:      opt,
		names:    make(map[identity.ID]string),
		out:      newQueue[outgoing](maxQueue),
		events:   newQueue[func()](maxQueue),
		poke:     make(chan struct{}, 1),
		train:    make(chan struct{}, 1),
		adopt:    make(chan struct{}, 1),
		peers:    make(map[identity.ID]*peer),
		metAt:    make(map[identity.ID][]netip.Prefix),
		refused:  make(map[wire.Reason]uint64),
		fetching: make(map[wire.Hash]int),
		rng:      rand.New(rand.NewPCG(opt.Seed, 0x6d656d626572)),
	}
	for _, s := range opt.Roster {
		m.names[s.ID] = s.Name
		m.sites = append(m.sites, s.ID)
		m.peers[s.ID] = newPeer()
	}
	slices.Sort(m.sites)
	if opt.Consortium != nil {
		m.enrol(opt.Consortium.Roll)
	}
	m.intel = intel.New(intel.Config{Self: opt.Key.ID(), Trust: m.trust()})
	m.parley.loose = make(map[wire.Hash]uint64)
	if err := m.newRounds(); err != nil {
		return nil, fmt.Errorf("federation: %w", err)
	}
	if err := m.restore(); err != nil {
		return nil, fmt.Errorf("federation: %w", err)
	}
	if m.council != nil {
		m.council.Follow(opt.Now(), opt.Consortium.Roll.Counted, opt.Consortium.Roll.Observers)
	}
	return m, nil
}

// fill checks the options and sets the defaults.
func (o *Options) fill() error {
	if o.Key == nil {
		return errors.New("key: a site needs one: expected the result of identity.Load or Create")
	}
	if o.Site == "" || len(o.Site) > 64 {
		return fmt.Errorf("site: %d bytes: expected a name of 1 to 64", len(o.Site))
	}
	if err := o.fillRoster(); err != nil {
		return err
	}
	if o.Transport == nil && len(o.Roster) > 1 {
		return fmt.Errorf("transport: none for a roster of %d sites: only a solo site works without", len(o.Roster))
	}
	if o.Trainer != nil {
		if err := o.fillModel(); err != nil {
			return err
		}
	}
	if o.Storage == nil {
		o.Storage = new(MemoryStorage)
	}
	if c := o.Consortium; c != nil {
		with := *c
		with.Keep = cmp.Or(c.Keep, 1000)
		o.Consortium = &with
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = 30 * time.Second
	}
	return nil
}

func (o *Options) fillRoster() error {
	self := o.Key.ID()
	names, ids := make(map[string]bool), make(map[identity.ID]bool)
	roster := slices.Clone(o.Roster)
	if !slices.ContainsFunc(roster, func(s Site) bool { return s.ID == self }) {
		roster = append(roster, Site{Name: o.Site, ID: self})
	}
	if len(roster) > wire.MaxSite {
		return fmt.Errorf("roster: %d sites: expected at most %d", len(roster), wire.MaxSite)
	}
	for _, s := range roster {
		if _, err := identity.ParseID(string(s.ID)); err != nil {
			return fmt.Errorf("roster: site %q: %w", s.Name, err)
		}
		if s.ID == self && s.Name != o.Site {
			return fmt.Errorf("roster: our own key is listed under the name %q: expected %q", s.Name, o.Site)
		}
		if s.Name == "" || names[s.Name] || ids[s.ID] {
			return fmt.Errorf("roster: site %q (%s): expected a name and an id that no other site has", s.Name, s.ID)
		}
		names[s.Name], ids[s.ID] = true, true
	}
	o.Roster = roster
	return nil
}

func (o *Options) fillModel() error {
	if o.ParamDim <= 0 || o.ParamDim > wire.MaxParams {
		return fmt.Errorf("param dim: %d: expected 1 to %d", o.ParamDim, wire.MaxParams)
	}
	if o.Init == nil {
		o.Init = make([]float32, o.ParamDim)
	}
	if len(o.Init) != o.ParamDim {
		return fmt.Errorf("init: %d parameters: expected %d", len(o.Init), o.ParamDim)
	}
	if err := wire.CheckParams(o.Init); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if o.RoundEvery == 0 {
		o.RoundEvery = 10 * time.Minute
	}
	return nil
}

func (m *Member) newRounds() (err error) {
	if m.opt.Trainer == nil {
		return nil
	}
	if c := m.opt.Consortium; c != nil && c.Genesis != nil {
		return m.newCouncil()
	}
	if m.opt.Consortium != nil && len(m.sites) == 1 {
		return nil // nobody to average with, until there are enough organisations
	}
	m.rounds, err = round.New(round.Config{
		Self: m.opt.Key.ID(), Sites: m.sites, Schema: m.opt.Schema, Init: m.opt.Init, Rule: m.opt.Rule,
		Every: m.opt.RoundEvery, Deadline: m.opt.DeltaDeadline, Trains: true,
	})
	return err
}

// restore loads what is stored. State that cannot be used is said and left
// behind, but for the sequence numbers: to use one twice would be a lie.
func (m *Member) restore() error {
	if err := m.seq.load(m.opt.Storage); err != nil {
		return err
	}
	if err := m.restoreTrust(); err != nil {
		return err
	}
	now := m.opt.Now()
	for _, key := range []string{keyIntel, keyOwn} {
		b, err := m.opt.Storage.Load(key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("load %s: %w", key, err)
		}
		dropped, err := m.intel.Restore(b, now, m.member)
		if err != nil {
			m.opt.Log.Warn("stored intelligence is not usable; the other sites will send it again", "key", key, "error", err)
		} else if dropped > 0 {
			m.opt.Log.Info("stored intelligence that has expired was left out", "key", key, "messages", dropped)
		}
	}
	if m.council != nil {
		return errors.Join(m.restoreCouncil(), m.restoreFork())
	}
	if m.rounds == nil {
		return nil
	}
	b, err := m.opt.Storage.Load(keyRound)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", keyRound, err)
	}
	if err := m.rounds.Restore(b, now); err != nil {
		m.opt.Log.Warn("stored model round is not usable; starting from the first model", "error", err)
	}
	return nil
}

func (m *Member) self() identity.ID { return m.opt.Key.ID() }

// Run takes part in the mesh until ctx ends, and then stores what is left to
// store. It returns nil after an orderly end, else what the transport or
// the storage said. A Member runs once.
func (m *Member) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := m.start(ctx); err != nil {
		return err
	}
	failed := make(chan error, 1)
	if m.opt.Transport != nil {
		m.work.Go(func() {
			if err := m.opt.Transport.Run(ctx, (*handler)(m)); err != nil {
				failed <- fmt.Errorf("federation: transport: %w", err)
			}
			cancel()
		})
	}
	m.work.Go(func() { m.out.run(ctx, m.send) })
	m.work.Go(func() { m.trainLoop(ctx) })
	m.work.Go(func() { m.adoptLoop(ctx) })
	var callbacks sync.WaitGroup
	callCtx, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	callbacks.Go(func() { m.events.run(callCtx, func(_ context.Context, f func()) { f() }) })
	m.timers(ctx)
	m.stop()
	endCalls()
	callbacks.Wait()
	m.events.drain(func(f func()) { f() })
	err := m.save(true)
	select {
	case e := <-failed:
		return e
	default:
		return err
	}
}

func (m *Member) start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ran {
		return errors.New("federation: run: a member runs once; make a new one")
	}
	m.ran, m.running = true, ctx
	m.syncAt = m.opt.Now().Add(m.jitter(m.opt.SyncEvery))
	return nil
}

// stop refuses new work and waits for what is under way.
func (m *Member) stop() {
	m.mu.Lock()
	m.running = nil
	m.mu.Unlock()
	m.work.Wait()
}

// spawn runs f while Run lives; after that it does nothing. m.mu is held.
func (m *Member) spawn(f func(ctx context.Context)) { m.spawnAfter(0, f) }

// spawnAfter runs f after a time. m.mu is held.
func (m *Member) spawnAfter(d time.Duration, f func(ctx context.Context)) {
	switch ctx := m.running; {
	case ctx == nil || ctx.Err() != nil:
	case m.later != nil:
		m.later(d, func() { f(ctx) })
	default:
		m.work.Go(func() {
			if d <= 0 || pause(ctx, d) {
				f(ctx)
			}
		})
	}
}

// timers ticks the machines when they ask for it, and at least once a second.
func (m *Member) timers(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.poke:
		case <-timer.C:
		}
		timer.Reset(m.due())
	}
}

// due ticks when that is due, and says in what time it will be.
func (m *Member) due() time.Duration {
	m.mu.Lock()
	wait := m.ticksIn(m.opt.Now())
	m.mu.Unlock()
	if wait <= 0 || wait > tickAtMost {
		return m.tick()
	}
	return wait
}

func (m *Member) tick() time.Duration {
	if err := m.save(false); err != nil {
		m.opt.Log.Error("shared intelligence could not be stored", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.opt.Now()
	m.tickBy = now.Add(tickAtMost)
	if m.ownUnsaved && m.storeOwn() == nil {
		m.opt.Log.Info("our own indicators could be stored again")
	}
	_ = m.apply(now, m.intel.Tick(now), "expiry", nil) // time refuses nothing
	if m.rounds != nil {
		m.rounds.Tick(now)
		m.drain(now)
	}
	if m.council != nil {
		m.council.Tick(now)
		m.storeParley() // what could not be stored before
		m.drain(now)
	}
	if !now.Before(m.syncAt) || m.syncAt.Sub(now) > 2*m.opt.SyncEvery {
		m.syncAt = now.Add(m.jitter(m.opt.SyncEvery))
		m.pullFromOne()
	}
	return max(m.ticksIn(now), time.Millisecond)
}

// ticksIn is how long it is until the next tick is due. m.mu is held.
func (m *Member) ticksIn(now time.Time) time.Duration {
	at := m.tickBy
	if t := m.intel.Next(); !t.IsZero() && t.Before(at) {
		at = t
	}
	if m.rounds != nil && m.rounds.Next().Before(at) {
		at = m.rounds.Next()
	}
	if m.council != nil && m.council.Next().Before(at) {
		at = m.council.Next()
	}
	return at.Sub(now)
}

// wake has the timers look again. m.mu is held.
func (m *Member) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// jitter spreads a period by a quarter to either side. m.mu is held.
func (m *Member) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(m.rng.Int64N(int64(d)/2+1))
}

func (m *Member) send(ctx context.Context, o outgoing) {
	if m.opt.Transport == nil {
		return
	}
	if err := m.opt.Transport.Broadcast(ctx, o.topic, o.b); err != nil && ctx.Err() == nil {
		m.opt.Log.Warn("a message could not be sent; the other sites will pull it", "topic", o.topic, "error", err)
	}
}

// save stores received intelligence when it has changed, at most every
// saveEvery: the other sites could give it to us again.
func (m *Member) save(last bool) error {
	m.mu.Lock()
	now := m.opt.Now()
	since := now.Sub(m.savedAt)
	if !m.dirty || (!last && since >= 0 && since < saveEvery) {
		m.mu.Unlock()
		return nil
	}
	b, err := m.intel.Snapshot(false)
	standing, err2 := m.intel.TrustSnapshot()
	m.dirty, m.savedAt = false, now
	m.mu.Unlock()
	if err = errors.Join(err, err2); err == nil {
		err = m.opt.Storage.Save(keyIntel, b)
	}
	if err == nil && standing != nil {
		err = m.opt.Storage.Save(keyTrust, standing)
	}
	if err != nil {
		m.mu.Lock()
		m.dirty = true
		m.mu.Unlock()
		return fmt.Errorf("federation: store intelligence: %w", err)
	}
	return nil
}
