package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func options() lifecycle.Options {
	return lifecycle.Options{Shadow: time.Minute, Canary: time.Minute, Reports: 100, Watch: time.Hour, Look: time.Minute, MinNormals: 50}
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

func proposal(n int, origin string) lifecycle.Proposal {
	return lifecycle.Proposal{ID: id(n), Origin: origin, Data: lifecycle.Window{Until: start, Normals: 500, Attacks: 4}}
}

// site drives a machine as a node does: it answers each examination at once
// with what counts says of the model.
type site struct {
	t      *testing.T
	m      *lifecycle.Machine
	now    time.Time
	counts map[string]lifecycle.Count
	roles  lifecycle.Roles
	told   []lifecycle.Model
	asked  []lifecycle.Examine
	again  []string // why a new model is wanted
}

func newSite(t *testing.T) *site {
	return &site{t: t, m: lifecycle.New(options()), now: start, counts: map[string]lifecycle.Count{}}
}

func (s *site) count(id string) *lifecycle.Count {
	if id == "" {
		return nil
	}
	c, ok := s.counts[id]
	if !ok {
		c = lifecycle.Count{Alarms: 5, Known: 1, Detected: 40}
	}
	return &c
}

func (s *site) do(fx []lifecycle.Effect, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	for len(fx) > 0 {
		f := fx[0]
		fx = fx[1:]
		switch {
		case f.Examine != nil:
			s.asked = append(s.asked, *f.Examine)
			more, err := s.m.Examined(s.now, f.Examine.ID, lifecycle.Trial{
				Normals: 2000, Causes: 500, KnownSet: 200, AttackSet: 50,
				Own: *s.count(f.Examine.ID), Alone: s.count(f.Examine.Alone), Base: s.count(f.Examine.Base), Incumbent: s.count(f.Examine.Incumbent),
			})
			if err != nil {
				s.t.Fatal(err)
			}
			fx = append(fx, more...)
		case f.Roles != nil:
			s.roles = *f.Roles
		case f.Tell != nil:
			s.told = append(s.told, *f.Tell)
		case f.Retrain != "":
			s.again = append(s.again, f.Retrain)
		}
	}
}

// pass lets a stage go by with quiet traffic.
func (s *site) pass(id string) {
	s.t.Helper()
	s.now = s.now.Add(2 * time.Minute)
	s.do(s.m.Watched(s.now, id, lifecycle.Live{Reports: 500, Causes: 80}))
}

func (s *site) propose(n int, origin string) {
	s.t.Helper()
	s.do(s.m.Propose(s.now, proposal(n, origin)))
}

func (s *site) last(id string) lifecycle.Step {
	s.t.Helper()
	x, err := s.m.Model(id)
	if err != nil {
		s.t.Fatal(err)
	}
	return x.History[len(x.History)-1]
}

// promoted brings a model to active through all stages.
func (s *site) promoted(n int, origin string) {
	s.t.Helper()
	s.propose(n, origin)
	if s.roles.Active == "" || s.roles.Active == id(n) {
		return
	}
	s.pass(id(n))
	s.pass(id(n))
	if s.roles.Active != id(n) {
		s.t.Fatalf("active is %.12s: expected %.12s: %s", s.roles.Active, id(n), s.last(id(n)).Why)
	}
}

func TestStagesInOrder(t *testing.T) {
	s := newSite(t)
	s.propose(1, lifecycle.Local)
	if s.roles.Active != id(1) || s.roles.Champion != id(1) {
		t.Fatalf("a first model that passes judges at once: %+v", s.roles)
	}
	p := proposal(2, lifecycle.Round)
	p.Base, p.Data.Until = id(1), start.Add(time.Minute)
	s.do(s.m.Propose(s.now, p))
	if s.roles.Shadow != id(2) || s.roles.Active != id(1) {
		t.Fatalf("%+v", s.roles)
	}
	if e := s.asked[len(s.asked)-1]; e.Alone != id(1) || e.Incumbent != id(1) || !e.Since.Equal(p.Data.Until) {
		t.Errorf("examined %+v: expected against the champion and the active model, on what is later than its window", e)
	}
	s.pass(id(2))
	if s.roles.Canary != id(2) || s.roles.Share != 0.1 || s.roles.Active != id(1) {
		t.Fatalf("%+v", s.roles)
	}
	s.pass(id(2))
	if s.roles.Active != id(2) || s.roles.Champion != id(1) || s.roles.Fallback != id(1) {
		t.Fatalf("%+v", s.roles)
	}
	x, _ := s.m.Model(id(2))
	var stages []string
	for _, h := range x.History {
		stages = append(stages, string(h.To))
		if h.Why == "" || h.By != lifecycle.ByGate {
			t.Errorf("%+v: expected a reason, by the gate", h)
		}
	}
	if got := strings.Join(stages, " "); got != "candidate shadow canary active" {
		t.Errorf("stages %s", got)
	}
	if old, _ := s.m.Model(id(1)); old.Stage != lifecycle.Retired || old.End != lifecycle.Superseded {
		t.Errorf("%+v", old)
	}
	s.now = s.now.Add(2 * time.Hour)
	s.do(s.m.Tick(s.now), nil)
	if s.roles.Fallback != "" {
		t.Error("it is no longer new, and still watched")
	}
}

func TestGateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		c    lifecycle.Count
		want string
	}{
		"false alarms":   {lifecycle.Count{Alarms: 11, Known: 1, Detected: 40}, "false alarms 5 -> 11 of 500 causes"},
		"misses attacks": {lifecycle.Count{Alarms: 5, Known: 1, Detected: 37}, "own attacks detected 40 -> 37 of 50"},
		"known normal":   {lifecycle.Count{Alarms: 5, Known: 9, Detected: 40}, "known-normal canaries 1 -> 9 of 200"},
		"cannot alarm":   {lifecycle.Count{Alarms: 0, Known: 0, Detected: 40, Floor: 0.01}, "no p-value under"},
		"errors":         {lifecycle.Count{Alarms: 5, Known: 1, Detected: 40, Errors: 1}, "no p-values"},
	} {
		s := newSite(t)
		s.promoted(1, lifecycle.Local)
		s.counts[id(2)] = tc.c
		s.propose(2, lifecycle.Round)
		x, _ := s.m.Model(id(2))
		if x.End != lifecycle.Refused || !strings.Contains(s.last(id(2)).Why, tc.want) {
			t.Errorf("%s: %s %s: %q: expected %q", name, x.Stage, x.End, s.last(id(2)).Why, tc.want)
		}
		if _, err := s.m.Promote(s.now, id(2), ""); !errors.Is(err, lifecycle.ErrRefused) {
			t.Errorf("%s: a refused model was promoted by hand: %v", name, err)
		}
	}
}

func TestFewReportsDecideNothing(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	fx, err := s.m.Propose(s.now, proposal(2, lifecycle.Round))
	if err != nil || fx[len(fx)-1].Examine == nil {
		t.Fatalf("%+v %v", fx, err)
	}
	c := lifecycle.Count{}
	fx, err = s.m.Examined(s.now, id(2), lifecycle.Trial{Normals: 20, Causes: 10, Alone: &c, Incumbent: &c})
	if err != nil || fx[0].Tell.End != lifecycle.Refused || !strings.Contains(fx[0].Tell.History[1].Why, "only 20 later reports") {
		t.Errorf("%+v %v", fx, err)
	}
}

// A small site may have no host in a canary: after four lengths it goes on. A
// shadow that nobody's traffic judged is refused instead.
func TestSilentStages(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	s.propose(2, lifecycle.Local)
	s.pass(id(2))
	s.now = s.now.Add(3 * time.Minute)
	s.do(s.m.Tick(s.now), nil)
	if s.roles.Canary != id(2) {
		t.Fatalf("%+v", s.roles)
	}
	s.now = s.now.Add(90 * time.Second)
	s.do(s.m.Tick(s.now), nil)
	if s.roles.Active != id(2) {
		t.Errorf("%+v: expected a canary without hosts to go on", s.roles)
	}
	s.propose(3, lifecycle.Local)
	s.now = s.now.Add(25 * time.Hour)
	s.do(s.m.Tick(s.now), nil)
	if x, _ := s.m.Model(id(3)); x.End != lifecycle.Refused || !strings.Contains(s.last(id(3)).Why, "only 0 reports") {
		t.Errorf("%s %s: %s", x.Stage, x.End, s.last(id(3)).Why)
	}
}

// What is measured live, beside the active model, refuses a shadow, and the
// same numbers by chance do not.
func TestLiveTrafficRefuses(t *testing.T) {
	for only, refused := range map[int]bool{3: false, 40: true} {
		s := newSite(t)
		s.promoted(1, lifecycle.Local)
		s.propose(2, lifecycle.Local)
		s.do(s.m.Watched(s.now, id(2), lifecycle.Live{Reports: 900, Causes: 300, Only: only, Other: 2}))
		if x, _ := s.m.Model(id(2)); (x.End == lifecycle.Refused) != refused {
			t.Errorf("alone on %d causes: %s %s", only, x.Stage, x.End)
		}
	}
}

func TestActiveModelGoesBack(t *testing.T) {
	bad := map[string]func(*site){
		"alarms": func(s *site) {
			s.do(s.m.Watched(s.now, id(2), lifecycle.Live{Reports: 900, Causes: 300, Only: 40}))
		},
		"errors": func(s *site) {
			s.do(s.m.Watched(s.now, id(2), lifecycle.Live{Reports: 900, Errors: 3}))
		},
		"misses canaries": func(s *site) {
			s.counts[id(2)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 30}
			s.now = s.now.Add(2 * time.Minute)
			s.do(s.m.Tick(s.now), nil)
		},
		"over budget": func(s *site) { s.do(s.m.Over(s.now, id(2), "9 false incidents in a day")) },
		"lost":        func(s *site) { s.do(s.m.Lost(s.now, id(2))) },
		"operator":    func(s *site) { s.do(s.m.Rollback(s.now, "too loud")) },
	}
	for name, misbehave := range bad {
		s := newSite(t)
		s.promoted(1, lifecycle.Local)
		s.promoted(2, lifecycle.Local)
		s.propose(3, lifecycle.Local)
		misbehave(s)
		if s.roles.Active != id(1) || s.roles.Champion != id(1) {
			t.Errorf("%s: %+v: expected the first model back", name, s.roles)
		}
		if x, _ := s.m.Model(id(2)); x.End != lifecycle.RolledBack || len(s.again) != 1 {
			t.Errorf("%s: %s %s, retrain %q", name, x.Stage, x.End, s.again)
		}
		if s.roles.Shadow != "" {
			t.Errorf("%s: who was compared with it is still on trial", name)
		}
		s.do(s.m.Rollback(s.now, ""))
		if s.roles.Active != "" {
			t.Errorf("%s: expected nobody after the second rollback", name)
		}
		if _, err := s.m.Rollback(s.now, ""); !errors.Is(err, lifecycle.ErrRefused) {
			t.Errorf("%s: nothing to roll back: %v", name, err)
		}
	}
}

// A series of models each a little worse does not creep past the allowance.
func TestAllowanceIsNotRatcheted(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	worse, active := 0, id(1)
	for n := 2; n < 12; n++ {
		s.counts[active] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 40}
		s.counts[id(n)] = lifecycle.Count{Alarms: 8, Known: 1, Detected: 40} // each 3 of 500 worse
		s.propose(n, lifecycle.Local)
		s.pass(id(n))
		s.pass(id(n))
		if s.roles.Active == id(n) {
			worse, active = worse+1, id(n)
		}
	}
	if worse == 0 || worse > 2 {
		t.Errorf("%d promotions of models that are each 0.6 %% worse: expected 1 or 2 within an allowance of 1 %%", worse)
	}
	s.counts[active] = lifecycle.Count{Alarms: 15, Known: 1, Detected: 40}
	s.counts[id(20)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 40}
	s.propose(20, lifecycle.Local)
	s.pass(id(20))
	s.pass(id(20))
	if s.roles.Active != id(20) || s.m.Spent().FalseAlarms != 0 {
		t.Errorf("an improvement pays back: %+v", s.m.Spent())
	}
}

func TestOneWaitsForEachOrigin(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	s.propose(2, lifecycle.Local) // on trial
	s.propose(3, lifecycle.Round)
	s.propose(4, lifecycle.Local)
	s.propose(5, lifecycle.Round)
	if x, _ := s.m.Model(id(3)); x.End != lifecycle.Superseded {
		t.Errorf("an older round's model still waits: %+v", x.Stage)
	}
	s.pass(id(2))
	s.pass(id(2))
	if s.roles.Active != id(2) || s.roles.Shadow != id(4) {
		t.Errorf("%+v: expected the longest waiting next", s.roles)
	}
	if _, err := s.m.Propose(s.now, proposal(4, lifecycle.Local)); !errors.Is(err, lifecycle.ErrRefused) {
		t.Errorf("a known model again: %v", err)
	}
}

func TestCanaryIsAShareAndOthersEachTime(t *testing.T) {
	k := lifecycle.HostKey{1, 2, 3}
	n, both := 0, 0
	for i := range 20000 {
		host := [16]byte{14: byte(i >> 8), 15: byte(i)}
		a, b := k.Canary(id(1), host, 0.1), k.Canary(id(2), host, 0.1)
		if a {
			n++
		}
		if a && b {
			both++
		}
	}
	if n < 1850 || n > 2150 || both < 130 || both > 270 {
		t.Errorf("%d of 20000 hosts, %d also for another model: expected about 2000 and 200", n, both)
	}
	if k.Canary(id(1), [16]byte{}, 0) || !k.Canary(id(1), [16]byte{}, 1) {
		t.Error("share 0 has a host, or share 1 lacks one")
	}
	name := id(1)
	if a := testing.AllocsPerRun(100, func() { k.Canary(name, [16]byte{1}, 0.5) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// law holds a machine to what its package promises, by what was seen from
// outside alone.
type law struct {
	t      *testing.T
	passed map[string]bool // by the test's own account of the gate
}

func (l *law) check(m *lifecycle.Machine, store bool, what string) {
	l.t.Helper()
	r, active := m.Roles(), ""
	for _, x := range m.Models() {
		if x.Stage != lifecycle.Active {
			continue
		}
		if active != "" {
			l.t.Fatalf("%s: two active models", what)
		}
		active = x.ID
		if !l.passed[x.ID] {
			l.t.Fatalf("%s: %.12s is active, and never passed the gate", what, x.ID)
		}
	}
	if r.Active != active || r.Active != "" && (r.Active == r.Shadow || r.Active == r.Canary || r.Active == r.Fallback) {
		l.t.Fatalf("%s: roles %+v, active is %q", what, r, active)
	}
	if r.Active == "" && r.Canary != "" {
		l.t.Fatalf("%s: a canary without an active model", what)
	}
	if !store {
		return
	}
	b, err := m.Encode()
	if err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
	twin, err := lifecycle.Decode(b, m.Options())
	if err != nil {
		l.t.Fatalf("%s: its own state is refused: %v", what, err)
	}
	again, err := twin.Encode()
	if err != nil || !bytes.Equal(b, again) || twin.Roles() != r {
		l.t.Fatalf("%s: a state changes by being stored (%v)", what, err)
	}
	if active != "" {
		if _, err := twin.Rollback(start, ""); err != nil {
			l.t.Fatalf("%s: no rollback: %v", what, err)
		}
		if twin.Roles().Active == active {
			l.t.Fatalf("%s: rollback changed nothing", what)
		}
	}
}

// gate is a slow and plain twin of the examination, without allowances spent:
// what it refuses must never become active.
func gate(t *lifecycle.Trial) bool {
	ok := func(ref *lifecycle.Count) bool {
		return t.Normals >= 50 && t.Own.Alarms-ref.Alarms <= max(2, t.Causes/100) && t.Own.Known-ref.Known <= max(2, t.KnownSet/100) &&
			ref.Detected-t.Own.Detected <= t.AttackSet/20
	}
	if t.Own.Errors > 0 || t.Own.Floor >= 0.001 {
		return false
	}
	if t.Alone == nil && t.Incumbent == nil {
		return t.Own.Alarms <= max(2, t.Causes/10) && t.Own.Known <= max(2, t.KnownSet/10)
	}
	return (t.Alone == nil || ok(t.Alone)) && (t.Incumbent == nil || ok(t.Incumbent))
}

// schedule is one random life of a machine.
type schedule struct {
	*law
	rng  *rand.Rand
	o    lifecycle.Options
	m    *lifecycle.Machine
	now  time.Time
	open []lifecycle.Examine // asked and not answered
	n    int                 // models proposed

	reached      map[lifecycle.Stage]int
	rolled, gone int
}

func (s *schedule) anyID() string { return id(s.rng.IntN(s.n + 2)) }

func (s *schedule) count() lifecycle.Count {
	c := lifecycle.Count{Alarms: s.rng.IntN(7), Known: s.rng.IntN(3), Detected: 35 + s.rng.IntN(4)}
	if s.rng.IntN(30) == 0 {
		c.Errors = 1
	}
	return c
}

func (s *schedule) trial(e lifecycle.Examine) lifecycle.Trial {
	x := lifecycle.Trial{Normals: 40 + s.rng.IntN(2000), Causes: 500, KnownSet: 100, AttackSet: 50, Own: s.count()}
	if c := s.count(); e.Alone != "" {
		x.Alone = &c
	}
	if c := s.count(); e.Incumbent != "" {
		x.Incumbent = &c
	}
	return x
}

func (s *schedule) take(fx []lifecycle.Effect, _ error) {
	for _, f := range fx {
		switch {
		case f.Examine != nil:
			s.open = append(s.open, *f.Examine)
		case f.Tell != nil:
			s.reached[f.Tell.Stage]++
			if f.Tell.End == lifecycle.RolledBack {
				s.rolled++
			}
		case f.Forget != "":
			s.gone++
			s.unneeded(f.Forget)
		}
	}
}

// unneeded wants a model that is forgotten to be inside of none that judges or may
// come to: it would be missed as what the mesh's models must not be worse than.
func (s *schedule) unneeded(id string) {
	s.t.Helper()
	b, err := s.m.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	var st struct {
		Champion  string   `json:"champion"`
		Fallbacks []string `json:"fallbacks"`
	}
	if err := json.Unmarshal(b, &st); err != nil {
		s.t.Fatal(err)
	}
	for _, x := range s.m.Models() {
		if x.Base == id && (x.Stage != lifecycle.Retired || slices.Contains(st.Fallbacks, x.ID)) {
			s.t.Fatalf("%.12s was forgotten, and is the base of %.12s, which is %s", id, x.ID, x.Stage)
		}
	}
	if st.Champion == id {
		s.t.Fatalf("%.12s was forgotten, and is the champion", id)
	}
}

// step sends one random message and says which.
func (s *schedule) step() string {
	switch k := s.rng.IntN(20); {
	case k < 2:
		s.propose()
		return "propose"
	case k < 8:
		s.examined()
		return "examined"
	case k < 12:
		x := s.trial(lifecycle.Examine{})
		x.Own.Alarms = -1 - s.rng.IntN(5)
		if _, err := s.m.Examined(s.now, s.anyID(), x); err == nil {
			s.t.Fatal("negative counts are taken")
		}
		return "negative"
	case k < 15:
		s.watched()
		return "watched"
	case k < 16:
		s.take(s.m.Promote(s.now, s.anyID(), "by hand"))
		return "promote"
	case k < 17:
		s.rollback()
		return "rollback"
	case k < 19:
		s.now = s.now.Add(time.Duration(s.rng.IntN(200)) * time.Second)
		if s.rng.IntN(15) == 0 {
			s.now = s.now.Add(time.Duration(s.rng.IntN(100)-50) * time.Hour)
		}
		s.take(s.m.Tick(s.now), nil)
		return "tick"
	}
	s.crash()
	return "crash"
}

func (s *schedule) propose() {
	s.n++
	p := proposal(s.n, []string{lifecycle.Local, lifecycle.Round}[s.rng.IntN(2)])
	if s.rng.IntN(3) == 0 {
		p.Base = s.anyID()
	}
	s.take(s.m.Propose(s.now, p))
}

// examined answers a question, and now and then one that was not asked.
func (s *schedule) examined() {
	e := lifecycle.Examine{ID: s.anyID()}
	if len(s.open) > 0 && s.rng.IntN(6) > 0 {
		i := s.rng.IntN(len(s.open))
		e = s.open[i]
		s.open = append(s.open[:i], s.open[i+1:]...)
	}
	x := s.trial(e)
	before, _ := s.m.Model(e.ID)
	fx, err := s.m.Examined(s.now, e.ID, x)
	if err == nil && gate(&x) && before.Stage == lifecycle.Candidate {
		s.passed[e.ID] = true
	}
	s.take(fx, err)
}

func (s *schedule) watched() {
	d := lifecycle.Live{Reports: s.rng.IntN(400), Causes: s.rng.IntN(60), Only: s.rng.IntN(4), Other: s.rng.IntN(4)}
	if s.rng.IntN(20) == 0 {
		d.Only, d.Errors = 50, s.rng.IntN(2)*5
	}
	who := s.anyID()
	if r := s.m.Roles(); s.rng.IntN(4) > 0 {
		who = []string{r.Active, r.Shadow, r.Canary}[s.rng.IntN(3)]
	}
	s.take(s.m.Watched(s.now, who, d))
}

func (s *schedule) rollback() {
	switch s.rng.IntN(3) {
	case 0:
		s.take(s.m.Rollback(s.now, "by hand"))
	case 1:
		s.take(s.m.Over(s.now, s.m.Roles().Active, "too many"))
	default:
		if who := s.anyID(); s.rng.IntN(3) == 0 {
			s.take(s.m.Lost(s.now, who))
		}
	}
}

// crash forgets what was asked, and nothing else.
func (s *schedule) crash() {
	b, err := s.m.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.m, err = lifecycle.Decode(b, s.o); err != nil {
		s.t.Fatal(err)
	}
}

// TestAdversarialSchedules drives machines by random messages in random order,
// with false and late answers, a clock that jumps, crashes between any two, and
// wants the promises to hold after each.
func TestAdversarialSchedules(t *testing.T) {
	runs := 150
	if testing.Short() {
		runs = 30
	}
	reached := map[lifecycle.Stage]int{}
	var rolled, gone int
	for seed := range runs {
		o := options()
		o.MaxModels = 12
		s := &schedule{
			law: &law{t, map[string]bool{}}, rng: rand.New(rand.NewPCG(uint64(seed), 99)), o: o, m: lifecycle.New(o), now: start, reached: reached,
		}
		for step := range 200 {
			what := s.step()
			s.check(s.m, step%8 == 0, fmt.Sprintf("seed %d step %d %s", seed, step, what))
		}
		rolled, gone = rolled+s.rolled, gone+s.gone
	}
	t.Logf("stages reached %v, %d rollbacks, %d forgotten", reached, rolled, gone)
	for _, s := range []lifecycle.Stage{lifecycle.Candidate, lifecycle.Shadow, lifecycle.Canary, lifecycle.Active, lifecycle.Retired} {
		if reached[s] < runs/2 {
			t.Errorf("stage %s was reached %d times in %d runs: the schedules test little", s, reached[s], runs)
		}
	}
	if rolled < runs/2 {
		t.Errorf("%d rollbacks in %d runs", rolled, runs)
	}
}

// stored is a state with something in every role.
func stored(t testing.TB) []byte {
	t.Helper()
	s := &site{t: &testing.T{}, m: lifecycle.New(options()), now: start, counts: map[string]lifecycle.Count{}}
	s.promoted(1, lifecycle.Local)
	s.promoted(2, lifecycle.Round)
	s.propose(3, lifecycle.Local)
	s.propose(4, lifecycle.Local)
	s.propose(5, lifecycle.Round)
	b, err := s.m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHostileStateIsRefused(t *testing.T) {
	good := string(stored(t))
	if _, err := lifecycle.Decode([]byte(good), options()); err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the state: %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, tc := range map[string]struct{ in, want string }{
		"nothing":         {"", "EOF"},
		"no state":        {"[]", "cannot unmarshal"},
		"cut":             {good[:len(good)/2], "unexpected"},
		"more":            {good + "{}", "something follows"},
		"unknown key":     {swap(`"v":1`, `"v":1,"root":true`), "unknown field"},
		"version":         {swap(`"v":1`, `"v":2`), "v: 2: expected 1"},
		"two actives":     {swap(`"stage":"shadow"`, `"stage":"active"`), "expected"},
		"ungated active":  {swap(`"active":"`+id(2), `"active":"`+id(5)), "active: "},
		"unknown active":  {swap(`"active":"`+id(2), `"active":"`+id(77)), "active: "},
		"bad stage":       {swap(`"stage":"shadow"`, `"stage":"king"`), `stage "king": expected`},
		"id":              {swap(`"id":"`+id(1), `"id":"../../etc`), "lower-case hex"},
		"spent":           {swap(`"false_alarms":0`, `"false_alarms":-1`), "spent"},
		"false fallback":  {swap(`"fallbacks":[`, `"fallbacks":["`+id(5)+`",`), "fallbacks: "},
		"negative counts": {swap(`"normals":2000`, `"normals":-2`), "counts"},
		"champion":        {swap(`"champion":"`+id(2), `"champion":"`+id(1)), "champion: "},
	} {
		_, err := lifecycle.Decode([]byte(tc.in), options())
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "decode life cycle: ") {
			t.Errorf("%s: %v: expected an error with %q", name, err, tc.want)
		}
	}
	if _, err := lifecycle.Decode(make([]byte, lifecycle.MaxEncoded+1), options()); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too large: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	good := stored(f)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte(`{"v":1,"models":[]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := lifecycle.Decode(in, options())
		if err != nil {
			return
		}
		// Whatever was let in, the machine runs on and keeps its promises.
		now := start
		for range 4 {
			now = now.Add(48 * time.Hour)
			for _, e := range m.Tick(now) {
				if e.Examine != nil {
					c := lifecycle.Count{}
					_, _ = m.Examined(now, e.Examine.ID, lifecycle.Trial{Normals: 100, Own: c, Alone: &c, Incumbent: &c})
				}
			}
		}
		active := 0
		for _, x := range m.Models() {
			if x.Stage == lifecycle.Active {
				active++
				if !x.Gated {
					t.Error("an ungated model is active")
				}
			}
		}
		if active > 1 {
			t.Errorf("%d models are active", active)
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lifecycle.Decode(b, options()); err != nil {
			t.Errorf("its own state is refused: %v", err)
		}
	})
}
