package federation

import (
	"context"
	"errors"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/round"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// fetchAfter bounds the fetch of a delta or a model.
const fetchAfter = 30 * time.Second

// fetchesAtOnce is how many sites are asked for the same bytes at a time in rounds
// between organisations: one that stalls is to cost the round little.
const fetchesAtOnce = 3

// StartRound begins the next model round now; the other sites follow the
// announcement. It returns the round's number, with ErrRoundOpen when one is
// open already.
func (m *Member) StartRound(_ context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.council != nil {
		return m.council.Round(), ErrRoundOpen // one follows the other
	}
	if m.rounds == nil {
		return 0, ErrNoTrainer
	}
	if m.running == nil {
		return 0, ErrStopped
	}
	now := m.opt.Now()
	n, err := m.rounds.Start(now)
	if round.IsOpen(err) {
		return n, ErrRoundOpen
	}
	m.drain(now)
	m.wake()
	return n, err
}

// drain carries out what the rounds ask for, in the order that they demand: to
// disk first. m.mu is held.
func (m *Member) drain(now time.Time) {
	if m.council != nil {
		m.drainCouncil(now)
		return
	}
	for {
		rd := m.rounds.Ready()
		if rd.Empty() {
			return
		}
		m.persist(rd.Persist)
		if !m.unsaved {
			for _, msg := range rd.Send {
				m.out.push(outgoing{TopicModels, msg.Raw})
			}
		}
		for _, p := range rd.Seal {
			m.seal(now, p)
		}
		for _, f := range rd.Fetch {
			m.fetch(f)
		}
		if rd.Adopt != nil { // before Train: it ends the training of the round that is over
			m.abandon()
			m.toAdopt = rd.Adopt
			signal(m.adopt)
		}
		if rd.Train != nil {
			m.toTrain = rd.Train
			signal(m.train)
		}
		for _, e := range rd.Events {
			m.tellRound(now, e)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// persist stores the rounds' state. Until that succeeds nothing of rounds is
// sent: we would not remember having said it.
func (m *Member) persist(changed bool) {
	if !changed && !m.unsaved {
		return
	}
	b, err := m.rounds.Snapshot()
	if err == nil {
		err = m.opt.Storage.Save(keyRound, b)
	}
	if err != nil && !m.unsaved {
		m.opt.Log.Error("the model round could not be stored; this site is silent in rounds until it can be", "error", err)
	}
	m.unsaved = err != nil
}

// seal signs a message of ours and hands it back to the rounds. m.mu is held.
func (m *Member) seal(now time.Time, p wire.Payload) {
	n, err := m.seq.next(m.opt.Storage, streamModels)
	if err != nil {
		m.opt.Log.Error("a model message could not be signed", "kind", string(p.Kind()), "error", err)
		return
	}
	msg, err := wire.Seal(m.opt.Key, n, now, p)
	if err == nil && m.council != nil {
		err = m.council.Step(now, msg)
	} else if err == nil {
		err = m.rounds.Step(now, msg)
	}
	if err != nil {
		m.opt.Log.Debug("a message of ours came too late", "kind", string(p.Kind()), "error", err)
	}
}

// fetch gets bytes by hash from one site and hands them to the rounds, which
// ask the next site if nothing comes. m.mu is held.
func (m *Member) fetch(f round.Fetch) {
	most, within := 1, fetchAfter
	if m.council != nil {
		most, within = fetchesAtOnce, min(fetchAfter, m.parley.fetchAfter)
	}
	if m.fetching[f.Hash] >= most {
		return
	}
	if m.running != nil {
		m.fetching[f.Hash]++
	}
	m.spawn(func(ctx context.Context) {
		err := m.fetchFrom(ctx, f, within)
		m.mu.Lock()
		if m.fetching[f.Hash]--; m.fetching[f.Hash] <= 0 {
			delete(m.fetching, f.Hash)
		}
		m.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return
		}
		if r, ok := Refusal(err); ok && r.Penal() {
			m.refuse(f.From, err)
		}
		m.opt.Log.Debug("fetch failed; another site will be asked", "site", m.nameOf(f.From), "hash", f.Hash.Short(), "error", err)
	})
}

func (m *Member) fetchFrom(ctx context.Context, f round.Fetch, within time.Duration) error {
	resp, err := m.request(ctx, f.From, &wire.Request{Fetch: &wire.Fetch{Hash: f.Hash, Params: f.Params}}, within)
	if err != nil {
		return err
	}
	now := m.opt.Now()
	if f.Params {
		params, err := wire.DecodeParams(resp.Blob)
		if err != nil {
			return err
		}
		return m.withRounds(now, func() error {
			if m.council != nil {
				return m.council.Fetched(now, f.Hash, params)
			}
			return m.rounds.Fetched(now, f.Hash, params)
		})
	}
	msg, err := wire.Open(resp.Blob, now, m.member)
	if err != nil {
		return err
	}
	if msg.Hash != f.Hash {
		return wire.Refuse(wire.Malformed, "asked for %s, got %s", f.Hash.Short(), msg.Hash.Short())
	}
	return m.withRounds(now, func() error { return m.rounds.Step(now, msg) })
}

func (m *Member) withRounds(now time.Time, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	err := f()
	m.drain(now)
	return err
}

// abandon stops a training whose round is over. m.mu is held.
func (m *Member) abandon() {
	m.toTrain = nil
	if m.stopJob != nil {
		m.stopJob()
	}
}

// trainLoop trains for one round after the other.
func (m *Member) trainLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.train:
		}
		m.trainNext(ctx)
	}
}

// trainNext trains for the round that asks for it, if one does.
func (m *Member) trainNext(ctx context.Context) {
	m.mu.Lock()
	job := m.toTrain
	m.toTrain = nil
	jobCtx, stop := context.WithCancel(ctx)
	m.stopJob = stop
	m.mu.Unlock()
	if job != nil {
		m.trainOnce(jobCtx, *job)
	}
	stop()
}

func (m *Member) trainOnce(ctx context.Context, job round.Train) {
	params, examples, err := m.opt.Trainer.Train(ctx, job.Round, job.Params)
	now := m.opt.Now()
	_ = m.withRounds(now, func() error { // every outcome is an event
		if err != nil {
			m.trainFailed(now, job, err)
			return nil
		}
		m.tellRound(now, round.Event{Step: "trained", Round: job.Round, Author: m.self(), Base: job.Base, Examples: examples})
		if m.council != nil {
			return m.council.Trained(now, job.Base, params)
		}
		delta, err := m.rounds.Trained(now, job.Round, job.Base, params, examples)
		if err == nil {
			m.seal(now, delta)
		}
		return err
	})
}

// trainFailed tells the rounds. m.mu is held.
func (m *Member) trainFailed(now time.Time, job round.Train, err error) {
	why := err.Error()
	if errors.Is(err, ErrAbstains) {
		why = ""
	}
	if m.council != nil {
		m.council.TrainFailed(now, job.Base, why)
		return
	}
	m.rounds.TrainFailed(job.Round, why)
}

// adoptLoop offers new models to the site's gate, always the latest.
func (m *Member) adoptLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.adopt:
		}
		m.adoptNext(ctx)
	}
}

func (m *Member) adoptNext(ctx context.Context) {
	m.mu.Lock()
	head := m.toAdopt
	m.toAdopt = nil
	m.mu.Unlock()
	if head != nil {
		m.adoptOnce(ctx, *head)
	}
}

func (m *Member) adoptOnce(ctx context.Context, h round.Head) {
	adopted, why, err := m.opt.Trainer.Adopt(ctx, h.Round, h.Hash.String(), h.Params)
	e := round.Event{Step: "adopted", Round: h.Round, Author: m.self(), Hash: h.Hash, Why: why}
	switch {
	case err != nil:
		e.Step, e.Why = round.Failed, err.Error()
	case !adopted:
		e.Step = "refused"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellRound(m.opt.Now(), e)
}

// tellRound queues the event of a step. m.mu is held.
func (m *Member) tellRound(now time.Time, e round.Event) {
	if m.opt.OnRound == nil {
		return
	}
	ev := RoundEvent{Round: e.Round, Step: e.Step, Site: m.names[e.Author], Examples: e.Examples, Why: e.Why, At: now}
	if e.Base != (wire.Hash{}) {
		ev.Base = e.Base.String()
	}
	if e.Hash != (wire.Hash{}) {
		ev.Hash = e.Hash.String()
	}
	for _, id := range e.Sites {
		ev.Sites = append(ev.Sites, m.names[id])
	}
	m.events.push(func() { m.opt.OnRound(ev) })
}

func (m *Member) announced(id identity.ID) (wire.State, bool) {
	if m.rounds == nil {
		return wire.State{}, false
	}
	return m.rounds.Announced(id)
}
