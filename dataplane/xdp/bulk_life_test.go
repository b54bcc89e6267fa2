package xdp

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// withPeer is a set of n entries in which one or the other form covers the peer.
func withPeer(rng *rand.Rand, n int, byPrefix bool) []dataplane.Listed {
	expires := time.Now().Add(time.Hour)
	set := randomSet(rng, n, func() time.Time { return expires })
	bits := 32
	if byPrefix {
		bits = 24
	}
	p, err := peerAddr.Prefix(bits)
	if err != nil {
		panic(err) // bits are within the family's
	}
	return append(set, dataplane.Listed{Prefix: p, Reason: 7, Expires: expires})
}

// A listed sender keeps sending while planes come and go and sets are replaced;
// nothing may arrive.
func TestBulkTakeoverHasNoGap(t *testing.T) {
	l := newLab(t)
	rng := rand.New(rand.NewPCG(4, 2))
	last := len(newSlowBulk(withPeer(rand.New(rand.NewPCG(1, 1)), 100, false)))
	first := l.open(t, l.options(dataplane.Enforce))
	check(t, first.ReplaceBulk(withPeer(rand.New(rand.NewPCG(1, 1)), 100, false)))
	check(t, first.Close())
	arrived, sent := l.barrage(t)
	generation := uint64(1)
	for round := range 5 {
		before := sent.Load()
		p := l.open(t, l.options(dataplane.Enforce))
		s, err := p.BulkState()
		check(t, err)
		if s.Generation != generation || s.Enforced != uint64(last) || s.Intended != s.Enforced || round > 0 && s.Hits[7] == 0 {
			t.Fatalf("round %d: after takeover %+v: expected generation %d, %d entries and hits", round, s, generation, last)
		}
		for k := range 4 {
			set := withPeer(rng, 50<<(2*k), (round+k)%2 == 0)
			last = len(newSlowBulk(set))
			check(t, p.ReplaceBulk(set))
			generation++
		}
		eventually(t, "traffic after replacements", func() bool { return sent.Load() > before+200 })
		check(t, p.Close())
	}
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d of %d listed datagrams arrived", n, sent.Load())
	}
	t.Logf("%d datagrams sent over 5 takeovers and %d replacements", sent.Load(), generation)
	check(t, l.open(t, l.options(dataplane.Enforce)).ReplaceBulk(nil))
	eventually(t, "datagrams after the set is emptied", func() bool { return arrived.Load() > 0 })
}

// Whatever is replaced while packets pass, each meets one set whole: a sender
// that both list, one by address and one by prefix, is dropped every time.
func TestBulkReloadLosesNoPacket(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	frame := planetest.Datagram(dataplane.FromInside, netip.AddrPortFrom(peerAddr, 9), endpoint("10.0.0.1:2"), nil).Frame
	rng := rand.New(rand.NewPCG(4, 3))
	check(t, f.ReplaceBulk(withPeer(rng, 10, false)))
	const reloads, batch = 50, 20000
	least := int64(1_000_000)
	if os.Getenv("HEDGEROW_LONG") == "1" {
		least = 20_000_000
	}
	var sent atomic.Int64
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		for !stop.Load() {
			if _, _, err := f.objs.HedgerowXdp.Benchmark(frame, batch, nil); err != nil {
				done <- err
				return
			}
			sent.Add(batch)
		}
		done <- nil
	}()
	for n := 0; n < reloads || sent.Load() < least; n++ {
		if err := f.ReplaceBulk(withPeer(rng, 10+rng.IntN(3000), n%2 == 0)); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	check(t, <-done)
	s, err := f.Stats()
	check(t, err)
	// A run that a signal cuts short is repeated, so more may be seen than sent.
	if s.Packets < uint64(sent.Load()) || s.Dropped != s.Packets {
		t.Errorf("%d packets sent, %d seen, %d dropped: expected all", sent.Load(), s.Packets, s.Dropped)
	}
	t.Logf("%d packets, %d passed, over %d reloads or more", s.Packets, s.Packets-s.Dropped, reloads)
}

// A process that dies while it builds leaves the old set; what it left half
// done is freed by the next.
func TestBulkBuildCutShort(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	expires := time.Now().Add(time.Hour)
	set := []dataplane.Listed{{Prefix: netip.PrefixFrom(peerAddr, 32), Reason: 7, Expires: expires}}
	check(t, p.ReplaceBulk(set))
	other := []dataplane.Listed{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Reason: 8, Expires: expires}}
	checked, err := policy.NewBulkSet(other, time.Now(), policy.BulkLimits{}.WithDefaults())
	check(t, err)
	g, err := p.bulk.build(newPlan(checked, newSeeds(), 0, p.clock.bootSeconds), 1-p.bulk.slot)
	check(t, err)
	g.close()
	check(t, p.Close())

	q := l.open(t, l.options(dataplane.Enforce))
	s, err := q.BulkState()
	check(t, err)
	if s.Generation != 1 || s.Enforced != 1 {
		t.Errorf("after a cut: %+v: expected the first generation with one entry", s)
	}
	left, err := q.bulk.at(1 - q.bulk.slot)
	check(t, err)
	if left != nil {
		left.close()
		t.Error("what the dead process built is still there")
	}
	if passed := injectInto(t, q, planetest.Datagram(dataplane.ToInside, netip.AddrPortFrom(peerAddr, 9), endpoint("10.77.0.2:2"), nil).Frame); passed {
		t.Error("the old set is not enforced")
	}
	check(t, q.ReplaceBulk(other))
	if passed := injectInto(t, q, planetest.Datagram(dataplane.ToInside, endpoint("192.0.2.9:9"), endpoint("10.77.0.2:2"), nil).Frame); passed {
		t.Error("the new set is not enforced")
	}
}

// An empty set stays empty, and its count goes on, over a takeover.
func TestBulkEmptySetSurvives(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	check(t, p.ReplaceBulk(withPeer(rand.New(rand.NewPCG(1, 1)), 5, false)))
	check(t, p.ReplaceBulk(nil))
	check(t, p.Close())
	q := l.open(t, l.options(dataplane.Enforce))
	s, err := q.BulkState()
	check(t, err)
	if s.Generation != 2 || s.Enforced != 0 || q.cfg.Bulk != 0 {
		t.Errorf("after takeover %+v, slot in use %d: expected generation 2, nothing enforced or looked up", s, q.cfg.Bulk)
	}
	check(t, q.ReplaceBulk(withPeer(rand.New(rand.NewPCG(1, 1)), 5, false)))
	s, err = q.BulkState()
	check(t, err)
	if s.Generation != 3 || s.Enforced == 0 {
		t.Errorf("after replacement %+v: expected generation 3 with entries", s)
	}
}

func injectInto(t *testing.T, p *Plane, frame []byte) (passed bool) {
	t.Helper()
	ret, err := runOn(p.objs.HedgerowXdp, frame)
	check(t, err)
	return ret == 2
}
