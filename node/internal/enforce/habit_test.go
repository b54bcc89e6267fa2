package enforce

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func rel(host, service int) relation {
	return relation{netip.AddrFrom4([4]byte{10, 0, byte(host >> 8), byte(host)}), party{netip.AddrFrom4([4]byte{203, 0, 113, byte(service)}), 443, 6}}
}

// bondAll makes ordinary relations of hosts with services.
func bondAll(h *habits, now time.Time, hosts, services int) {
	for i := range hosts {
		for k := range services {
			for range bonded {
				h.seen(now, rel(i, k), true, true)
			}
		}
	}
}

func TestMostThatMayBeCutOff(t *testing.T) {
	for _, c := range []struct {
		share     float64
		all, want int
	}{
		{0.05, 0, 1}, {0.05, 1, 1}, {0.05, 2, 1}, {0.05, 3, 1}, {0.05, 4, 2}, {0.05, 49, 2}, {0.05, 60, 3}, {0.05, 1000, 50}, {1, 49, 49},
	} {
		if got := newHabits(c.share, 0).most(c.all, fewRelations); got != c.want {
			t.Errorf("%v of %d: %d, expected %d", c.share, c.all, got, c.want)
		}
	}
}

// Whatever the learner is against, in whatever order and at whatever time: no more
// than the share is cut off within any hour, and a stranger is none of it.
func TestHabitsBoundWhateverHappens(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		hosts, services := 1+rng.IntN(30), 1+rng.IntN(30)
		h := newHabits(0.05, time.Minute)
		h.seen(t0, rel(0, 0), true, true)
		bondAll(h, t0, hosts, services)
		now := t0.Add(10 * time.Minute)
		bondAll(h, now, hosts, services)
		cuts := map[relation]time.Time{}
		for range 3000 {
			now = now.Add(time.Duration(rng.IntN(5000)) * time.Millisecond)
			r := rel(rng.IntN(hosts), rng.IntN(services))
			h.seen(now, r, true, rng.IntN(2) == 0)
			switch rng.IntN(4) {
			case 0:
				h.unusual(now, r)
			case 1:
				if h.mayFlow(now, r) == nil {
					h.stopped(now, r)
					cuts[r] = now
					if all, stopped := h.flows(now); stopped > h.most(all+stopped, fewFlows) {
						t.Fatalf("seed %d: %d of %d flows were stopped", seed, stopped, all+stopped)
					}
				}
			case 2:
				if rs := h.under(now, dataplane.Peer(r.with.addr)); h.may(now, rs...) == nil {
					h.cutOff(now, rs...)
					for _, r := range rs {
						cuts[r] = now
					}
				}
			}
			within(cuts, now, cutWindow)
			if most := h.most(hosts*services, fewRelations); len(cuts) > most {
				t.Fatalf("seed %d: %d of %d relations are cut off, at most %d", seed, len(cuts), hosts*services, most)
			}
			if h.changed(now) && h.mayFlow(now, r) == nil {
				t.Fatalf("seed %d: cut off while the site changes", seed)
			}
			if h.established(now, rel(1<<12, 1)) {
				t.Fatal("a stranger is ordinary")
			}
		}
	}
}

// A relation takes time and conversations; what is odd, one-sided, dropped or forged
// makes none.
func TestWhatMakesARelation(t *testing.T) {
	h := newHabits(0.05, time.Minute)
	r := rel(1, 1)
	if !h.established(t0, r) {
		t.Error("before anything was seen nothing is to be cut off")
	}
	h.seen(t0, rel(9, 9), true, false)
	for range 20 {
		h.seen(t0, r, true, true)
	}
	now := t0.Add(2 * time.Minute)
	if !h.established(now, r) {
		t.Error("20 conversations and two minutes make no relation")
	}
	young := rel(2, 2)
	for range 20 {
		h.seen(now, young, true, true)
	}
	if h.established(now.Add(time.Second), young) {
		t.Error("conversations at once make a relation")
	}
	for range 20 {
		h.seen(now, rel(3, 3), true, false)
	}
	if h.established(now.Add(time.Hour), rel(3, 3)) {
		t.Error("what is not ordinary makes a relation")
	}
	if h.established(now.Add(remembered+time.Hour), r) {
		t.Error("a relation is never forgotten")
	}
	talked := fl{id: 1, from: "203.0.113.9:4000", to: "10.0.0.5:443", kind: dataplane.EventEnd}
	talked.dirs[0].Payload, talked.dirs[1].Payload = 10, 10
	if ev := talked.event(); ordinaryFlow(&ev.Record, usual) {
		t.Error("a caller that proved nothing makes a relation")
	}
	talked.validated = true
	ev := talked.event()
	if !ordinaryFlow(&ev.Record, usual) || ordinaryFlow(&ev.Record, odd) {
		t.Error("a caller that proved its address makes one if it is usual, and not if it is odd")
	}
	ev.Record.Dropped = 1
	if ordinaryFlow(&ev.Record, usual) {
		t.Error("what was dropped makes a relation")
	}
}

func TestHabitsAreBoundedInMemory(t *testing.T) {
	h := newHabits(0.05, 0)
	for i := range maxBonds + 100 {
		h.seen(t0, rel(i&0xffff, i>>16), true, true)
	}
	if len(h.bonds) != maxBonds {
		t.Fatalf("%d relations are kept: at most %d", len(h.bonds), maxBonds)
	}
	h.seen(t0.Add(48*time.Hour), rel(1, 200), true, true)
	if len(h.bonds) != 1 {
		t.Errorf("%d relations are kept, of which one was seen within a day", len(h.bonds))
	}
}

// A change takes many relations, hosts and services; another model ends it.
func TestWhatIsAChangeOfTheSite(t *testing.T) {
	for _, c := range []struct {
		name            string
		hosts, services int // of ten each
		want            bool
	}{
		{"few", 1, 4, false}, {"one host", 1, 10, false}, {"one service", 10, 1, false}, {"two hosts", 2, 10, false},
		{"many, and too small a share", 4, 4, false}, {"a fifth", 4, 5, true}, {"all", 10, 10, true},
	} {
		h := newHabits(0.05, time.Second)
		h.seen(t0, rel(0, 0), true, true)
		bondAll(h, t0, 10, 10)
		now := t0.Add(time.Minute)
		began := 0
		for i := range c.hosts {
			for k := range c.services {
				if h.unusual(now, rel(i, k)) {
					began++
				}
			}
		}
		if h.changed(now) != c.want || c.want && began != 1 {
			t.Errorf("%s: changed %v, began %d times", c.name, h.changed(now), began)
		}
		if h.changed(now.Add(turnLasts)) {
			t.Errorf("%s: it does not end", c.name)
		}
		h.renew()
		if h.changed(now) {
			t.Errorf("%s: another model judges, and it goes on", c.name)
		}
	}
}

// Less than usual, as after a pause, is no alarm of what is ordinary; of a stranger,
// and together with what is more, it is.
func TestLessThanUsualIsNoAlarm(t *testing.T) {
	less := func() []event.Reason {
		return []event.Reason{
			{Feature: "host_flows", Value: 7, Normal: 340, Weight: 0.4, Words: "opens 7 flows a minute"},
			{Feature: "peer_out", Value: 1400, Normal: 77000, Weight: 0.2, Words: "1.4 kB a minute"},
			{Feature: "rate_in", Value: 9, Normal: 2, Weight: 0.3, Words: "received at 9 B/s"},
		}
	}
	more := func() []event.Reason {
		rs := less()
		rs[0].Value = 4000
		return rs
	}
	for _, c := range []struct {
		name  string
		to    string
		why   func() []event.Reason
		alarm bool
	}{{"less", "198.18.7.3:443", less, false}, {"more", "198.18.7.3:443", more, true}, {"less of a stranger", "203.0.113.7:443", less, true}} {
		s := newStreet(t, Options{})
		s.ordinary(1000, usual, nil)
		s.after(90 * time.Second)
		f := fl{id: 9999, from: "10.77.0.3:50000", to: c.to, validated: true, kind: dataplane.EventMilestone}
		fx, id := s.m.Flow(s.now, f.event(), odd, c.why)
		if alarm := len(fx) > 0; alarm != c.alarm || alarm != (id != "") || s.m.AsBefore() == c.alarm {
			t.Errorf("%s: %s", c.name, say(fx))
		}
	}
}

// What the plane's own scorer holds of what is ordinary is bounded as well: the rest is
// let go, and the scorer has to stop acting.
func TestScorerStaysWithinTheShare(t *testing.T) {
	s := newStreet(t, Options{})
	s.ordinary(1000, usual, nil)
	held, why := 0, ""
	for k := range 100 {
		s.after(100 * time.Millisecond)
		f := fl{id: uint64(50000 + k), from: fmt.Sprintf("10.77.0.%d:%d", 2+k%7, 50000+k), to: fmt.Sprintf("198.18.7.%d:443", 2+k%5), validated: true, kind: dataplane.EventVerdict}
		ev := f.event()
		ev.At = s.now.UnixNano()
		ev.Verdict = &dataplane.Verdict{Milestone: 1, Action: score.Suspend, Outcome: dataplane.Acted, Until: s.now.Add(30 * time.Second).UnixNano()}
		o := tell(first(s.m.Decided(s.now, ev, usual, nil)))
		held += 1 - o.removed
		if r := s.m.Retreat(); r != "" && why == "" {
			why = r
		}
	}
	if held == 0 || held > 100*fewRelations/7 || why == "" || s.m.Retreat() != "" {
		t.Errorf("%d of 100 are held, and it stops acting because of %q", held, why)
	}
}

// A word of another site's learner alone is not followed about what is ordinary here;
// of more than a learner, and about strangers, it is.
func TestAnotherLearnersWordAboutWhatIsOrdinary(t *testing.T) {
	s := newStreet(t, Options{})
	s.ordinary(1000, usual, nil)
	for _, c := range []struct {
		name, value, author string
		conf                float64
		follow              bool
	}{
		{"learner alone", "198.18.7.3 tcp/443", "birch", aloneConf, false},
		{"its whole address", "198.18.7.3", "birch", aloneConf, false},
		{"with a rule, or a person", "198.18.7.3 tcp/443", "birch", backedConf, true},
		{"enough other organisations", "198.18.7.4 tcp/443", "briar/gate", aloneConf, true},
		{"a stranger", "203.0.113.7 tcp/443", "birch", aloneConf, true},
	} {
		typ := "service"
		if len(c.value) < 12 {
			typ = "address"
		}
		fx, no := s.m.Indicator(s.now, Received{ID: c.name, Author: c.author, Type: typ, Value: c.value, Conf: c.conf, Expires: s.now.Add(time.Hour)})
		if (no == "") != c.follow || (len(fx) > 0) != c.follow {
			t.Errorf("%s: %q, %s", c.name, no, say(fx))
		}
	}
}

// A restart is no new share: what was cut off within the hour counts on, and what is
// ordinary stays so.
func TestARestartIsNoNewShare(t *testing.T) {
	before := New(Options{Share: 0.05, Settle: time.Minute})
	h, now := before.habits, t0.Add(10*time.Minute)
	bondAll(h, t0, 5, 5)
	bondAll(h, now, 5, 5)
	for i := range fewRelations {
		if err := h.mayFlow(now, rel(i, 0)); err != nil {
			t.Fatal(err)
		}
		h.stopped(now, rel(i, 0))
	}
	after := New(Options{Share: 0.05, Settle: time.Minute})
	if n := after.Resume(now, before.Ties()); n != 25 {
		t.Fatalf("%d relations go on, expected 25", n)
	}
	if !after.habits.established(now, rel(4, 4)) || after.habits.cold(now) {
		t.Error("what was ordinary is not")
	}
	if after.habits.mayFlow(now, rel(2, 0)) == nil {
		t.Error("a third relation may be cut off after a restart")
	}
	if err := after.habits.mayFlow(now.Add(cutWindow), rel(2, 0)); err != nil {
		t.Error("and an hour later:", err)
	}
}
