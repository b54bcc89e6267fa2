package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// liars are the sites that lie together.
type liars struct {
	lie    Lie
	who    []*whole
	masks  []*mask
	turn   int
	next   time.Time
	every  time.Duration
	named  int // how often their organisations took other names
	honest int // turns since then
}

// mask is a further site of a liar's organisation, which only speaks.
type mask struct {
	of  *whole
	key *identity.Key
	i   int // in the list of all who speak
	seq uint64
}

// conspire picks the sites that lie.
func (m *mesh) conspire(lib *Library) error {
	a := &m.s.Attackers
	n := a.liars(len(m.sites))
	if a.Attack == "" || n == 0 {
		return nil
	}
	lie, err := lib.lie(a.Attack)
	if err != nil {
		return err
	}
	l := &liars{lie: lie, next: m.start.Add(seconds(m.s.Campaigns.Begin)), every: lieEvery * time.Second}
	picked := source(m.s.Seed, forLiars, 0, 0).Perm(len(m.sites))[:n]
	slices.Sort(picked)
	for _, i := range picked {
		m.sites[i].liar = true
		l.who = append(l.who, m.sites[i])
	}
	for _, w := range l.who {
		for range lie.Masks {
			x := &mask{of: w, i: len(m.sites) + len(l.masks)}
			if x.key, err = keyOf(m.s.Seed, x.i); err != nil {
				return err
			}
			l.masks = append(l.masks, x)
		}
	}
	m.liars = l
	return nil
}

// speak is the liars' turn, when it has come.
func (m *mesh) speak() error {
	l := m.liars
	if l == nil || m.now.Before(l.next) {
		return nil
	}
	l.next = l.next.Add(l.every)
	v := m.lieView(l.turn)
	l.turn++
	if l.lie.Renews > 0 {
		m.renew()
	}
	if l.lie.Forges {
		m.forge(v)
	}
	if l.lie.Say == nil {
		return nil
	}
	for _, word := range l.lie.Say(v) {
		for _, w := range l.who {
			w.lie(word, m.now)
		}
		for _, x := range l.masks {
			if err := m.lieThrough(x, word); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mesh) lieView(turn int) LieView {
	v := LieView{Turn: turn, Innocent: slices.Concat(m.sc.Web, m.sc.Visitors), Rand: source(m.s.Seed, forLies, turn, 0)}
	for _, x := range m.visits {
		if x.turn == 0 && !x.begin.After(m.now) {
			v.Hostile = append(v.Hostile, x.attacker.addr)
		}
	}
	for _, w := range m.sites {
		v.Members = append(v.Members, w.site.WAN)
	}
	return v
}

// indicator is a word in the form in which sites say it.
func indicator(word Word, now time.Time, evidence uint64) wire.Indicator {
	ind := wire.Indicator{
		Type: wire.TypeAddress, Value: word.Addr.String(), Score: 0.95, Confidence: 0.95, Evidence: wire.Validated,
		Sentence: "seen here", First: now, Last: now, Expires: now.Add(wire.DefaultLife), TLP: wire.TLPGreen, Stance: word.Stance,
	}
	binary.BigEndian.PutUint64(ind.EvidenceHash[:], mix(evidence)|1)
	return ind
}

// lie has a site say a word through its own member. A word that the wire refuses is
// not said: to send it would cost the liar its standing, and nobody anything.
func (w *whole) lie(word Word, now time.Time) {
	m := w.steps.Member()
	if m == nil {
		return
	}
	if _, err := m.Publish(w.ctx, indicator(word, now, uint64(w.i)<<32|w.number)); err != nil {
		w.unsaid++
	}
}

// lieThrough has a mask say a word.
func (m *mesh) lieThrough(x *mask, word Word) error {
	x.seq++
	ind := indicator(word, m.now, uint64(x.i)<<32|x.seq)
	ind.ID = wire.IndicatorID(x.key.ID(), ind.Type, ind.Value)
	msg, err := wire.Seal(x.key, x.seq, m.now, &ind)
	if err != nil {
		return fmt.Errorf("lie: %w", err)
	}
	for _, w := range m.sites {
		if w.handler != nil && w.org != x.of.org {
			w.inbox.put(message{at: m.now.Add(seconds(m.s.Network.Delay)), from: x.i, n: x.seq, topic: federation.TopicCommons, b: msg.Raw})
		}
	}
	return nil
}

// renew lets the liars' organisations leave and come back under other names: first
// they observe, then they count.
func (m *mesh) renew() {
	l := m.liars
	l.honest++
	switch l.honest {
	case l.lie.Renews:
		l.named++
		m.reroll()
	case 2 * l.lie.Renews:
		l.honest = 0
		m.reroll()
	}
}

// reroll tells all nodes who is in the consortium.
func (m *mesh) reroll() {
	if m.s.Nodes.Organisations < 2 {
		return
	}
	for _, w := range m.sites {
		w.node.SetRoll(m.roll(w))
	}
}

// roll is the consortium as a site sees it.
func (m *mesh) roll(w *whole) federation.Roll {
	var r federation.Roll
	add := func(org int, s federation.Site, votes bool) {
		s.Organisation, s.Standing = m.orgName(org), federation.StandingCounted
		observes := m.liars != nil && m.liars.named > 0 && m.liars.honest >= m.liars.lie.Renews && m.lies(org)
		if observes {
			s.Standing = "observer"
		}
		if org != w.org {
			r.Others = append(r.Others, s)
		}
		switch member := (chain.Member{Org: s.Organisation, Voter: s.ID}); {
		case votes && observes:
			r.Observers = append(r.Observers, member)
		case votes:
			r.Counted = append(r.Counted, member)
		}
	}
	for _, x := range m.sites {
		add(x.org, federation.Site{Name: x.site.Name, ID: x.key.ID(), Addrs: []string{addrOf(x)}}, x.i == x.org)
	}
	if m.liars != nil {
		for k, x := range m.liars.masks {
			add(x.of.org, federation.Site{Name: fmt.Sprintf("mask-%03d", k+1), ID: x.key.ID()}, false)
		}
	}
	return r
}

// lies says whether the voting site of an organisation lies.
func (m *mesh) lies(org int) bool { return m.sites[org].liar }

func (m *mesh) orgName(org int) string {
	if m.liars != nil && m.liars.named > 0 && m.lies(org) {
		return fmt.Sprintf("%s-%d", orgName(org), m.liars.named+1)
	}
	return orgName(org)
}

// forge sends each honest site a scan's worth of first packets in the name of an
// innocent address.
func (m *mesh) forge(v LieView) {
	for _, w := range m.sites {
		from := v.Innocent[v.Rand.IntN(len(v.Innocent))]
		port := 1024 + v.Rand.IntN(30000)
		for k := range forgedEach {
			s := &scenario.Session{
				ID: 1<<62 | uint64(v.Turn)<<32 | uint64(w.i)<<16 | uint64(k), Kind: scenario.Probe, Site: w.site.Name, Inbound: true,
				From: from, To: w.site.Server.Addr, Port: uint16(port + k), Closed: true, Forged: true, Timeout: patience,
			}
			w.coming.put(session{at: m.now.Add(time.Duration(k) * 20 * time.Millisecond), n: 1 << 40, s: s, forged: true})
		}
	}
}
