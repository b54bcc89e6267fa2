package federation

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/intel"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Limits of one pull.
const (
	pullRounds   = 64
	pullBytes    = 512 << 10
	requestAfter = 10 * time.Second
	// settle is after how long a new connection is pulled from once more: what
	// was said before gossip knew its way to us is in neither.
	settle = 2 * time.Second
)

// pullFromOne pulls from a random connected site. m.mu is held.
func (m *Member) pullFromOne() {
	up := m.connected()
	if len(up) > 0 {
		m.pullFrom(up[m.rng.IntN(len(up))])
	}
}

func (m *Member) connected() []identity.ID {
	if m.opt.Transport == nil {
		return nil
	}
	var up []identity.ID
	for _, p := range m.opt.Transport.Peers() {
		if p.Connected && m.member(p.ID) && p.ID != m.self() {
			up = append(up, p.ID)
		}
	}
	return up
}

// pullFrom starts a pull from a site, or has the one that is under way repeated.
// m.mu is held.
func (m *Member) pullFrom(id identity.ID) {
	p := m.peers[id]
	if p == nil {
		return // it has left
	}
	if p.pulling {
		p.repull = true
		return
	}
	p.pulling = m.running != nil
	m.spawn(func(ctx context.Context) {
		for again := true; again; {
			if err := m.pull(ctx, id); err != nil && ctx.Err() == nil {
				m.opt.Log.Debug("pull failed; it will be tried again", "site", m.nameOf(id), "error", err)
			}
			m.mu.Lock()
			again = p.repull && ctx.Err() == nil
			p.pulling, p.repull = again, false
			m.mu.Unlock()
		}
	})
}

// pullSoon pulls once more when a new connection has settled. m.mu is held.
func (m *Member) pullSoon(id identity.ID) {
	m.spawnAfter(settle, func(context.Context) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pullFrom(id)
	})
}

// pull asks a site for what we lack until it has nothing more, or until what it
// sends brings us no further.
func (m *Member) pull(ctx context.Context, id identity.ID) error {
	for range pullRounds {
		m.mu.Lock()
		have := m.intel.Digest()
		m.mu.Unlock()
		resp, err := m.request(ctx, id, &wire.Request{Sync: &wire.Sync{Have: have}}, requestAfter)
		if err != nil {
			return err
		}
		fresh := 0
		for _, raw := range resp.Items {
			if m.takePulled(id, raw) {
				fresh++
			}
		}
		if !resp.More {
			m.mu.Lock()
			m.intel.Complete(id, resp.Own)
			m.mu.Unlock()
			return nil
		}
		if fresh == 0 {
			return fmt.Errorf("%d messages, none of them new", len(resp.Items))
		}
	}
	return nil
}

// takePulled opens and steps one message and says whether it was news. Only
// what an honest site would not have sent is counted as refused.
func (m *Member) takePulled(from identity.ID, raw []byte) bool {
	now := m.opt.Now()
	msg, err := wire.Open(raw, now, m.member)
	if err == nil {
		err = pullable(msg, m.ours(from) && m.ours(msg.Author))
	}
	if err == nil && msg.Author == m.self() {
		return false // ours, on its way back
	}
	if err == nil {
		err = m.step(now, msg, intel.Pulled)
	}
	if err != nil && (wire.ReasonOf(err).Penal() || wire.ReasonOf(err) == wire.OverBudget) {
		m.refuse(from, err)
	}
	return err == nil
}

// pullable says whether a message may come by a pull: whatever concerns our own
// sites from one of them, and what is for all from anybody.
func pullable(msg *wire.Message, own bool) error {
	of := topicOf(msg.Kind())
	if of == "" || of == TopicCouncil {
		return wire.Refuse(wire.WrongTopic, "%s among pulled messages", msg.Kind())
	}
	if !own {
		of = TopicCommons
	}
	return fits(of, msg)
}

// answerSync is the other half of pull. m.mu is held.
func (m *Member) answerSync(s *wire.Sync, foreign bool) *wire.Response {
	if m.ownUnsaved {
		return new(wire.Response)
	}
	items, more := m.intel.Missing(s.Have, foreign, wire.MaxItems/2, pullBytes)
	resp := &wire.Response{Items: items, More: more}
	if more {
		return resp
	}
	resp.Own = m.intel.Highest(m.self())
	if m.rounds == nil || m.unsaved || foreign {
		return resp
	}
	left := pullBytes / 2
	for _, msg := range m.rounds.Current() {
		if left -= len(msg.Raw); left < 0 || len(resp.Items) == wire.MaxItems {
			break
		}
		resp.Items = append(resp.Items, msg.Raw)
	}
	return resp
}

// request asks one site, within a time, and checks the answer's form.
func (m *Member) request(ctx context.Context, id identity.ID, req *wire.Request, within time.Duration) (*wire.Response, error) {
	if m.opt.Transport == nil {
		return nil, ErrUnreachable
	}
	b, err := wire.EncodeRequest(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	out, err := m.opt.Transport.Request(ctx, id, b)
	if err != nil {
		return nil, err
	}
	resp, err := wire.DecodeResponse(out)
	if err != nil {
		m.refuse(id, err)
		return nil, fmt.Errorf("answer: %v", err) // counted here; callers need not blame again
	}
	if resp.Refused != "" {
		return nil, fmt.Errorf("the site refused the request: %s", resp.Refused)
	}
	return resp, nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
