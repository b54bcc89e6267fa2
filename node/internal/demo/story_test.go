package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faults are ways in which a town does not do what the story is about.
type faults struct {
	deaf       string // this site enforces nothing of what others tell
	leaky      string // this site says that it enforces, and does not
	loses      bool   // one ordinary session fails
	accuses    bool   // one ordinary flow is suspended
	sharpCedar bool   // cedar's own model sees the beacon
	refuses    bool   // cedar refuses every round's model
	alone      bool   // birch never connects
	blunt      bool   // nobody sees the spurt
	paranoid   bool   // the beacon is seen although the learner is off
}

// town is a small model of three sites, by its own simple rules: a site knows
// hostile addresses by name, needs a few of their sessions, and tells the
// others. It is network and sites at once.
type town struct {
	t       *testing.T
	sc      *scenario.Scenario
	f       faults
	learner bool
	sites   []*townSite

	mu    sync.Mutex
	n     int
	round uint64
}

type townSite struct {
	*town
	name    string
	flows   int
	mode    string
	blocked map[netip.Addr]bool
	counts  map[netip.Addr]int
	taught  bool
	log     []*event.Event
	more    chan struct{}
	labels  []string
}

func newTown(t *testing.T, f faults, learner bool) *town {
	w := &town{t: t, sc: scenario.New(6), f: f, learner: learner}
	for _, s := range w.sc.Sites {
		w.sites = append(w.sites, &townSite{
			town: w, name: s.Name, mode: "monitor", more: make(chan struct{}),
			blocked: map[netip.Addr]bool{}, counts: map[netip.Addr]int{},
		})
	}
	return w
}

func (w *town) options(attacks ...scenario.Attack) (Options, *strings.Builder) {
	var out strings.Builder
	o := Options{Scenario: w.sc, Network: w, Where: "in a model", Attacks: attacks, Learner: w.learner, Out: &out}
	for _, s := range w.sites {
		o.Sites = append(o.Sites, s)
	}
	return o, &out
}

func (w *town) at(name string) *townSite {
	for _, s := range w.sites {
		if s.name == name {
			return s
		}
	}
	return nil
}

// Run takes 40 ms a session; a blocked one takes its whole patience.
func (w *town) Run(ctx context.Context, s *scenario.Session) scenario.Result {
	r := scenario.Result{Session: s, Start: time.Now()}
	out := s.To
	if s.Inbound {
		out = s.From
	}
	w.mu.Lock()
	wall := w.at(s.Site).see(s, out)
	w.n++
	if w.f.loses && w.n == 500 {
		wall = true
	}
	w.mu.Unlock()
	d := 40 * time.Millisecond
	if wall {
		d = s.Timeout
	}
	if err := pause(ctx, d); err != nil || wall {
		r.Err = fmt.Errorf("no answer: %v", err)
	} else {
		r.OK, r.Answered = true, true
	}
	r.Duration = time.Since(r.Start)
	return r
}

// see counts a session and says whether it meets a block.
func (s *townSite) see(x *scenario.Session, out netip.Addr) bool {
	s.flows++
	if s.blocked[out] {
		s.tell(event.KindVerdict, &event.Verdict{Action: "block", Target: out.String(), FirstDropNS: time.Now().UnixNano()})
		return s.f.leaky != s.name
	}
	if s.f.accuses && s.flows == 400 {
		s.tell(event.KindVerdict, &event.Verdict{Action: "suspend", Target: "tcp 10.0.0.9:1<>203.0.113.9:443", EnforcedNS: 1})
	}
	by := s.detector(x)
	if by == "" || s.mode != "enforce" {
		return false
	}
	s.counts[out]++
	if s.counts[out] == 2 {
		s.tell(event.KindAlert, &event.Alert{Peer: out.String(), Detector: by, Sentence: "does not fit"})
	}
	if s.counts[out] == 3 {
		s.block(out)
	}
	return false
}

func (s *townSite) detector(x *scenario.Session) string {
	switch x.Attack {
	case scenario.Scan, scenario.Brute:
		return "rule:" + string(x.Attack)
	case scenario.Spurt:
		if s.learner && !s.f.blunt {
			return "self"
		}
	case scenario.Beacon:
		switch {
		case s.name == scenario.Cedar && s.taught:
			return "attack"
		case s.learner && (s.name != scenario.Cedar || s.f.sharpCedar), s.f.paranoid:
			return "self"
		}
	}
	return ""
}

func (s *townSite) block(a netip.Addr) {
	now := time.Now().UnixNano()
	s.blocked[a] = true
	s.tell(event.KindVerdict, &event.Verdict{
		Action: "block", Target: a.String(), DetectedNS: now - 3e6, EnforcedNS: now, Sentence: "enough",
	})
	for _, o := range s.sites {
		if o == s || o.name == s.f.deaf {
			continue
		}
		o.blocked[a] = true
		o.tell(event.KindIndicator, &event.Indicator{
			Op: "indicator", Author: s.name, Value: a.String(), Outcome: "enforced", DoneNS: now + 20e6,
		})
	}
}

func (s *townSite) tell(k event.Kind, body any) {
	now := time.Now()
	e := &event.Event{V: event.Version, ID: event.NewID(now), Time: now, Site: s.name, Kind: k}
	switch b := body.(type) {
	case *event.Alert:
		e.Alert = b
	case *event.Verdict:
		e.Verdict = b
	case *event.Indicator:
		e.Indicator = b
	case *event.Model:
		e.Model = b
	}
	if err := e.Validate(); err != nil {
		s.t.Error(err)
	}
	s.log = append(s.log, e)
	close(s.more)
	s.more = make(chan struct{})
}

func (s *townSite) Name() string { return s.name }

func (s *townSite) Status(context.Context) (Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Mode: s.mode, Plane: "model", Learning: s.learner, Seen: s.flows, Needed: 700, Judging: s.flows >= 700, Model: "cafe"}
	if s.name == scenario.Alder && s.learner {
		st.Kernel = &Kernel{Mode: "shadow", Verified: 4 * time.Millisecond, FromWord: 3 * time.Second, Scored: 70123, Would: 7}
	}
	for _, o := range s.sites {
		if o != s && !(s.f.alone && (s.name == scenario.Birch || o.name == scenario.Birch)) {
			st.Connected = append(st.Connected, o.name)
		}
	}
	return st, nil
}

// Events breaks off after each hundred events, as a busy stream may.
func (s *townSite) Events(ctx context.Context, since time.Time) (<-chan *event.Event, error) {
	out := make(chan *event.Event)
	go func() {
		defer close(out)
		for i, sent := 0, 0; sent < 100; {
			s.mu.Lock()
			news, more := s.log[i:], s.more
			s.mu.Unlock()
			i += len(news)
			for _, e := range news {
				if e.Time.Before(since) {
					continue
				}
				select {
				case out <- e:
					sent++
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (s *townSite) SetMode(_ context.Context, mode string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
	return nil
}

func (s *townSite) Confirm(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels = append(s.labels, id)
	return nil
}

func (s *townSite) StartRound(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round++
	for _, o := range s.sites {
		m := &event.Model{Hash: "beef", Origin: "round", Round: s.round, State: "active", Why: "no worse here"}
		if s.f.refuses && o.name == scenario.Cedar {
			m.State, m.Why = "refused", "more false alarms here"
		}
		o.taught = m.State == "active"
		o.tell(event.KindModel, m)
	}
	if cedar := s.at(scenario.Cedar); cedar.taught && s.round == 2 {
		cedar.tell(event.KindAlert, &event.Alert{Peer: s.sc.C2[1].String(), Detector: "attack", Sentence: "found in the past"})
	}
	return s.round, nil
}

func TestTheWholeStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, faults{}, true)
		o, out := w.options(scenario.Attacks()...)
		r, err := Tell(t.Context(), o)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(r.Caught) != 5 || len(r.Missed) != 1 || r.Round == nil || r.Round.Rounds != 2 || len(r.Round.Adopted) != 3 || !r.OK {
			t.Errorf("report: %+v", r)
		}
		for _, c := range r.Caught {
			if len(c.Elsewhere) != 2 || c.Elsewhere[sortedOther(c)] != 20*time.Millisecond || c.Blocked != 3*time.Millisecond {
				t.Errorf("times of %s: %+v", c.Attack, c)
			}
			if c.Tried == 0 || c.Through != 0 || c.Flows < 3 || c.FirstDrop == 0 {
				t.Errorf("account of %s: %+v", c.Attack, c)
			}
		}
		if r.Ordinary.Run < 1500 || r.Ordinary.Lost != 0 || r.Took > 150*time.Second {
			t.Errorf("ordinary %+v in %v", r.Ordinary, r.Took)
		}
		if got := len(w.at(scenario.Alder).labels); got != 1 {
			t.Errorf("alder's operator confirmed %d alerts", got)
		}
		for _, want := range []string{"1. three sites", "alert by rule:scan", "enforces what alder told", "70123              7\n", "everything in the story happened"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("narration lacks %q:\n%s", want, out)
			}
		}
	})
}

func sortedOther(c Caught) string { return sorted(c.Elsewhere)[0] }

// Whatever is missing from the story must end it, by name.
func TestEachOmissionIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		f       faults
		learner bool
		attacks []scenario.Attack
		want    string
	}{
		"unconnected": {faults{alone: true}, true, nil, `step "three sites come up`},
		"deaf site":   {faults{deaf: scenario.Birch}, true, scenario.Attacks(), "enforced at birch: did not happen within"},
		"leaky site":  {faults{leaky: scenario.Birch}, true, scenario.Attacks(), "got through at sites that had the block"},
		"lost work":   {faults{loses: true}, true, nil, "1 of "},
		"accusation":  {faults{accuses: true}, true, nil, "against ordinary traffic"},
		"sharp cedar": {faults{sharpCedar: true}, true, scenario.Attacks(), "expected to go unseen, but self raised an alert"},
		"refusal":     {faults{refuses: true}, true, scenario.Attacks(), "cedar refused the models of 7 rounds: more false alarms here"},
		"blunt":       {faults{blunt: true}, true, scenario.Attacks(), `step "a spurt of encrypted traffic at birch": spurt at birch from`},
		"paranoid":    {faults{paranoid: true}, false, scenario.Attacks(), `step "a beacon at alder goes unseen"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t, c.f, c.learner)
				o, out := w.options(c.attacks...)
				r, err := Tell(t.Context(), o)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v: expected %q\n%s", err, c.want, out)
				}
				if r.OK || r.Failed == "" || r.Steps[len(r.Steps)-1].OK {
					t.Errorf("report calls it a success: %+v", r)
				}
			})
		})
	}
}

func TestWithoutLearnerOrAttack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, faults{}, false)
		o, out := w.options(scenario.Attacks()...)
		r, err := Tell(t.Context(), o)
		if err != nil || len(r.Caught) != 2 || len(r.Missed) != 2 {
			t.Errorf("learner off: %v: %+v\n%s", err, r, out)
		}
		w = newTown(t, faults{}, true)
		o, out = w.options()
		o.JSON = true
		r, err = Tell(t.Context(), o)
		if err != nil || len(r.Caught)+len(r.Missed) != 0 || r.Took < time.Minute {
			t.Errorf("no attack: %v: %+v\n%s", err, r, out)
		}
		var back Report
		if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back.Ordinary.Run != r.Ordinary.Run || !back.OK {
			t.Errorf("report as JSON: %v\n%s", err, out)
		}
	})
}

func TestInterruptEndsTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, faults{}, true)
		o, _ := w.options(scenario.Attacks()...)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		r, err := Tell(ctx, o)
		if err == nil || r.OK || time.Since(began) > 11*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if r.Ordinary.Lost != 0 {
			t.Errorf("sessions cut off by the end count as lost: %+v", r.Ordinary)
		}
	})
}

func TestAddressesInTargets(t *testing.T) {
	a, b := netip.MustParseAddr("198.18.3.4"), netip.MustParseAddr("10.0.0.1")
	for target, want := range map[string][2]bool{
		"tcp 10.0.0.1:4000<>198.18.3.4:443": {true, true},
		"198.18.3.4:443/tcp":                {true, false},
		"198.18.3.4 tcp/443":                {true, false},
		"198.18.3.4":                        {true, false},
		"198.18.3.40":                       {false, false},
		"":                                  {false, false},
	} {
		if names(target, a) != want[0] || names(target, b) != want[1] {
			t.Errorf("%q: %v %v", target, names(target, a), names(target, b))
		}
	}
}
