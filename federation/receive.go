package federation

import (
	"context"
	"errors"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/intel"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// handler is the Member's face to the transport.
type handler Member

// Receive implements Handler.
func (h *handler) Receive(_ context.Context, topic Topic, from identity.ID, b []byte) Verdict {
	m := (*Member)(h)
	if from == m.self() {
		return Accept // our own, on its way out
	}
	if len(b) > wire.MaxSmall {
		return m.refuse(from, wire.Refuse(wire.Oversized, "%d bytes on topic %s: expected at most %d", len(b), topic, wire.MaxSmall))
	}
	now := m.opt.Now()
	if m.spent(now, topic, from) {
		return m.refuse(from, wire.Refuse(wire.OverBudget, "more indicators than a site may send; unread"))
	}
	member := m.ours
	if topic.Shared() {
		member = m.member
	}
	msg, err := wire.Open(append([]byte(nil), b...), now, member)
	if topic.Shared() && err != nil && wire.ReasonOf(err) == wire.NotMember {
		m.refuse(from, err)
		return Ignore // who forwarded it may know a roster that we do not
	}
	if err != nil {
		return m.refuse(from, err)
	}
	if msg.Author != from {
		return m.refuse(from, wire.Refuse(wire.NotSender, "author %s, sent by %s", msg.Author.Short(), from.Short()))
	}
	if err := fits(topic, msg); err != nil {
		return m.refuse(from, err)
	}
	err = m.step(now, msg, intel.Gossip)
	switch {
	case err == nil:
		return Accept
	case topic.Shared():
		m.refuse(from, err)
		return Ignore // it depends on what we know: not the fault of who forwarded it
	}
	return m.refuse(from, err)
}

// spent says that a message is above its author's budget whatever it holds. That is
// asked before its signature is checked, and no event tells of it: a flood must not
// be work.
func (m *Member) spent(now time.Time, topic Topic, from identity.ID) bool {
	if topic != TopicIntel && topic != TopicCommons {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.intel.Spent(now, from)
}

// fits says whether a message may be on a topic.
func fits(topic Topic, msg *wire.Message) error {
	of := topicOf(msg.Kind())
	if topic == TopicCommons && of == TopicIntel {
		if ind, ok := msg.Payload.(*wire.Indicator); ok && !publicly(ind.TLP) {
			return wire.Refuse(wire.WrongTopic, "an indicator for its organisation alone (tlp %s) on topic %s", ind.TLP, topic)
		}
		return nil
	}
	if of != topic {
		return wire.Refuse(wire.WrongTopic, "%s on topic %s", msg.Kind(), topic)
	}
	return nil
}

func topicOf(k wire.Kind) Topic {
	switch k {
	case wire.KindIndicator, wire.KindWithdrawal:
		return TopicIntel
	case wire.KindBegin, wire.KindOffer, wire.KindList, wire.KindState:
		return TopicModels
	case wire.KindCommit, wire.KindSet, wire.KindSetVote, wire.KindReveal, wire.KindProposal, wire.KindVote, wire.KindWish, wire.KindApprove:
		return TopicCouncil
	}
	return "" // deltas are fetched, never broadcast
}

// step hands an opened message to its machine and carries out what follows. It
// returns the refusal, if any.
func (m *Member) step(now time.Time, msg *wire.Message, src intel.Source) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	if p := m.peers[msg.Author]; p != nil && src == intel.Gossip {
		p.lastSeen = now
	}
	switch topicOf(msg.Kind()) {
	case TopicIntel:
		return m.apply(now, m.intel.Step(now, msg, src), opOf(msg.Kind()), msg)
	case TopicCouncil:
		if m.council == nil {
			return nil
		}
		err := m.council.Step(now, msg)
		m.drain(now)
		return err
	}
	if m.rounds == nil || !m.ours(msg.Author) {
		return nil
	}
	err := m.rounds.Step(now, msg)
	m.drain(now)
	return err
}

func opOf(k wire.Kind) string {
	if k == wire.KindWithdrawal {
		return "withdrawal"
	}
	return "indicator"
}

// apply turns effects of the intelligence into events; the last one's refusal,
// which is that of msg, is returned. m.mu is held.
func (m *Member) apply(now time.Time, effects []intel.Effect, op string, msg *wire.Message) error {
	var refusal *wire.Refusal
	for _, e := range effects {
		of := op
		if e.Expiry {
			of = "expiry"
		}
		if e.Op == intel.Refuse {
			refusal = &wire.Refusal{Reason: e.Reason, Detail: e.Why}
		}
		m.tell(now, e, of, msg)
	}
	if refusal != nil {
		return refusal
	}
	m.dirty = m.dirty || msg != nil || len(effects) > 0
	return nil
}

// tell queues the event of an effect. Echoes are no news, and neither is what
// we said ourselves.
func (m *Member) tell(now time.Time, e intel.Effect, op string, msg *wire.Message) {
	switch e.Reason {
	case wire.Duplicate, wire.Replayed, wire.Superseded, wire.Withdrawn:
		return
	}
	if m.opt.OnIndicator == nil || (e.Author == m.self() && op != "expiry") {
		return
	}
	ev := IndicatorEvent{
		Author: m.nameOf(e.Author), AuthorID: e.Author, From: m.from(e.Author), Op: op, Effect: effectOf(e.Op),
		Reason: e.Reason, Why: e.Why, SentAt: e.Sent, ReceivedAt: now,
	}
	if e.Indicator != nil {
		ev.Indicator = *e.Indicator
	} else if msg != nil {
		if w, ok := msg.Payload.(*wire.Withdrawal); ok {
			ev.Indicator.ID = w.ID
		}
	}
	m.events.push(func() { m.opt.OnIndicator(ev) })
}

func effectOf(op intel.Op) Effect {
	switch op {
	case intel.Enforce:
		return Enforce
	case intel.Limit:
		return Limit
	case intel.Observe:
		return Observe
	case intel.Lift:
		return Lift
	case intel.Keep:
		return Keep
	}
	return Refused
}

// refuse counts a refusal under its reason and its sender, logs the first of a
// kind and then ever more rarely, and says how the transport should take it.
func (m *Member) refuse(from identity.ID, err error) Verdict {
	reason := wire.ReasonOf(err)
	m.mu.Lock()
	m.refused[reason]++
	n := m.refused[reason]
	if p := m.peers[from]; p != nil {
		p.refused++
		p.reasons[reason]++
		n = p.reasons[reason]
	}
	m.mu.Unlock()
	if n&(n-1) == 0 && reason != wire.Duplicate {
		m.opt.Log.Warn("a message was refused", "site", m.nameOf(from), "reason", string(reason), "detail", err.Error(), "times", n)
	}
	if reason.Penal() {
		return Reject
	}
	return Ignore
}

func (m *Member) nameOf(id identity.ID) string {
	if n := m.names[id]; n != "" {
		return n
	}
	if s, ok := m.other(id); ok {
		return s.Organisation + "/" + s.Name
	}
	return string(id)
}

// PeerChanged implements Handler.
func (h *handler) PeerChanged(p PeerInfo) {
	m := (*Member)(h)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.member(p.ID) || p.ID == m.self() {
		return
	}
	m.met(p)
	if m.opt.OnPeer != nil {
		ev := PeerEvent{Site: m.nameOf(p.ID), Peer: p}
		m.events.push(func() { m.opt.OnPeer(ev) })
	}
	if p.Connected {
		m.pullFrom(p.ID)
		m.pullSoon(p.ID)
	}
}

// Serve implements Handler.
func (h *handler) Serve(_ context.Context, from identity.ID, b []byte) ([]byte, error) {
	m := (*Member)(h)
	if !m.member(from) {
		m.refuse(from, wire.Refuse(wire.NotMember, "%s", from))
		return wire.EncodeResponse(&wire.Response{Refused: wire.NotMember})
	}
	req, err := wire.DecodeRequest(b)
	if err != nil {
		m.refuse(from, err)
		return wire.EncodeResponse(&wire.Response{Refused: wire.ReasonOf(err)})
	}
	resp, err := m.answer(from, req)
	if err != nil {
		m.refuse(from, err)
		resp = &wire.Response{Refused: wire.ReasonOf(err)}
	}
	return wire.EncodeResponse(resp)
}

func (m *Member) answer(from identity.ID, req *wire.Request) (*wire.Response, error) {
	if err := m.allow(from, req.Query != nil); err != nil {
		return nil, err
	}
	if req.Query != nil {
		return m.answerQuery(from, req.Query) // takes the lock itself: OnAsk is not to be called under it
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if req.Sync != nil {
		return m.answerSync(req.Sync, !m.ours(from)), nil
	}
	if m.council != nil {
		return m.answerCouncil(req)
	}
	if req.Chain != nil || !m.ours(from) {
		return &wire.Response{Refused: wire.NotFound}, nil
	}
	if m.rounds != nil && !m.unsaved {
		if blob := m.rounds.Serve(*req.Fetch); blob != nil {
			return &wire.Response{Blob: blob}, nil
		}
	}
	return &wire.Response{Refused: wire.NotFound}, nil
}

// allow charges a request to the budgets of who asks.
func (m *Member) allow(from identity.ID, query bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, p := m.opt.Now(), m.peers[from]
	if p == nil {
		return wire.Refuse(wire.NotMember, "%s", from)
	}
	if !p.serve.take(now, 50, 500) {
		return wire.Refuse(wire.OverBudget, "more than 50 requests per second")
	}
	if query && !p.queries.take(now, 20, 100) {
		return wire.Refuse(wire.OverBudget, "more than 20 questions per second")
	}
	return nil
}

// answerQuery tells what this site itself knows: its history and its own claims.
// Claims of others are known to everybody; to repeat them would make one
// voice sound like many.
func (m *Member) answerQuery(from identity.ID, q *wire.Query) (*wire.Response, error) {
	a := new(wire.Answer)
	m.mu.Lock()
	claims, err := m.intel.Seen(q.Type, q.Value)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.Author == m.self() && c.Indicator.Stance != wire.Disputes {
			a.Seen, a.Count, a.Last = true, a.Count+1, later(a.Last, c.Indicator.Last)
		}
	}
	if m.opt.OnAsk != nil {
		if seen, count, last := m.opt.OnAsk(q.Type, q.Value); seen {
			a.Seen, a.Count, a.Last = true, a.Count+count, later(a.Last, last)
		}
	}
	if !m.ours(from) {
		a.Count, a.Last = 0, time.Time{} // other organisations hear yes or no
	}
	return &wire.Response{Answer: a}, nil
}

// answerCouncil serves what the rounds between organisations need. m.mu is held.
func (m *Member) answerCouncil(req *wire.Request) (*wire.Response, error) {
	if m.unsaved {
		return &wire.Response{Refused: wire.NotFound}, nil
	}
	if req.Chain != nil {
		return m.answerChain(req.Chain.Height)
	}
	if b := m.serveParams(req.Fetch.Hash); b != nil {
		return &wire.Response{Blob: b}, nil
	}
	return &wire.Response{Refused: wire.NotFound}, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

var errNoAnswer = errors.New("the site answered something else than was asked")
