package enforce

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// street is a small site in virtual time: seven hosts with seven services outside.
type street struct {
	t    *testing.T
	m    *Machine
	now  time.Time
	id   uint64
	rng  *rand.Rand
	held map[string]time.Time // flows that are suspended
	told []string             // incidents
}

func newStreet(t *testing.T, o Options) *street {
	o.Mode, o.Rules, o.Settle, o.Burst, o.Every = dataplane.Enforce, true, 2*time.Second, 4, time.Hour
	return &street{t: t, m: machine(o), now: t0, rng: rand.New(rand.NewPCG(1, 2)), held: map[string]time.Time{}}
}

// take carries effects out, with a mesh that knows nothing.
func (s *street) take(fx []Effect) {
	for len(fx) > 0 {
		f := fx[0]
		fx = fx[1:]
		switch {
		case f.Ask != nil:
			fx = append(fx, s.m.Answer(s.now, f.Ask.Incident, nil)...)
		case f.Apply != nil && f.Apply.Rule.Target.IsFlow():
			s.held[f.Apply.Rule.Target.String()] = f.Apply.Rule.Expires
		case f.Remove != nil && f.Remove.IsFlow():
			delete(s.held, f.Remove.String())
		case f.Emit != nil && f.Emit.Incident != nil:
			s.told = append(s.told, f.Emit.Incident.Sentence)
		}
	}
}

// talk is a session from one to another: its early report, and its end where nothing
// stopped it. The result says whether it was.
func (s *street) talk(from, to string, j Judgement, edit func(*flow.Record)) (lost bool) {
	s.id++
	f := fl{id: s.id, from: from, to: to, validated: true, kind: dataplane.EventMilestone, dirs: [2]flow.Dir{{Packets: 6, Payload: 900}, {Packets: 6, Payload: 4000}}}
	for _, f.kind = range []dataplane.EventKind{dataplane.EventMilestone, dataplane.EventEnd} {
		ev := f.event()
		ev.Record.Start, ev.Record.Last = s.now.Add(-time.Second).UnixNano(), s.now.UnixNano()
		if edit != nil {
			edit(&ev.Record)
		}
		if s.blocked(&ev.Record) {
			return true
		}
		fx, _ := s.m.Flow(s.now, ev, j, why)
		s.take(fx)
		if until, ok := s.held[dataplane.Target{Flow: ev.Record.Key}.String()]; ok && s.now.Before(until) {
			return true
		}
	}
	return false
}

func (s *street) blocked(rec *flow.Record) bool {
	for _, r := range s.m.Rules() {
		if t := r.Target; r.Action == dataplane.Block && s.now.Before(r.Expires) && relationOf(rec).under(t) {
			return true
		}
	}
	return false
}

func (s *street) after(d time.Duration) {
	s.now = s.now.Add(d)
	s.take(s.m.Tick(s.now))
}

// ordinary lets n sessions of ordinary work pass, fifty a second, and counts those
// that were lost.
func (s *street) ordinary(n int, j Judgement, between func(k int)) (lost int) {
	for k := range n {
		s.after(20 * time.Millisecond)
		from := fmt.Sprintf("10.77.0.%d:%d", 2+s.rng.IntN(7), 20000+s.id%40000)
		to := fmt.Sprintf("198.18.7.%d:443", 2+s.rng.IntN(7))
		if s.talk(from, to, j, nil) {
			lost++
		}
		if between != nil {
			between(k)
		}
	}
	return lost
}

// Traffic that comes back after a pause, which the model finds unusual throughout,
// goes on; the attacks of the same moments are stopped as ever.
func TestTrafficComesBackAfterAPause(t *testing.T) {
	for _, detector := range []string{"self", "attack"} {
		s := newStreet(t, Options{})
		if lost := s.ordinary(1000, usual, nil); lost != 0 {
			t.Fatalf("%d sessions were lost while nothing was odd", lost)
		}
		s.after(90 * time.Second)
		strange := odd
		strange.Detector = detector
		attacks := 0
		lost := s.ordinary(600, strange, func(k int) {
			if k%10 != 0 || k < 100 {
				return
			}
			attacks++
			s.talk(fmt.Sprintf("10.77.0.5:%d", 30000+k), "203.0.113.66:443", odd, nil) // drips
			s.talk(fmt.Sprintf("203.0.113.98:%d", 30000+k), "10.77.0.3:22", usual, nil)
			s.talk(fmt.Sprintf("203.0.113.99:%d", 30000+k), fmt.Sprintf("10.77.0.3:%d", 1000+k), usual, func(r *flow.Record) {
				r.Dir = [2]flow.Dir{{Packets: 1}, {Packets: 1, RST: 1}}
				if attacks <= touchLimit { // opened and left
					r.Dir[1].RST = 0
				}
			})
		})
		if most := 600 / 20; lost > most {
			t.Errorf("%s: %d of 600 sessions were lost, at most %d", detector, lost, most)
		}
		if s.m.Standing() == nil {
			t.Fatal("nothing stands")
		}
		stands := map[string]bool{}
		for _, b := range s.m.Standing() {
			stands[b.Target] = true
			if strings.HasPrefix(b.Target, "198.18.7.") {
				t.Errorf("%s: an ordinary service is held up: %+v", detector, b)
			}
		}
		for _, target := range []string{"203.0.113.66:443/tcp", "203.0.113.98", "203.0.113.99"} {
			if !stands[target] {
				t.Errorf("%s: %s is not held up; there are %v", detector, target, stands)
			}
		}
		if all := strings.Join(s.told, "\n"); !strings.Contains(all, "a change of this site rather than an attack by each") {
			t.Errorf("%s: nobody was told of the change: %s", detector, all)
		}
		if n := len(s.m.incidents); n > 12 {
			t.Errorf("%s: %d incidents for one change and three attacks", detector, n)
		}
		a := s.m.Ordinary(s.now)
		if !a.Changing || a.Relations < 49 || a.Stopped > lost || a.Stopped == 0 {
			t.Errorf("%s: %+v with %d lost", detector, a, lost)
		}
	}
}

// Where only little becomes unusual there is no change, and the learner may act, but
// on no more than its share.
func TestLearnerAloneActsWithinItsShare(t *testing.T) {
	s := newStreet(t, Options{})
	s.ordinary(1000, usual, nil)
	stopped := 0
	for k := range 300 {
		s.after(200 * time.Millisecond)
		// One host, at whatever it does.
		if s.talk(fmt.Sprintf("10.77.0.5:%d", 30000+k), fmt.Sprintf("198.18.7.%d:443", 2+k%7), odd, nil) {
			stopped++
		}
	}
	a := s.m.Ordinary(s.now)
	if a.Changing {
		t.Fatal("one host is taken for a change of the site")
	}
	if a.Cut == 0 || a.Cut > fewRelations || a.Held == 0 {
		t.Errorf("%+v: expected 1 or 2 relations cut off, and more held back", a)
	}
	if stopped == 0 || stopped > (a.Flows)/20+300*fewRelations/7 {
		t.Errorf("%d flows were stopped: %+v", stopped, a)
	}
	// A person's word is not bounded.
	for _, in := range s.m.incidents {
		fx, err := s.m.Confirm(s.now, in.id)
		if err != nil {
			t.Fatal(err)
		}
		s.take(fx)
	}
	if len(s.m.Standing()) <= fewRelations {
		t.Errorf("%d rules stand after a person confirmed %d incidents", len(s.m.Standing()), len(s.m.incidents))
	}
}

// On probation nothing that only the learner finds has an effect; what a rule counts
// has.
func TestOnProbationTheLearnerOnlyTells(t *testing.T) {
	young := fmt.Errorf("too young")
	s := newStreet(t, Options{Probation: func(time.Time) error { return young }})
	s.ordinary(1000, usual, nil)
	for k := range 50 {
		s.after(time.Second)
		if s.talk(fmt.Sprintf("10.77.0.5:%d", 30000+k), "203.0.113.66:443", odd, nil) {
			t.Fatal("the learner alone stopped a flow")
		}
	}
	if n := len(s.m.Standing()); n != 0 || len(s.told) == 0 {
		t.Fatalf("%d rules stand, told %d times: expected none, and told", n, len(s.told))
	}
	for k := range 20 {
		s.talk(fmt.Sprintf("203.0.113.98:%d", 30000+k), "10.77.0.3:22", usual, nil)
	}
	if len(s.m.Standing()) != 1 {
		t.Errorf("%v stand: expected the one who guesses passwords", s.m.Standing())
	}
}

// What keeps a network together is no reason to act, whatever the model says.
func TestControlTrafficIsNoReason(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to string
		proto    uint8
		want     bool
	}{
		{"router solicitation", "[fe80::1]:0", "[ff02::2]:0", flow.ICMPv6, true},
		{"neighbour, unicast", "[fe80::1]:0", "[fe80::2]:0", flow.ICMPv6, true},
		{"neighbour of a global address", "[fe80::1]:0", "[2001:db8::2]:0", flow.ICMPv6, true},
		{"listener report", "[::]:0", "[ff02::16]:0", flow.ICMPv6, true},
		{"group membership", "10.0.0.5:0", "10.0.0.1:0", igmp, true},
		{"mdns", "10.0.0.5:5353", "224.0.0.251:5353", flow.UDP, true},
		{"dhcp discover", "0.0.0.0:68", "255.255.255.255:67", flow.UDP, true},
		{"dhcp renew", "10.0.0.5:68", "10.0.0.1:67", flow.UDP, true},
		{"dhcpv6", "[fe80::1]:546", "[fe80::2]:547", flow.UDP, true},
		{"ping of a global address", "[2001:db8::1]:0", "[2001:db8::2]:0", flow.ICMPv6, false},
		{"login, link-local", "[fe80::1]:4000", "[fe80::2]:22", flow.TCP, false},
		{"ports alike, elsewhere", "10.0.0.5:68", "203.0.113.9:443", flow.UDP, false},
		{"web", "10.0.0.5:4000", "203.0.113.9:443", flow.TCP, false},
	} {
		k, b := flow.NewKey(netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to), c.proto)
		rec := flow.Record{Key: k, InitB: b, ID: 1}
		if got := control(&rec); got != c.want {
			t.Errorf("%s: %v, expected %v", c.name, got, c.want)
		}
		m := machine(Options{Mode: dataplane.Enforce})
		fx, _ := m.Flow(t0, &dataplane.Event{Kind: dataplane.EventMilestone, Record: rec}, odd, why)
		if quiet := len(fx) == 0; quiet != c.want {
			t.Errorf("%s: %s", c.name, say(fx))
		}
	}
}

// No more than control traffic needs goes unseen from its ports.
func TestControlTrafficIsBrief(t *testing.T) {
	for _, c := range []struct {
		from, to string
		proto    uint8
	}{
		{"10.0.0.5:68", "203.0.113.9:67", flow.UDP},
		{"10.0.0.5:0", "203.0.113.9:0", igmp},
	} {
		k, b := flow.NewKey(netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to), c.proto)
		for payload, want := range map[uint64]bool{brief: true, brief + 1: false} {
			rec := flow.Record{Key: k, InitB: b, Dir: [2]flow.Dir{{Payload: 1000}, {Payload: payload - 1000}}}
			if got := control(&rec); got != want {
				t.Errorf("%s to %s, %d bytes: %v, expected %v", c.from, c.to, payload, got, want)
			}
		}
	}
}

// What is ordinary here, and goes on being unusual, is blocked at last; others hear of
// it when a person says that it is an attack.
func TestOthersHearOfWhatIsOrdinaryWhenAPersonSaysSo(t *testing.T) {
	s := newStreet(t, Options{})
	for k := range 1000 { // one host with one service, beside all others with theirs
		s.after(20 * time.Millisecond)
		s.talk(fmt.Sprintf("10.77.0.9:%d", 20000+k), "198.18.7.9:443", usual, nil)
	}
	s.ordinary(1000, usual, nil)
	shared, id := 0, ""
	count := func(fx []Effect) {
		for _, f := range fx {
			if f.Share != nil {
				shared++
			}
		}
		s.take(fx)
	}
	began := s.now
	for k := range 100 {
		s.after(time.Second)
		f := fl{id: uint64(90000 + k), from: fmt.Sprintf("10.77.0.9:%d", 40000+k), to: "198.18.7.9:443", validated: true, kind: dataplane.EventMilestone}
		ev := f.event()
		ev.Record.Last = s.now.UnixNano()
		fx, in := s.m.Flow(s.now, ev, odd, why)
		id = in
		count(fx)
		if n := len(s.m.Standing()); n > 0 && s.now.Sub(began) < aloneFor {
			t.Fatalf("blocked after %s", s.now.Sub(began))
		}
	}
	if len(s.m.Standing()) != 1 || shared != 0 {
		t.Fatalf("%d rules stand and %d were shared: expected 1, which nobody hears of", len(s.m.Standing()), shared)
	}
	fx, err := s.m.Confirm(s.now, id)
	if err != nil {
		t.Fatal(err)
	}
	if count(fx); shared != 1 {
		t.Errorf("shared %d times after a person confirmed it", shared)
	}
}
