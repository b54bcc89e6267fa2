package enforce

import (
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

const suspect = "203.0.113.9"

// claimed brings one word of the mesh about the suspect.
func claimed(m *Machine, author string, limit bool, life time.Duration) (string, string) {
	fx, why := m.Indicator(t0, Received{ID: "i", Author: author, Value: suspect, Expires: t0.Add(life), Limit: limit})
	return say(fx), why
}

// stands says what is done about the suspect, and on whose account.
func stands(t *testing.T, m *Machine, action, source string) {
	t.Helper()
	bs := m.Standing()
	if len(bs) != 1 || bs[0].Action != action || bs[0].Source != source {
		t.Fatalf("%+v stands, expected one %s of %s", bs, action, source)
	}
}

// TestTheMeshReplacesNoBlock: no longer word of another organisation, nor its
// withdrawal, ends or weakens what this site decided.
func TestTheMeshReplacesNoBlock(t *testing.T) {
	for _, limit := range []bool{true, false} {
		m := machine(Options{})
		r := dataplane.Rule{Target: mustTarget(t), Action: dataplane.Block, Expires: t0.Add(time.Hour)}
		m.apply(t0, nil, r, Validated, SourceLocal, "ours", 0.9)
		if fx, why := claimed(m, "briar/gate", limit, 3*time.Hour); fx != "" || why == "" {
			t.Errorf("limit %v: led to %q, refused for %q", limit, fx, why)
		}
		stands(t, m, "block", SourceLocal)
		after := m.Tick(t0.Add(time.Hour))
		action := map[bool]string{true: "rate-limit", false: "block"}[limit]
		want(t, after, "remove 203.0.113.9", "block 203.0.113.9 expired", "apply "+action+" 203.0.113.9")
		stands(t, m, action, "mesh:briar/gate")
	}
	m := machine(Options{})
	m.apply(t0, nil, dataplane.Rule{Target: mustTarget(t), Action: dataplane.Block, Expires: t0.Add(time.Hour)}, Validated, SourceLocal, "ours", 0.9)
	claimed(m, "briar/gate", false, 3*time.Hour)
	want(t, m.Withdrawn(t0, "cedar/gate", suspect))
	want(t, m.Tick(t0.Add(time.Hour)), "remove 203.0.113.9", "block 203.0.113.9 expired")
}

func mustTarget(t *testing.T) dataplane.Target {
	t.Helper()
	x, err := ParseTarget(suspect)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestALimitReplacesNoBlockOfOurSites: a site of ours is believed more than too few
// other organisations, and both words are remembered.
func TestALimitReplacesNoBlockOfOurSites(t *testing.T) {
	m := machine(Options{})
	claimed(m, "birch", false, time.Hour)
	if fx, _ := claimed(m, "briar/gate", true, 3*time.Hour); fx != "" {
		t.Fatalf("a limit in place of a block: %s", fx)
	}
	stands(t, m, "block", "mesh:birch")
	want(t, m.Withdrawn(t0, "birch", suspect), "remove 203.0.113.9", "block 203.0.113.9 lifted", "apply rate-limit 203.0.113.9")
	want(t, m.Withdrawn(t0, "cedar/gate", suspect), "remove 203.0.113.9", "block 203.0.113.9 lifted")
}

// TestTheMeshReplacesNoOrder: what the operator ordered stands, whatever it is.
func TestTheMeshReplacesNoOrder(t *testing.T) {
	m := machine(Options{})
	if _, err := m.Order(t0, Order{Target: mustTarget(t), Action: dataplane.RateLimit, For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if fx, why := claimed(m, "birch", false, 3*time.Hour); fx != "" || why == "" {
		t.Errorf("led to %q, refused for %q", fx, why)
	}
	stands(t, m, "rate-limit", SourceOperator)
	if _, err := m.Unblock(t0, mustTarget(t)); err != nil {
		t.Fatal(err)
	}
	if bs := m.Standing(); len(bs) != 0 {
		t.Errorf("%+v stands after the operator lifted it", bs)
	}
}

// TestALimitOfOursReplacesNoBlock: a peer that is blocked on the mesh's word is not
// merely limited because it was met here too.
func TestALimitOfOursReplacesNoBlock(t *testing.T) {
	m := machine(Options{})
	in := &incident{peer: mustTarget(t).Prefix.Addr()}
	if fx := say(m.limit(t0, in)); fx == "" {
		t.Fatal("without the block there was no limit either")
	}
	claimed(m, "birch", false, time.Hour)
	in.limited = false
	want(t, m.limit(t0, in))
	stands(t, m, "block", "mesh:birch")
}

// TestWhatAPersonCallsHarmless is told to who judges the words of other organisations.
func TestWhatAPersonCallsHarmless(t *testing.T) {
	m := machine(Options{})
	claimed(m, "briar/gate", true, time.Hour)
	fx, err := m.Unblock(t0, mustTarget(t))
	if err != nil {
		t.Fatal(err)
	}
	told := fx[len(fx)-1].Innocent
	if told == nil || told.Type != "address" || told.Value != suspect || !told.Until.Equal(t0.Add(dismissal)) {
		t.Errorf("told %+v, expected %s for a day", told, suspect)
	}
}
