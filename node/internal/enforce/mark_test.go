package enforce

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

func sensor(t *testing.T) *Sensor {
	t.Helper()
	s, err := NewSensor(feature.ContextOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func around(n int, middle float32) []feature.Vector {
	rng := rand.New(rand.NewPCG(uint64(n), 3))
	out := make([]feature.Vector, n)
	for i := range out {
		out[i].Has = feature.All()
		for k := range out[i].X {
			out[i].X[k] = middle + 0.05*(rng.Float32()-0.5)
		}
	}
	return out
}

const print4 = "t13d1516h2_8daaf6152771_b186095e22b6"

func printed(value string, at time.Time) *flow.Record {
	return &flow.Record{Last: at.UnixNano(), Hello: &flow.Hello{JA4: value, Print: flow.PrintOf(value)}}
}

// A shared fingerprint makes flows suspect that bear it and are unusual here, with
// a reason; where ordinary flows bear it, it soon says nothing.
func TestASharedFingerprintIsAMark(t *testing.T) {
	s := sensor(t)
	if why := s.Mark(t0, Received{Type: typeFingerprint, Value: print4, Author: "birch", Sentence: "a dropper", Expires: t0.Add(time.Hour)}); why != "" {
		t.Fatal(why)
	}
	v := &around(1, 0.2)[0]
	rec := printed(print4, t0)
	m := s.marked(rec, v, false)
	if m == nil || !strings.Contains(m.reason().Words, "birch warns of, "+print4+": a dropper") {
		t.Fatalf("a client that bears it: %+v", m)
	}
	for what, r := range map[string]*flow.Record{
		"another print": printed("t12d1516h2_8daaf6152771_b186095e22b6", t0), "no hello": {Last: t0.UnixNano()}, "after its time": printed(print4, t0.Add(time.Hour)),
	} {
		if s.marked(r, v, false) != nil {
			t.Errorf("%s is marked", what)
		}
	}
	for range mostCommon {
		if s.marked(rec, v, true) != nil {
			t.Fatal("a usual flow is marked")
		}
	}
	if s.marked(rec, v, false) != nil {
		t.Error("a mark that ordinary flows bear still speaks")
	}
	if why := s.Mark(t0, Received{Type: typeFingerprint, Value: print4, Author: "birch", Expires: t0.Add(2 * time.Hour)}); why != "" || s.Marked() != 1 {
		t.Errorf("a refresh: %q, %d marks", why, s.Marked())
	}
	if s.marked(rec, v, false) != nil {
		t.Error("a refresh makes it speak again")
	}
	s.Unmark("cedar", print4)
	if s.Marked() != 1 {
		t.Error("somebody else took it back")
	}
	s.Unmark("birch", print4)
	if s.Marked() != 0 {
		t.Error("it outlives its author's word")
	}
}

func TestASharedBehaviourIsAMark(t *testing.T) {
	s := sensor(t)
	s.Recalibrate(around(100, 0.2))
	evil, err := learner.NewRegion(around(10, 0.7))
	if err != nil {
		t.Fatal(err)
	}
	normal, err := learner.NewRegion(around(10, 0.2))
	if err != nil {
		t.Fatal(err)
	}
	mark := func(value string) string {
		return s.Mark(t0, Received{Type: typeBehaviour, Value: value, Author: "org1/gate", Expires: t0.Add(time.Hour)})
	}
	if why := mark(evil.String()); why != "" {
		t.Fatal(why)
	}
	if why := mark(normal.String()); !strings.Contains(why, "100.0 % of what is normal here") {
		t.Errorf("one that covers what is normal here: %q", why)
	}
	if why := mark("features-1:AAEC"); !strings.Contains(why, "schema") {
		t.Errorf("another schema: %q", why)
	}
	rec := &flow.Record{Last: t0.UnixNano()}
	if m := s.marked(rec, &around(1, 0.7)[0], false); m == nil || !strings.Contains(m.reason().Words, "org1/gate confirmed") {
		t.Errorf("a flow like it: %+v", m)
	}
	if s.marked(rec, &around(1, 0.2)[0], false) != nil {
		t.Error("another flow is marked")
	}
	s.Unmark("org2/gate", evil.String()) // organisations speak together
	if s.Marked() != 0 {
		t.Error("it outlives the organisations' word")
	}
}

func TestMarksAreBounded(t *testing.T) {
	s := sensor(t)
	r := Received{Type: typeFingerprint, Author: "birch", Expires: t0.Add(time.Hour)}
	for i := range maxMarks {
		r.Value = fmt.Sprintf("t13d1516h2_8daaf6152771_%012x", i)
		if why := s.Mark(t0, r); why != "" {
			t.Fatal(why)
		}
	}
	r.Value = print4
	if why := s.Mark(t0, r); !strings.Contains(why, "already") || s.Marked() != maxMarks {
		t.Errorf("one too many: %q", why)
	}
	r.Expires = t0.Add(3 * time.Hour)
	if why := s.Mark(t0.Add(2*time.Hour), r); why != "" || s.Marked() != maxMarks {
		t.Errorf("after the others' time: %q", why)
	}
	r.Limit = true
	if why := s.Mark(t0, r); !strings.Contains(why, "rung") {
		t.Errorf("on too few words: %q", why)
	}
}

// Domains by others' word: within their own room, never in place of the operator's,
// not during a panic, and gone with the author's word.
func TestDomainsOfOthers(t *testing.T) {
	m := machine(Options{})
	said := func(name, author string) string {
		_, why := m.Indicator(t0, Received{Type: typeDomain, Value: name, Author: author, Expires: t0.Add(time.Hour), Sentence: "why"})
		return why
	}
	if why := said("evil.example", "org1/gate"); why != "" || m.Domains() != 1 {
		t.Fatalf("%q, %d domains", why, m.Domains())
	}
	if fx := m.Resolved(t0, laptop, told(time.Minute, "evil.example", "203.0.113.9")); len(fx) == 0 || fx[0].Apply.Block.Block.Source != "mesh:org1/gate" {
		t.Errorf("a host asked: %+v", fx)
	}
	m.Panic(t0, true)
	if fx := m.Resolved(t0, laptop, told(time.Minute, "evil.example", "203.0.113.10")); len(fx) != 0 || len(m.Rules()) != 0 {
		t.Errorf("in a panic: %+v, %v", fx, m.Rules())
	}
	m.Panic(t0, false)
	if fx := m.Withdrawn(t0, "cedar", "evil.example"); len(fx) != 0 || m.Domains() != 1 {
		t.Errorf("a site of ours took back what others said: %+v", fx)
	}
	if m.Withdrawn(t0, "org2/gate", "evil.example"); m.Domains() != 0 {
		t.Error("it outlives the organisations' word")
	}
	if _, err := m.BlockDomain(t0, "evil.example", time.Hour, "mine"); err != nil {
		t.Fatal(err)
	}
	if why := said("evil.example", "org1/gate"); !strings.Contains(why, "operator") {
		t.Errorf("over the operator's: %q", why)
	}
	if m.Withdrawn(t0, "org1/gate", "evil.example"); m.Domains() != 1 {
		t.Error("the operator's domain went with another's word")
	}
	if _, why := m.Indicator(t0, Received{Type: typeDomain, Value: "other.example", Author: "org1/gate", Expires: t0.Add(time.Hour), Limit: true}); !strings.Contains(why, "rung") {
		t.Errorf("on too few words: %q", why)
	}
	for i := range maxShared {
		if why := said(fmt.Sprintf("d%d.example", i), "org1/gate"); why != "" {
			t.Fatal(why)
		}
	}
	if why := said("late.example", "org1/gate"); !strings.Contains(why, "already") {
		t.Errorf("one too many: %q", why)
	}
	if _, err := m.BlockDomain(t0, "late.example", time.Hour, "mine"); err != nil {
		t.Errorf("the operator's own finds no room: %v", err)
	}
}
