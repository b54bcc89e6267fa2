package federation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/round"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// savesAtOnce is how many parameters are handed to the storage at a time.
const savesAtOnce = 16

// parley is what the rounds between organisations wait for: what is to be stored
// before anything else is sent.
type parley struct {
	keep       []council.Params
	blocks     []*wire.Sealed
	state      bool
	loose      map[wire.Hash]uint64 // stored parameters that no final block names, by the round they came in
	named      map[wire.Hash]uint64 // the last of the newest Keep blocks that names a hash; nil before they were read
	syncing    bool
	fetchAfter time.Duration // bounds a fetch: a part of the time for reveals
	fork       string        // why models are not offered to the gate; "" when they are
}

// drainCouncil carries out what the rounds between organisations ask for: to disk
// first. m.mu is held.
func (m *Member) drainCouncil(now time.Time) {
	for {
		rd := m.council.Ready()
		if rd.Empty() {
			return
		}
		m.parley.keep = append(m.parley.keep, rd.Keep...)
		m.parley.blocks = append(m.parley.blocks, rd.Chain...)
		m.parley.state = m.parley.state || rd.Persist
		m.storeParley()
		if !m.unsaved {
			for _, msg := range rd.Send {
				m.out.push(outgoing{TopicCouncil, msg.Raw})
			}
		}
		for _, p := range rd.Seal {
			m.seal(now, p)
		}
		for _, f := range rd.Fetch {
			m.fetch(round.Fetch{Hash: f.Hash, Params: true, From: f.From})
		}
		if rd.Sync != nil {
			m.syncChain(*rd.Sync)
		}
		if rd.Fork != "" {
			m.stopAdopting(rd.Fork)
		}
		if rd.Adopt != nil && m.parley.fork == "" {
			m.toAdopt = &round.Head{Round: rd.Adopt.Round, Hash: rd.Adopt.Hash, Params: rd.Adopt.Params.Params}
			signal(m.adopt)
		}
		if rd.Train != nil {
			m.abandon() // what trains for a block that is no longer the tip
			m.toTrain = &round.Train{Round: m.council.Round(), Base: rd.Train.Base, Params: rd.Train.Params}
			signal(m.train)
		}
		for _, e := range rd.Events {
			m.tellCouncil(now, e)
		}
	}
}

// storeParley stores what waits. Until that succeeds nothing of rounds is sent: we
// would not remember having said it.
func (m *Member) storeParley() {
	err := m.parley.store(m)
	if err != nil && !m.unsaved {
		m.opt.Log.Error("the round could not be stored; this site is silent in rounds until it can be", "error", err)
	}
	m.unsaved = err != nil
}

func (p *parley) store(m *Member) error {
	if err := p.storeParams(m); err != nil {
		return err
	}
	for len(p.blocks) > 0 {
		b, err := wire.EncodeSealed(p.blocks[0])
		if err == nil {
			err = m.opt.Storage.Save(m.archive().blockKey(p.blocks[0].Block.Height), b)
		}
		if err != nil {
			return err
		}
		p.tidy(m, &p.blocks[0].Block)
		p.blocks = p.blocks[1:]
	}
	if !p.state {
		return nil
	}
	b, err := m.council.Snapshot()
	if err == nil {
		err = m.opt.Storage.Save(m.councilKey(), b)
	}
	p.state = err != nil
	return err
}

// storeParams stores the parameters that wait, several at a time: each is on the disk
// when its Save returns, and a storage writes many at once for little more than one.
func (p *parley) storeParams(m *Member) error {
	var work errgroup.Group
	work.SetLimit(savesAtOnce)
	began := make(map[wire.Hash]bool)
	for _, k := range p.keep {
		if _, stored := p.loose[k.Hash]; stored || began[k.Hash] {
			continue // what we voted for comes again when it is sealed
		}
		began[k.Hash] = true
		work.Go(func() error { return m.opt.Storage.Save(paramsKey(k.Hash), wire.EncodeParams(k.Params)) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for _, k := range p.keep {
		p.loose[k.Hash] = m.council.Round()
	}
	p.keep = nil
	return nil
}

// tidy drops parameters that a new final block has made useless: those of rounds
// up to it that are in no block, and those of a block that is old.
func (p *parley) tidy(m *Member, b *wire.Block) {
	keep := m.opt.Consortium.Keep
	p.name(m, b, keep)
	for _, h := range names(b) {
		delete(p.loose, h)
	}
	var drop []wire.Hash
	for h, r := range p.loose {
		if r <= b.Round {
			if p.named[h] == 0 {
				drop = append(drop, h)
			}
			delete(p.loose, h)
		}
	}
	if b.Height > keep {
		old, err := m.archive().Sealed(b.Height - keep)
		if err == nil && old != nil {
			for _, h := range names(&old.Block) {
				if p.named[h] <= old.Block.Height {
					drop = append(drop, h)
					delete(p.named, h)
				}
			}
		}
	}
	for _, h := range drop {
		if err := m.opt.Storage.Delete(paramsKey(h)); err != nil {
			m.opt.Log.Warn("old parameters stay on the disk", "hash", h.Short(), "error", err)
		}
	}
}

// name notes what a new final block names: the same bytes may be in many blocks, as
// those of an update that changes nothing are.
func (p *parley) name(m *Member, b *wire.Block, keep uint64) {
	if p.named == nil {
		p.named = make(map[wire.Hash]uint64)
		for h := b.Height - min(b.Height-1, keep); h < b.Height; h++ {
			if old, err := m.archive().Sealed(h); err == nil && old != nil {
				p.mark(&old.Block)
			}
		}
	}
	p.mark(b)
}

func (p *parley) mark(b *wire.Block) {
	for _, h := range names(b) {
		p.named[h] = b.Height
	}
}

// names lists the parameters that a block names.
func names(b *wire.Block) []wire.Hash {
	out := []wire.Hash{b.Model}
	for _, d := range b.Deltas {
		out = append(out, d.Delta)
	}
	return out
}

// restoreCouncil brings the rounds back. State that cannot be used is an error: who
// forgot what it signed must not sign again under its key.
func (m *Member) restoreCouncil() error {
	b, err := m.opt.Storage.Load(m.councilKey())
	if errors.Is(err, ErrNotFound) {
		m.council.Anew()
		return nil
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", m.councilKey(), err)
	}
	err = m.council.Restore(b, func(h wire.Hash) []float32 {
		params, err := m.archive().Delta(h)
		if err != nil {
			m.opt.Log.Warn("stored parameters are not usable; another site has them", "hash", h.Short(), "error", err)
		}
		return params
	})
	if err != nil {
		return fmt.Errorf("%w; restore it from a backup, or have the organisation name another voting site", err)
	}
	return nil
}

// syncChain asks a site for sealed blocks that we lack. m.mu is held.
func (m *Member) syncChain(s council.Sync) {
	if m.parley.syncing {
		return
	}
	m.parley.syncing = m.running != nil
	m.spawn(func(ctx context.Context) {
		err := m.syncFrom(ctx, s)
		m.mu.Lock()
		m.parley.syncing = false
		m.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			m.opt.Log.Debug("blocks were not fetched; another site will be asked", "site", m.nameOf(s.From), "error", err)
		}
	})
}

func (m *Member) syncFrom(ctx context.Context, s council.Sync) error {
	for height := s.Height; ; {
		resp, err := m.request(ctx, s.From, &wire.Request{Chain: &wire.ChainFrom{Height: height}}, requestAfter)
		if err != nil {
			return err
		}
		next, err := m.takeBlocks(s.From, resp.Items)
		if err != nil || !resp.More {
			return err
		}
		if next < height {
			return errors.New("the answer has more to come and brings nothing")
		}
		height = next + 1
	}
}

// takeBlocks adds blocks to the chain and says the greatest height among them.
func (m *Member) takeBlocks(from identity.ID, items [][]byte) (height uint64, err error) {
	for _, b := range items {
		s, err := wire.DecodeSealed(b)
		if err != nil {
			m.refuse(from, err)
			return 0, err
		}
		height = max(height, s.Block.Height)
		now := m.opt.Now()
		err = m.withRounds(now, func() error { return m.council.Add(now, s) })
		switch {
		case err == nil || wire.ReasonOf(err) == wire.Duplicate:
		case errors.Is(err, chain.ErrFork), errors.Is(err, chain.ErrParent):
			return 0, err // not the fault of who told us
		default:
			m.refuse(from, err)
			return 0, err
		}
	}
	return height, nil
}

// answerChain serves sealed blocks from a height on: final ones from the disk, then
// those above. m.mu is held.
func (m *Member) answerChain(height uint64) (*wire.Response, error) {
	resp, left := new(wire.Response), pullBytes
	add := func(s *wire.Sealed) (bool, error) {
		b, err := wire.EncodeSealed(s)
		if left -= len(b); err != nil || left < 0 || len(resp.Items) == wire.MaxItems {
			resp.More = err == nil
			return false, err
		}
		resp.Items = append(resp.Items, b)
		return true, nil
	}
	for ; height <= m.council.Tree().Final().Next.Height; height++ {
		s, err := m.archive().Sealed(height)
		if err != nil {
			return nil, err
		}
		if s == nil {
			break // it is not on our disk yet
		}
		if ok, err := add(s); !ok {
			return resp, err
		}
	}
	for _, l := range m.council.Tree().Path() {
		if ok, err := add(l.Sealed); !ok {
			return resp, err
		}
	}
	return resp, nil
}

// serveParams gives parameters that were told already. m.mu is held.
func (m *Member) serveParams(hash wire.Hash) []byte {
	if p := m.council.Serve(hash); p != nil {
		return wire.EncodeParams(p)
	}
	if _, loose := m.parley.loose[hash]; loose {
		return nil // perhaps our own, which nobody may see before its round
	}
	b, err := m.opt.Storage.Load(paramsKey(hash))
	if err != nil {
		return nil
	}
	return b
}

// tellCouncil queues the event of a step. m.mu is held.
func (m *Member) tellCouncil(now time.Time, e council.Event) {
	if m.opt.OnRound == nil {
		return
	}
	ev := RoundEvent{Round: e.Round, Step: e.Step, Site: e.Org, Examples: e.Listed, Why: e.Why, At: now}
	for _, h := range []wire.Hash{e.Hash, e.Model} { // the model's, where there is one
		if h != (wire.Hash{}) {
			ev.Hash = h.String()
		}
	}
	m.events.push(func() { m.opt.OnRound(ev) })
}

// Archive is a chain as a member has stored it: the chain.Source of an audit.
type Archive struct {
	Storage Storage
	Chain   wire.Hash // chain.Genesis.Hash
}

func (m *Member) archive() Archive {
	return Archive{m.opt.Storage, m.council.Tree().Chain()}
}

func (m *Member) councilKey() string {
	return "federation/council/" + m.council.Tree().Chain().String()
}

func (a Archive) blockKey(height uint64) string {
	return fmt.Sprintf("federation/chain/%s/%012d", a.Chain, height)
}

func paramsKey(h wire.Hash) string { return "federation/params/" + h.String() }

// Sealed implements chain.Source.
func (a Archive) Sealed(height uint64) (*wire.Sealed, error) {
	b, err := a.load(a.blockKey(height))
	if b == nil {
		return nil, err
	}
	return wire.DecodeSealed(b)
}

// Delta implements chain.Source.
func (a Archive) Delta(hash wire.Hash) ([]float32, error) {
	b, err := a.load(paramsKey(hash))
	if b == nil {
		return nil, err
	}
	return wire.DecodeParams(b)
}

func (a Archive) load(key string) ([]byte, error) {
	b, err := a.Storage.Load(key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return b, err
}
