package round

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Step takes one opened message: from the others, or our own coming back sealed.
// The error is a *wire.Refusal.
func (m *Machine) Step(now time.Time, msg *wire.Message) error {
	m.wake(now)
	if !slices.Contains(m.cfg.Sites, msg.Author) {
		return wire.Refuse(wire.NotMember, "%s", msg.Author)
	}
	var r *wire.Refusal
	switch p := msg.Payload.(type) {
	case *wire.Begin:
		r = m.stepBegin(now, msg, p)
	case *wire.Offer:
		r = m.stepOffer(now, msg, p)
	case *wire.Delta:
		r = m.stepDelta(now, msg, p)
	case *wire.List:
		r = m.stepList(now, msg, p)
	case *wire.State:
		r = m.stepState(now, msg, p)
	default:
		r = wire.Refuse(wire.WrongTopic, "%s among model messages", msg.Kind())
	}
	if r != nil {
		return r
	}
	m.progress(now)
	return nil
}

// fits opens the round that a message belongs to, or says why it does not fit.
// A message of the next round opens it: its Begin may have been lost.
func (m *Machine) fits(now time.Time, round uint64, base wire.Hash) *wire.Refusal {
	if round != m.head.Round+1 {
		return wire.Refuse(wire.WrongRound, "%d: expected %d", round, m.head.Round+1)
	}
	if base != m.head.Hash {
		return wire.Refuse(wire.WrongBase, "%s: expected %s", base.Short(), m.head.Hash.Short())
	}
	if m.open == nil {
		m.begin(now)
	}
	return nil
}

func (m *Machine) begin(now time.Time) {
	m.open = &open{
		round: m.head.Round + 1, base: m.head.Hash, begun: now,
		offers: make(map[identity.ID]*wire.Message), deltas: make(map[wire.Hash]*wire.Message),
		lists: make(map[uint32]*wire.Message), bad: make(map[uint32]bool), sealing: make(map[string]bool),
	}
	m.resendGap, m.resendAt = m.cfg.Retry, now.Add(m.cfg.Retry)
	m.event(Event{Step: Begun, Round: m.open.round, Base: m.open.base})
	for _, l := range m.ownLists { // we listed before a restart: the same list stands
		if p := l.Payload.(*wire.List); p.Round == m.open.round && p.Base == m.open.base {
			m.open.lists[p.View] = l
			m.open.own = append(m.open.own, l)
			m.wantListed(now, l.Author, p)
		}
	}
	if m.ownDelta != nil {
		if d := m.ownDelta.Payload.(*wire.Delta); d.Round == m.open.round && d.Base == m.open.base {
			m.keepOwn(m.ownDelta)
			return
		}
	}
	if m.cfg.Trains {
		m.open.training = true
		m.ready.Train = &Train{Round: m.open.round, Base: m.open.base, Params: slices.Clone(m.head.Params)}
	}
}

func (m *Machine) stepBegin(now time.Time, msg *wire.Message, p *wire.Begin) *wire.Refusal {
	known := m.open != nil
	if r := m.fits(now, p.Round, p.Base); r != nil {
		return r
	}
	if msg.Author == m.cfg.Self {
		m.keep(msg)
		return nil
	}
	if known {
		return wire.Refuse(wire.Duplicate, "round %d is open already", p.Round)
	}
	return nil
}

func (m *Machine) stepOffer(now time.Time, msg *wire.Message, p *wire.Offer) *wire.Refusal {
	if r := m.fits(now, p.Round, p.Base); r != nil {
		return r
	}
	if old := m.open.offers[msg.Author]; old != nil {
		if old.Payload.(*wire.Offer).Delta != p.Delta {
			return wire.Refuse(wire.Equivocation, "two deltas for round %d", p.Round)
		}
		return wire.Refuse(wire.Duplicate, "offer for round %d", p.Round)
	}
	m.open.offers[msg.Author] = msg
	if msg.Author == m.cfg.Self {
		m.keep(msg)
	}
	if m.open.deltas[p.Delta] == nil {
		m.want(now, p.Delta, false, msg.Author)
	}
	return nil
}

func (m *Machine) stepDelta(now time.Time, msg *wire.Message, p *wire.Delta) *wire.Refusal {
	if m.open == nil {
		return wire.Refuse(wire.WrongRound, "%d: no round is open", p.Round)
	}
	if r := m.fits(now, p.Round, p.Base); r != nil {
		return r
	}
	switch {
	case p.Schema != m.cfg.Schema:
		return wire.Refuse(wire.WrongSchema, "%q: expected %q", p.Schema, m.cfg.Schema)
	case len(p.Params) != len(m.head.Params):
		return wire.Refuse(wire.WrongLength, "%d parameters: expected %d", len(p.Params), len(m.head.Params))
	case m.open.deltas[msg.Hash] != nil:
		return wire.Refuse(wire.Duplicate, "delta for round %d", p.Round)
	case msg.Author == m.cfg.Self && m.deltaBy(msg.Author) != nil:
		return wire.Refuse(wire.Equivocation, "we have a delta for round %d already", p.Round)
	case msg.Author != m.cfg.Self && m.wants[msg.Hash] == nil:
		return wire.Refuse(wire.NotFound, "nobody asked for delta %s", msg.Hash.Short())
	}
	delete(m.wants, msg.Hash)
	if msg.Author == m.cfg.Self {
		m.ownDelta = msg
		m.ready.Persist = true
		m.keepOwn(msg)
	} else {
		m.open.deltas[msg.Hash] = msg
	}
	m.event(Event{Step: Delta, Round: p.Round, Author: msg.Author, Base: p.Base, Examples: int(p.Examples)})
	return nil
}

// keepOwn holds our delta and has it offered.
func (m *Machine) keepOwn(msg *wire.Message) {
	d := msg.Payload.(*wire.Delta)
	m.open.training = false
	m.open.deltas[msg.Hash] = msg
	m.seal("offer", &wire.Offer{Round: d.Round, Base: d.Base, Delta: msg.Hash, Size: uint32(len(msg.Raw))})
}

func (m *Machine) deltaBy(id identity.ID) *wire.Message {
	for _, d := range m.open.deltas {
		if d.Author == id {
			return d
		}
	}
	return nil
}

func (m *Machine) stepList(now time.Time, msg *wire.Message, p *wire.List) *wire.Refusal {
	if r := m.fits(now, p.Round, p.Base); r != nil {
		return r
	}
	if want := m.proposer(p.Round, p.View); msg.Author != want {
		return wire.Refuse(wire.NotProposer, "view %d of round %d is %s's", p.View, p.Round, want.Short())
	}
	if len(p.Deltas) < m.cfg.MinDeltas || len(p.Deltas) > len(m.cfg.Sites) {
		return wire.Refuse(wire.WrongLength, "%d deltas listed: expected %d to %d", len(p.Deltas), m.cfg.MinDeltas, len(m.cfg.Sites))
	}
	if old := m.open.lists[p.View]; old != nil {
		if !slices.Equal(old.Payload.(*wire.List).Deltas, p.Deltas) {
			return wire.Refuse(wire.Equivocation, "two lists in view %d of round %d", p.View, p.Round)
		}
		return wire.Refuse(wire.Duplicate, "list in view %d", p.View)
	}
	if len(m.open.lists) >= 4*len(m.cfg.Sites) {
		return wire.Refuse(wire.Full, "%d lists of round %d", len(m.open.lists), p.Round)
	}
	m.open.lists[p.View] = msg
	if msg.Author == m.cfg.Self {
		m.ownLists = append(m.ownLists, msg)
		m.ready.Persist = true
		m.keep(msg)
	}
	m.event(Event{Step: Listed, Round: p.Round, Author: msg.Author, Base: p.Base})
	m.wantListed(now, msg.Author, p)
	return nil
}

func (m *Machine) wantListed(now time.Time, from identity.ID, p *wire.List) {
	for _, h := range p.Deltas {
		if m.open.deltas[h] == nil {
			m.want(now, h, false, from)
		}
	}
}

func (m *Machine) stepState(now time.Time, msg *wire.Message, p *wire.State) *wire.Refusal {
	if msg.Author == m.cfg.Self {
		m.sealing, m.ownState = false, msg
		if *p == m.head.state() {
			m.ready.Send = append(m.ready.Send, msg)
		} else {
			m.announce()
		}
		return nil
	}
	if old := m.states[msg.Author]; old != nil && old.Seq >= msg.Seq {
		return wire.Refuse(wire.Duplicate, "state with sequence %d", msg.Seq)
	}
	if p.Round > m.head.Round+maxAhead {
		return wire.Refuse(wire.WrongRound, "%d: expected at most %d", p.Round, m.head.Round+maxAhead)
	}
	m.states[msg.Author] = msg
	if better(m.head.state(), *p) {
		m.sooner(&m.announceAt, now.Add(m.cfg.Retry)) // it is behind: let it know
	}
	return nil
}

func (m *Machine) sooner(t *time.Time, at time.Time) {
	if at.Before(*t) {
		*t = at
	}
}

// Trained takes what training gave and returns the delta to be sealed and
// handed to Step.
func (m *Machine) Trained(now time.Time, round uint64, base wire.Hash, params []float32, examples int) (*wire.Delta, error) {
	m.wake(now)
	o := m.open
	if o == nil || o.round != round || o.base != base {
		return nil, wire.Refuse(wire.WrongRound, "round %d went on without us", round)
	}
	o.training = false
	if len(params) != len(m.head.Params) {
		return nil, m.failed(wire.Refuse(wire.WrongLength, "%d parameters: expected %d", len(params), len(m.head.Params)))
	}
	d := &wire.Delta{Round: round, Base: base, Schema: m.cfg.Schema, Examples: uint32(min(max(examples, 0), 1<<31)), Params: make([]float32, len(params))}
	for i := range params {
		d.Params[i] = params[i] - m.head.Params[i]
	}
	if err := wire.CheckParams(d.Params); err != nil {
		return nil, m.failed(wire.Refuse(wire.ReasonOf(err), "our own delta: %v", err))
	}
	return d, nil
}

// TrainFailed says that there will be no delta of ours in a round. Without a why
// there is no event.
func (m *Machine) TrainFailed(round uint64, why string) {
	if m.open != nil && m.open.round == round {
		m.open.training = false
	}
	if why == "" {
		return
	}
	m.event(Event{Step: Failed, Round: round, Author: m.cfg.Self, Why: why})
}

func (m *Machine) failed(r *wire.Refusal) *wire.Refusal {
	m.event(Event{Step: Failed, Round: m.open.round, Author: m.cfg.Self, Why: r.Error()})
	return r
}

// Fetched takes the parameters of a better model that was asked for.
func (m *Machine) Fetched(now time.Time, hash wire.Hash, params []float32) error {
	m.wake(now)
	if m.wants[hash] == nil || !m.wants[hash].params {
		return wire.Refuse(wire.NotFound, "nobody asked for model %s", hash.Short())
	}
	if len(params) != len(m.head.Params) {
		return wire.Refuse(wire.WrongLength, "%d parameters: expected %d", len(params), len(m.head.Params))
	}
	if got := wire.ModelHash(m.cfg.Schema, params); got != hash {
		return wire.Refuse(wire.WrongSchema, "model %s: these parameters under schema %q are model %s", hash.Short(), m.cfg.Schema, got.Short())
	}
	if st, ok := m.best(hash); ok {
		m.adopt(now, Head{Round: st.Round, View: st.View, Hash: hash, Params: slices.Clone(params)})
		m.event(Event{Step: CaughtUp, Round: st.Round, Hash: hash})
	}
	m.progress(now)
	return nil
}

// Serve returns the bytes under a hash, or nil.
func (m *Machine) Serve(f wire.Fetch) []byte {
	if f.Params {
		if f.Hash == m.head.Hash {
			return wire.EncodeParams(m.head.Params)
		}
		return nil
	}
	for _, o := range []*open{m.open, m.prev} {
		if o != nil && o.deltas[f.Hash] != nil {
			return o.deltas[f.Hash].Raw
		}
	}
	return nil
}

// Current lists what a site that comes late needs: our state, and the offers
// and lists of the open round and of the one before.
func (m *Machine) Current() []*wire.Message {
	var out []*wire.Message
	if m.ownState != nil {
		out = append(out, m.ownState)
	}
	for _, o := range []*open{m.prev, m.open} {
		if o == nil {
			continue
		}
		for _, id := range m.cfg.Sites {
			if o.offers[id] != nil {
				out = append(out, o.offers[id])
			}
		}
		for _, v := range o.views() {
			out = append(out, o.lists[v])
		}
	}
	return out
}

func (o *open) views() []uint32 {
	vs := make([]uint32, 0, len(o.lists))
	for v := range o.lists {
		vs = append(vs, v)
	}
	slices.Sort(vs)
	return vs
}

// aggregate is the model that a list makes, if all its deltas are here.
func (m *Machine) aggregate(p *wire.List) (params []float32, sites []identity.ID, err error) {
	var deltas [][]float32
	for _, h := range p.Deltas {
		d := m.open.deltas[h]
		if slices.Contains(sites, d.Author) {
			return nil, nil, wire.Refuse(wire.Equivocation, "the list holds two deltas of %s", d.Author.Short())
		}
		sites = append(sites, d.Author)
		deltas = append(deltas, d.Payload.(*wire.Delta).Params)
	}
	sum, err := m.cfg.Rule.Aggregate(deltas)
	if err != nil {
		return nil, nil, err
	}
	params, err = robust.Apply(m.head.Params, sum.Update)
	if err == nil {
		err = wire.CheckParams(params)
	}
	slices.Sort(sites)
	return params, sites, err
}
