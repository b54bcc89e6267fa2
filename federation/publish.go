package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/intel"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// How a question is asked.
const (
	askAfter = 300 * time.Millisecond
	askSites = 5
	askRate  = 10
	askBurst = 30
)

// Publish signs an indicator of ours, stores it, and sends it to every site. ID
// is set here; Value is brought to its canonical form and Sentence sanitised;
// zero First and Last mean now, zero Expires means wire.DefaultLife from now,
// empty TLP means amber. The same value published again is a refresh. When it
// returns without an error, the indicator survives a crash and reaches every site
// that is, or comes, within reach while it lives: of our organisation, or, with TLP
// green or clear in a consortium, of all. After an error of the storage it
// stands at this site, and the others get it once it could be stored.
func (m *Member) Publish(_ context.Context, ind wire.Indicator) (id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.opt.Now()
	m.complete(&ind, now)
	if err := m.say(now, &ind); err != nil {
		return "", fmt.Errorf("federation: publish %s: %w", ind.Value, err)
	}
	return ind.ID, nil
}

func (m *Member) complete(ind *wire.Indicator, now time.Time) {
	ind.Value = canonical(ind.Type, ind.Value)
	ind.Sentence = wire.Sanitise(ind.Sentence)
	ind.ID = wire.IndicatorID(m.self(), ind.Type, ind.Value)
	if ind.Last.IsZero() {
		ind.Last = now
	}
	if ind.First.IsZero() {
		ind.First = ind.Last
	}
	if ind.Expires.IsZero() {
		ind.Expires = now.Add(wire.DefaultLife)
	}
	if ind.TLP == "" {
		ind.TLP = wire.TLPAmber
	}
	// What goes out is what comes back: whole nanoseconds of UTC, no monotonic part.
	ind.First, ind.Last, ind.Expires = ind.First.UTC().Round(0), ind.Last.UTC().Round(0), ind.Expires.UTC().Round(0)
}

// canonical helps a caller that writes 2001:DB8::1 or 203.0.113.77/24; what it
// cannot read stays and is refused by the check.
func canonical(typ wire.Type, s string) string {
	addr, rest, service := strings.Cut(s, " ")
	if p, err := netip.ParsePrefix(addr); err == nil && !service {
		if p.IsSingleIP() {
			return p.Addr().String()
		}
		return p.Masked().String()
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return s
	}
	a = a.Unmap()
	if service && typ == wire.TypeService {
		return a.String() + " " + rest
	}
	if service {
		return s
	}
	return a.String()
}

// Withdraw takes back an indicator of ours.
func (m *Member) Withdraw(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.intel.Find(m.self(), id); !ok {
		return fmt.Errorf("federation: withdraw %q: %w: no indicator of ours with this id is in force", id, ErrNotFound)
	}
	if err := m.say(m.opt.Now(), &wire.Withdrawal{ID: id}); err != nil {
		return fmt.Errorf("federation: withdraw %q: %w", id, err)
	}
	return nil
}

// say signs, stores and queues a message of ours. m.mu is held.
func (m *Member) say(now time.Time, p wire.Payload) error {
	n, err := m.seq.next(m.opt.Storage, streamIntel)
	if err != nil {
		return err
	}
	msg, err := wire.Seal(m.opt.Key, n, now, p)
	if err != nil {
		return err
	}
	topic := m.topicFor(p) // before what it takes back is gone
	// Gossip, not Own: our budget is the one that the others hold us to.
	if err := m.apply(now, m.intel.Step(now, msg, intel.Gossip), opOf(p.Kind()), msg); err != nil {
		return err
	}
	if err := m.storeOwn(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	m.out.push(outgoing{topic, msg.Raw})
	m.wake()
	return nil
}

// storeOwn stores our part of the intelligence. While that fails nobody can pull
// from us: we might not remember having said it. m.mu is held.
func (m *Member) storeOwn() error {
	b, err := m.intel.Snapshot(true)
	if err == nil {
		err = m.opt.Storage.Save(keyOwn, b)
	}
	m.ownUnsaved = err != nil
	return err
}

// Ask asks whether the sites have seen an address ("203.0.113.9") or a service
// ("203.0.113.9 tcp/8443"). It answers from shared indicators first and then asks
// at most five connected sites that these do not speak for, within 300 ms;
// sites that do not answer in time are left out. ErrRateLimited comes together
// with what is known here. An answer of "not seen" is no sign of innocence.
func (m *Member) Ask(ctx context.Context, value string) ([]Answer, error) {
	q := &wire.Query{Type: wire.TypeAddress}
	if strings.Contains(value, " ") {
		q.Type = wire.TypeService
	}
	q.Value = canonical(q.Type, value)
	m.mu.Lock()
	claims, err := m.intel.Seen(q.Type, q.Value)
	if err != nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("federation: ask: %w", err)
	}
	answers, known := m.fromClaims(claims)
	whom := m.chooseAsked(known)
	allowed := len(whom) == 0 || m.asks.take(m.opt.Now(), askRate, askBurst)
	m.mu.Unlock()
	if !allowed {
		return answers, ErrRateLimited
	}
	return append(answers, m.askAll(ctx, whom, q)...), nil
}

// Disputable says whether a dispute of this very value could be of use: others claim it,
// and not so many organisations that one of them must be honest. Against those a
// dispute would only cost its author's standing.
func (m *Member) Disputable(typ wire.Type, value string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	value = canonical(typ, value)
	claims, err := m.intel.Seen(typ, value)
	if err != nil {
		return false
	}
	by := make(map[string]bool)
	for _, c := range claims {
		if c.Author != m.self() && c.Indicator.Stance == wire.Claims && c.Indicator.Type == typ && c.Indicator.Value == value {
			by[c.Org] = true
		}
	}
	found := len(by) > 0
	delete(by, "")
	return found && (len(by) == 0 || len(by) < intel.Drops(m.people.Load().counted))
}

// fromClaims makes one answer of each author's claims.
func (m *Member) fromClaims(claims []intel.Claim) (answers []Answer, known map[identity.ID]bool) {
	known = make(map[identity.ID]bool)
	at := make(map[identity.ID]int)
	for _, c := range claims {
		if c.Author == m.self() || c.Indicator.Stance == wire.Disputes {
			continue
		}
		i, ok := at[c.Author]
		if !ok {
			i = len(answers)
			at[c.Author], known[c.Author] = i, true
			answers = append(answers, Answer{Site: m.nameOf(c.Author), From: c.Org, Seen: true})
		}
		answers[i].Count++
		answers[i].Last = later(answers[i].Last, c.Indicator.Last)
	}
	return answers, known
}

// rank puts our own sites before those of others.
func (m *Member) rank(id identity.ID) int {
	if m.ours(id) {
		return 0
	}
	return 1
}

// chooseAsked draws the sites to ask: our own, and one of each other organisation.
// m.mu is held.
func (m *Member) chooseAsked(known map[identity.ID]bool) []identity.ID {
	whom := slices.DeleteFunc(m.connected(), func(id identity.ID) bool { return known[id] })
	m.rng.Shuffle(len(whom), func(i, j int) { whom[i], whom[j] = whom[j], whom[i] })
	slices.SortStableFunc(whom, func(a, b identity.ID) int { return cmp.Compare(m.rank(a), m.rank(b)) })
	asked := make(map[string]bool)
	whom = slices.DeleteFunc(whom, func(id identity.ID) bool {
		org := m.from(id)
		again := org != "" && asked[org]
		asked[org] = true
		return again
	})
	return whom[:min(len(whom), askSites)]
}

func (m *Member) askAll(ctx context.Context, whom []identity.ID, q *wire.Query) []Answer {
	got := make(chan Answer, len(whom))
	for _, id := range whom {
		if m.later != nil {
			got <- m.askOne(ctx, id, q)
			continue
		}
		go func() { got <- m.askOne(ctx, id, q) }() // ends within askAfter: request has its own deadline
	}
	var out []Answer
	for range whom {
		if a := <-got; a.Site != "" {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Answer) int { return strings.Compare(a.Site, b.Site) })
	return out
}

// askOne is one site's answer, with its name; without one, it gave none.
func (m *Member) askOne(ctx context.Context, id identity.ID, q *wire.Query) Answer {
	resp, err := m.request(ctx, id, &wire.Request{Query: q}, askAfter)
	if err == nil && resp.Answer == nil {
		err = errNoAnswer
	}
	if err != nil {
		m.opt.Log.Debug("a site did not answer", "site", m.nameOf(id), "error", err)
		return Answer{}
	}
	return Answer{Site: m.nameOf(id), From: m.from(id), Seen: resp.Answer.Seen, Count: resp.Answer.Count, Last: resp.Answer.Last}
}

// Refusal returns the named reason inside an error of this package, if it has one.
func Refusal(err error) (wire.Reason, bool) {
	var r *wire.Refusal
	if errors.As(err, &r) {
		return r.Reason, true
	}
	return "", false
}
