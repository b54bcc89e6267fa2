package enforce

import (
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// dispute is what effects say to the mesh for somebody, nil for nothing.
func dispute(fx []Effect) *Share {
	for _, f := range fx {
		if f.Share != nil && f.Share.Dispute {
			return f.Share
		}
	}
	return nil
}

// TestOnlyEvidenceDisputes: an operator's word that a blocked party is harmless goes to
// other sites if this one has dealt well with it before, and stays here otherwise.
func TestOnlyEvidenceDisputes(t *testing.T) {
	for _, dealt := range []bool{false, true} {
		m := machine(Options{})
		at := t0
		if dealt {
			at, _ = deal(m, t0)
		}
		claimed(m, "briar/gate", false, time.Hour)
		fx, err := m.Unblock(at, mustTarget(t))
		if err != nil {
			t.Fatal(err)
		}
		s := dispute(fx)
		if (s != nil) != dealt {
			t.Fatalf("dealt %v: %+v", dealt, s)
		}
		if s != nil && (s.Evidence != Validated || s.Value != suspect || s.Key != "dispute "+suspect || s.Incident == "" || !s.Expires.Equal(at.Add(dismissal))) {
			t.Errorf("%+v", s)
		}
	}
}

// TestAServiceVouchesForItsAddress: our hosts' dealings with a server are dealings with
// its address, but not with another service of it.
func TestAServiceVouchesForItsAddress(t *testing.T) {
	m := machine(Options{})
	at, _ := deal(m, t0)
	a := mustTarget(t).Prefix.Addr()
	d := m.known.of(party{addr: a})
	m.known.forget(party{addr: a})
	m.known.young[party{a, 443, 6}] = d
	for p, good := range map[party]bool{{addr: a}: true, {a, 443, 6}: true, {a, 22, 6}: false} {
		if _, ok := m.known.well(at, p); ok != good {
			t.Errorf("%+v: %v", p, ok)
		}
	}
	wide, err := ParseTarget("203.0.113.0/24")
	if err != nil {
		t.Fatal(err)
	}
	if s := dispute(m.innocent(at, wide)); s != nil {
		t.Errorf("a network was vouched for: %+v", s)
	}
	if s := dispute(m.innocent(at, dataplane.Peer(a))); s == nil {
		t.Error("the address was not")
	}
}
