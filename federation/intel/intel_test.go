package intel

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// message makes an opened message without the cost of a signature: the set
// never looks at one.
func message(author identity.ID, seq uint64, at time.Time, p wire.Payload) *wire.Message {
	raw := fmt.Appendf(nil, "%s %d %d %+v", author, seq, at.UnixNano(), p)
	m := &wire.Message{Author: author, Seq: seq, Time: at, Payload: p, Raw: raw}
	copy(m.Hash[:], bytes.Repeat(fmt.Appendf(nil, "%x", len(raw)), 2))
	for i, b := range raw {
		m.Hash[i%32] ^= b * byte(i)
	}
	return m
}

func claim(author identity.ID, value string, at time.Time, life time.Duration) *wire.Indicator {
	return &wire.Indicator{
		ID: wire.IndicatorID(author, wire.TypeAddress, value), Type: wire.TypeAddress, Value: value,
		Evidence: wire.Validated, First: at, Last: at, Expires: at.Add(life), TLP: wire.TLPAmber,
	}
}

func last(t *testing.T, effects []Effect, op Op, reason wire.Reason) Effect {
	t.Helper()
	if len(effects) == 0 {
		t.Fatalf("no effect, expected %v %s", op, reason)
	}
	e := effects[len(effects)-1]
	if e.Op != op || e.Reason != reason {
		t.Fatalf("effect %+v, expected %v %s", e, op, reason)
	}
	return e
}

const a, b = identity.ID("a"), identity.ID("b")

func TestLadder(t *testing.T) {
	s := New(Config{Self: "self"})
	for i, c := range []struct {
		ev   wire.Evidence
		want Op
	}{{wire.Validated, Enforce}, {wire.Operator, Enforce}, {wire.Spoofable, Observe}} {
		ind := claim(a, fmt.Sprintf("203.0.113.%d", i), epoch, time.Hour)
		ind.Evidence = c.ev
		last(t, s.Step(epoch, message(a, uint64(i+1), epoch, ind), Gossip), c.want, "")
	}
	if s.Len() != 3 {
		t.Errorf("%d in force, expected 3", s.Len())
	}
}

func TestRefreshWithdrawAndOrder(t *testing.T) {
	s := New(Config{})
	v := "203.0.113.9"
	id := wire.IndicatorID(a, wire.TypeAddress, v)
	last(t, s.Step(epoch, message(a, 2, epoch, claim(a, v, epoch, time.Hour)), Gossip), Enforce, "")
	last(t, s.Step(epoch, message(a, 1, epoch, claim(a, v, epoch, time.Minute)), Gossip), Refuse, wire.Superseded)
	last(t, s.Step(epoch, message(a, 4, epoch, &wire.Withdrawal{ID: id}), Gossip), Lift, "")
	last(t, s.Step(epoch, message(a, 3, epoch, claim(a, v, epoch, 2*time.Hour)), Gossip), Refuse, wire.Withdrawn)
	last(t, s.Step(epoch, message(a, 5, epoch, claim(a, v, epoch, 2*time.Hour)), Gossip), Enforce, "")
	if eff := s.Tick(epoch.Add(90 * time.Minute)); len(eff) != 0 {
		t.Errorf("the refreshed claim ended early: %+v", eff)
	}
	e := last(t, s.Tick(epoch.Add(2*time.Hour)), Lift, "")
	if !e.Expiry || e.Why != "expired" {
		t.Errorf("effect %+v, expected an expiry", e)
	}
}

func TestWithdrawalBeforeClaim(t *testing.T) {
	s := New(Config{})
	v := "203.0.113.9"
	if eff := s.Step(epoch, message(a, 2, epoch, &wire.Withdrawal{ID: wire.IndicatorID(a, wire.TypeAddress, v)}), Gossip); len(eff) != 0 {
		t.Fatalf("effects %+v of withdrawing the unknown", eff)
	}
	last(t, s.Step(epoch, message(a, 1, epoch, claim(a, v, epoch, time.Hour)), Pulled), Refuse, wire.Withdrawn)
}

// TestOneOfTwoClaims: what another site claims too is kept.
func TestOneOfTwoClaims(t *testing.T) {
	s := New(Config{})
	v := "203.0.113.9"
	last(t, s.Step(epoch, message(a, 1, epoch, claim(a, v, epoch, time.Hour)), Gossip), Enforce, "")
	last(t, s.Step(epoch, message(b, 1, epoch, claim(b, v, epoch, time.Minute)), Gossip), Enforce, "")
	last(t, s.Tick(epoch.Add(time.Minute)), Keep, "")
	last(t, s.Step(epoch.Add(2*time.Minute), message(a, 2, epoch, &wire.Withdrawal{ID: wire.IndicatorID(a, wire.TypeAddress, v)}), Gossip), Lift, "")
}

// TestOthersCannotWithdraw: an id binds its author, so a withdrawal by another
// finds nothing.
func TestOthersCannotWithdraw(t *testing.T) {
	s := New(Config{})
	v := "203.0.113.9"
	s.Step(epoch, message(a, 1, epoch, claim(a, v, epoch, time.Hour)), Gossip)
	if eff := s.Step(epoch, message(b, 1, epoch, &wire.Withdrawal{ID: wire.IndicatorID(a, wire.TypeAddress, v)}), Gossip); len(eff) != 0 || s.Len() != 1 {
		t.Fatalf("effects %+v, %d in force; expected nothing to happen", eff, s.Len())
	}
}

func TestEvidenceLowered(t *testing.T) {
	s := New(Config{})
	ind := claim(a, "203.0.113.9", epoch, time.Hour)
	s.Step(epoch, message(a, 1, epoch, ind), Gossip)
	weak := *ind
	weak.Evidence = wire.Spoofable
	eff := s.Step(epoch, message(a, 2, epoch, &weak), Gossip)
	if len(eff) != 2 || eff[0].Op != Lift || eff[1].Op != Observe {
		t.Fatalf("effects %+v, expected a lift and an observation", eff)
	}
}

// TestRefreshHasAnEnd: the same evidence carries no further than MaxLife, new
// evidence does.
func TestRefreshHasAnEnd(t *testing.T) {
	s := New(Config{})
	v, now := "203.0.113.9", epoch
	seq := uint64(0)
	step := func(ev byte) []Effect {
		ind := claim(a, v, now, 24*time.Hour)
		ind.EvidenceHash = wire.Hash{ev}
		seq++
		return s.Step(now, message(a, seq, now, ind), Gossip)
	}
	for range 13 {
		last(t, step(1), Enforce, "")
		now = now.Add(12 * time.Hour)
	}
	last(t, step(1), Refuse, wire.TooLong)
	last(t, step(2), Enforce, "")
}

func TestReplay(t *testing.T) {
	s := New(Config{})
	m := message(a, 1, epoch, claim(a, "203.0.113.9", epoch, time.Minute))
	last(t, s.Step(epoch, m, Gossip), Enforce, "")
	last(t, s.Step(epoch, m, Gossip), Refuse, wire.Duplicate)
	last(t, s.Step(epoch, message(a, 1, epoch, claim(a, "203.0.113.8", epoch, time.Hour)), Gossip), Refuse, wire.Equivocation)
	s.Tick(epoch.Add(time.Hour))
	last(t, s.Step(epoch.Add(time.Hour), m, Gossip), Refuse, wire.Replayed)
	last(t, s.Step(epoch, message(a, windowBits+5, epoch, claim(a, "203.0.113.7", epoch, time.Hour)), Pulled), Enforce, "")
	last(t, s.Step(epoch, message(a, 4, epoch, claim(a, "203.0.113.6", epoch, time.Hour)), Pulled), Refuse, wire.Replayed)
}

func TestBudgetsAndRoom(t *testing.T) {
	s := New(Config{PerAuthor: 100, Total: 120, Rate: 5, Burst: 50})
	ok, over := 0, 0
	for i := range 90 {
		e := s.Step(epoch, message(a, uint64(i+1), epoch, claim(a, fmt.Sprintf("203.0.113.%d", i), epoch, time.Hour)), Gossip)
		switch e[0].Reason {
		case "":
			ok++
		case wire.OverBudget:
			over++
		}
	}
	if ok != 50 || over != 40 {
		t.Fatalf("%d passed and %d were over budget, expected 50 and 40", ok, over)
	}
	// What was over budget comes again by a pull.
	last(t, s.Step(epoch, message(a, 90, epoch, claim(a, "203.0.113.89", epoch, time.Hour)), Pulled), Enforce, "")
	for i := range 49 {
		s.Step(epoch, message(a, uint64(100+i), epoch, claim(a, fmt.Sprintf("198.51.100.%d", i), epoch, time.Hour)), Pulled)
	}
	now := epoch.Add(time.Minute)
	last(t, s.Step(now, message(a, 200, now, claim(a, "198.51.100.200", now, time.Hour)), Gossip), Refuse, wire.Full)
	for i := range 20 {
		s.Step(now, message(b, uint64(i+1), now, claim(b, fmt.Sprintf("198.51.100.%d", i), now, time.Hour)), Gossip)
	}
	last(t, s.Step(now, message(b, 99, now, claim(b, "198.51.100.200", now, time.Hour)), Gossip), Refuse, wire.Full)
	now = epoch.Add(time.Hour) // a's claims have expired: there is room
	last(t, s.Step(now, message(b, 99, now, claim(b, "198.51.100.200", now, time.Hour)), Gossip), Enforce, "")
}

func TestSeen(t *testing.T) {
	s := New(Config{})
	add := func(seq uint64, typ wire.Type, value string) {
		ind := claim(a, value, epoch, time.Hour)
		ind.Type, ind.ID = typ, wire.IndicatorID(a, typ, value)
		last(t, s.Step(epoch, message(a, seq, epoch, ind), Gossip), Enforce, "")
	}
	add(1, wire.TypeAddress, "203.0.113.0/24")
	add(2, wire.TypeAddress, "203.0.113.9")
	add(3, wire.TypeService, "203.0.113.9 tcp/443")
	add(4, wire.TypeAddress, "2001:db8::/48")
	for _, c := range []struct {
		typ   wire.Type
		value string
		want  int
	}{
		{wire.TypeAddress, "203.0.113.9", 3}, {wire.TypeAddress, "203.0.113.8", 1}, {wire.TypeAddress, "203.0.112.9", 0},
		{wire.TypeService, "203.0.113.9 tcp/443", 3}, {wire.TypeService, "203.0.113.9 tcp/444", 2},
		{wire.TypeAddress, "2001:db8:0:1::7", 1}, {wire.TypeAddress, "2001:db8:1::7", 0},
	} {
		got, err := s.Seen(c.typ, c.value)
		if err != nil || len(got) != c.want {
			t.Errorf("seen %s: %d claims, %v; expected %d", c.value, len(got), err, c.want)
		}
	}
}

// model is the slow twin: the latest word of each author on each id, and
// nothing else.
type model map[string]struct {
	seq     uint64
	expires time.Time
	gone    bool
	value   string
}

// TestAgainstTwin plays random messages in random order, with echoes, and
// compares what is in force with the latest word on everything. At the end two
// sets that saw different halves pull from each other and must agree.
func TestAgainstTwin(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		authors := []identity.ID{"a", "b", "c"}
		msgs := randomMessages(r, authors)
		twin := model{}
		for _, m := range msgs {
			twin.apply(m)
		}
		x, y := New(Config{Rate: 1e6, Burst: 1e6}), New(Config{Rate: 1e6, Burst: 1e6})
		r.Shuffle(len(msgs), func(i, j int) { msgs[i], msgs[j] = msgs[j], msgs[i] })
		now := epoch
		for _, m := range msgs {
			for _, s := range []*Set{x, y} {
				for range r.IntN(3) { // lost, once, or twice
					s.Step(now, m, Gossip)
				}
			}
		}
		byHash := map[string]*wire.Message{}
		for _, m := range msgs {
			byHash[string(m.Raw)] = m
		}
		pullAll(x, y, now, byHash)
		pullAll(y, x, now, byHash)
		if gx, gy := inForce(x), inForce(y); !maps.Equal(gx, gy) {
			t.Fatalf("seed %d: after pulling, one has %v, the other %v", seed, gx, gy)
		}
		for _, m := range msgs { // everything arrives in the end
			x.Step(now, m, Pulled)
		}
		for _, at := range []time.Duration{0, 30 * time.Minute, 2 * time.Hour} {
			x.Tick(now.Add(at))
			if got, want := inForce(x), twin.inForce(now.Add(at)); !maps.Equal(got, want) {
				t.Fatalf("seed %d after %s: in force %v, the twin has %v", seed, at, got, want)
			}
			checkBooks(t, x)
		}
	}
}

func randomMessages(r *rand.Rand, authors []identity.ID) []*wire.Message {
	var msgs []*wire.Message
	for _, au := range authors {
		for seq := range uint64(30) {
			v := fmt.Sprintf("203.0.113.%d", r.IntN(6))
			var p wire.Payload = claim(au, v, epoch, time.Duration(1+r.IntN(120))*time.Minute)
			if r.IntN(4) == 0 {
				p = &wire.Withdrawal{ID: wire.IndicatorID(au, wire.TypeAddress, v)}
			}
			msgs = append(msgs, message(au, seq+1, epoch, p))
		}
	}
	return msgs
}

func (m model) apply(msg *wire.Message) {
	set := func(id, value string, expires time.Time, gone bool) {
		k := string(msg.Author) + id
		if old, ok := m[k]; ok && old.seq > msg.Seq {
			return
		}
		e := m[k]
		e.seq, e.expires, e.gone = msg.Seq, expires, gone
		if value != "" {
			e.value = value
		}
		m[k] = e
	}
	switch p := msg.Payload.(type) {
	case *wire.Indicator:
		set(p.ID, p.Value, p.Expires, false)
	case *wire.Withdrawal:
		set(p.ID, "", time.Time{}, true)
	}
}

func (m model) inForce(now time.Time) map[string]int {
	out := map[string]int{}
	for _, e := range m {
		if !e.gone && e.expires.After(now) {
			out[e.value]++
		}
	}
	return out
}

func inForce(s *Set) map[string]int {
	out := map[string]int{}
	for _, c := range s.Live() {
		out[c.Indicator.Value]++
	}
	return out
}

// pullAll brings to what from has, a few at a time.
func pullAll(to, from *Set, now time.Time, byRaw map[string]*wire.Message) {
	for {
		items, more := from.Missing(to.Digest(), false, 5, 1<<20)
		for _, raw := range items {
			to.Step(now, byRaw[string(raw)], Pulled)
		}
		if !more {
			return
		}
	}
}

// checkBooks compares the set's indexes with each other.
func checkBooks(t *testing.T, s *Set) {
	t.Helper()
	n, standing := 0, 0
	for _, au := range s.authors {
		n += len(au.byID)
		for _, e := range au.byID {
			if e.inForce() {
				standing++
			}
		}
	}
	if n != s.n || standing != s.Len() || len(s.queue.h) > 3*s.n+65 {
		t.Fatalf("books: %d entries, counted %d; %d standing, indexed %d; %d in the heap", n, s.n, standing, s.Len(), len(s.queue.h))
	}
}

func TestWindow(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		var w window
		seen := map[uint64]bool{}
		high := uint64(0)
		for range 400 {
			seq := high + 1 + uint64(r.IntN(3))
			if r.IntN(2) == 0 && high > 0 {
				seq = 1 + r.Uint64N(high)
			}
			if r.IntN(40) == 0 {
				seq += windowBits / 2
			}
			want := seen[seq] || seq+windowBits <= high
			if w.seen(seq) != want {
				t.Fatalf("seed %d: seen(%d) is %v with high %d", seed, seq, !want, high)
			}
			w.mark(seq)
			if seq+windowBits > high {
				seen[seq] = true
			}
			high = max(high, seq)
		}
		var back window
		back.restore(w.spans())
		if len(w.spans()) < wire.MaxSpans && !slices.Equal(back.spans(), w.spans()) {
			t.Fatalf("seed %d: spans %v came back as %v", seed, w.spans(), back.spans())
		}
	}
}

func TestComplete(t *testing.T) {
	s := New(Config{})
	s.Step(epoch, message(a, 5, epoch, claim(a, "203.0.113.9", epoch, time.Hour)), Gossip)
	s.Complete(a, 9)
	if d := s.Digest(); len(d) != 1 || !slices.Equal(d[0].Spans, []wire.Span{{From: 1, To: 9}}) {
		t.Errorf("digest %v, expected 1 to 9", d)
	}
	last(t, s.Step(epoch, message(a, 3, epoch, claim(a, "203.0.113.8", epoch, time.Hour)), Gossip), Refuse, wire.Replayed)
}

// TestSnapshot uses really sealed messages: Restore opens them again.
func TestSnapshot(t *testing.T) {
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Self: k.ID()})
	var seq uint64
	say := func(p wire.Payload) {
		seq++
		m, err := wire.Seal(k, seq, epoch, p)
		if err != nil {
			t.Fatal(err)
		}
		s.Step(epoch, m, Pulled)
	}
	say(claim(k.ID(), "203.0.113.1", epoch, time.Hour))
	say(claim(k.ID(), "203.0.113.2", epoch, time.Minute))
	say(claim(k.ID(), "203.0.113.3", epoch, time.Hour))
	say(&wire.Withdrawal{ID: wire.IndicatorID(k.ID(), wire.TypeAddress, "203.0.113.3")})
	b, err := s.Snapshot(true)
	if err != nil {
		t.Fatal(err)
	}
	member := func(id identity.ID) bool { return id == k.ID() }
	back := New(Config{})
	dropped, err := back.Restore(b, epoch.Add(time.Minute), member)
	if err != nil || dropped != 1 || !maps.Equal(inForce(back), map[string]int{"203.0.113.1": 1}) {
		t.Fatalf("restored %v, %d dropped, %v; expected 203.0.113.1, and one expired", inForce(back), dropped, err)
	}
	if !slices.Equal(back.Digest()[0].Spans, []wire.Span{{From: 1, To: 4}}) {
		t.Errorf("digest %v, expected 1 to 4", back.Digest())
	}
	foreign := New(Config{})
	if n, err := foreign.Restore(b, epoch, func(identity.ID) bool { return false }); err != nil || n == 0 || foreign.Len() != 0 {
		t.Errorf("a former member's claims were restored: %d dropped, %v", n, err)
	}
}

func FuzzRestore(f *testing.F) {
	s := New(Config{})
	b, err := s.Snapshot(false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa2, 0x01, 0x01, 0x02, 0x81, 0xa3, 0x01, 0x61, 'x', 0x02, 0x82, 0x01, 0x1b, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{})
		if _, err := s.Restore(b, epoch, func(identity.ID) bool { return true }); err != nil {
			return
		}
		checkBooks(t, s)
	})
}
