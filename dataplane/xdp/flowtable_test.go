package xdp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// always finds every flow idle.
func always(*kernelFlowKey, *kernelFlow) (limit, last int64) { return -1, 0 }

// tracked lists every flow with its record, as the kernel has it.
func tracked(t *testing.T, f fixture) map[flow.Key]kernelFlow {
	t.Helper()
	refs, err := f.store.idle(0, 0, always)
	check(t, err)
	all := make(map[flow.Key]kernelFlow, len(refs))
	for i := range refs {
		flat := f.store.(*flowTable)
		k := fromFlowKey(&refs[i].key)
		if _, twice := all[k]; twice {
			t.Errorf("%s is in the table twice", k)
		}
		if refs[i].egg {
			all[k] = hatched(&flat.eggs[refs[i].at])
		} else {
			all[k] = flat.slots[refs[i].at].Flow
		}
	}
	return all
}

// forget takes one flow out of the table.
func forget(t *testing.T, f fixture, k flow.Key) {
	t.Helper()
	refs, err := f.store.idle(0, 0, always)
	check(t, err)
	for i := range refs {
		if fromFlowKey(&refs[i].key) != k {
			continue
		}
		if _, ok, err := f.store.end(&refs[i], 0, always); !ok || err != nil {
			t.Errorf("forget %s: %v, %v", k, ok, err)
		}
		return
	}
	t.Errorf("forget %s: not in the table", k)
}

// burst runs a frame many times on one processor.
func burst(t *testing.T, prog *ebpf.Program, cpu int, frames [][]byte, each int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var one, was unix.CPUSet
	one.Set(cpu)
	if err := errors.Join(unix.SchedGetaffinity(0, &was), unix.SchedSetaffinity(0, &one)); err != nil {
		t.Errorf("pin to processor %d: %v", cpu, err)
		return
	}
	defer func() { _ = unix.SchedSetaffinity(0, &was) }()
	for _, frame := range frames {
		if _, err := prog.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(each)}); err != nil {
			t.Errorf("test run: %v", err)
			return
		}
	}
}

// Two processors count into the same flows at once, each in its direction and
// both in one. Every packet is in a record or in FlowsUntracked.
func TestTwoProcessorsLoseNothing(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	const flows, each, rounds = 40, 2000, 3
	f := newFixture(t, Options{EventRate: 1})
	var out, back [][]byte
	for i := range flows {
		a := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(1000+i))
		b := endpoint("192.0.2.1:53")
		out = append(out, planetest.Datagram(dataplane.FromInside, a, b, []byte("to")).Frame)
		back = append(back, planetest.Datagram(dataplane.ToInside, b, a, []byte("back")).Frame)
	}
	out0, in0 := f.objs.HedgerowXdp, f.mirror()
	for range rounds {
		for _, second := range []struct {
			prog   *ebpf.Program
			frames [][]byte
		}{{in0, back}, {out0, out}} {
			var both sync.WaitGroup
			both.Go(func() { burst(t, out0, 0, out, each) })
			both.Go(func() { burst(t, second.prog, 1, second.frames, each) })
			both.Wait()
		}
	}
	s, err := f.Stats()
	check(t, err)
	all := tracked(t, f)
	if len(all) != flows || s.FlowsTotal != flows || s.FlowsEvicted != 0 {
		t.Errorf("%d flows in the table, %d made, %d evicted: expected %d, as many, none", len(all), s.FlowsTotal, s.FlowsEvicted, flows)
	}
	var counted uint64
	for k, r := range all {
		counted += uint64(r.Packets)
		sum := uint64(r.D[0].Packets) + uint64(r.D[1].Packets)
		// a is the inside end of all flows, so direction 0 is outward.
		want := r.D[0].Bytes == 30*uint64(r.D[0].Packets) && r.D[1].Bytes == 32*uint64(r.D[1].Packets) &&
			r.D[0].SizeSq == 30*30*uint64(r.D[0].Packets) && r.D[1].SizeSq == 32*32*uint64(r.D[1].Packets)
		if sum != uint64(r.Packets) || !want {
			t.Errorf("%s: torn: %+v", k, r)
		}
	}
	// A run that a signal breaks off is done again, so more may have been seen.
	sent := uint64(flows * each * rounds * 4)
	if counted+s.FlowsUntracked != s.Packets || s.Packets < sent {
		t.Errorf("%d packets in records, %d untracked, %d seen: expected all seen, %d at least", counted, s.FlowsUntracked, s.Packets, sent)
	}
	t.Logf("%d packets: %d in records, %d untracked", s.Packets, counted, s.FlowsUntracked)
}

// Two processors make, end and push out flows of the same few buckets. What was
// made is there, has ended, or was pushed out; nobody counts into another's flow.
func TestTwoProcessorsInTheSameBuckets(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	const flood = 60_000
	f := newFixture(t, Options{MaxFlows: minMaxFlows, EventRate: 1})
	frames := func(seed uint64) (all [][]byte) {
		rng := rand.New(rand.NewPCG(seed, 5))
		for range flood {
			n := rng.IntN(4000) // both draw from the same flows
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 4000)
			s := planetest.NewSession(a, endpoint("192.0.2.1:80"))
			size := make([]byte, n%1000) // tells the flow by its packets' length
			switch rng.IntN(8) {
			case 0:
				all = append(all, s.Send(0, flow.RST, nil).Frame)
			default:
				all = append(all, s.Data(0, size).Frame)
			}
		}
		return all
	}
	one, two := frames(1), frames(2)
	var both sync.WaitGroup
	both.Go(func() { burst(t, f.objs.HedgerowXdp, 0, one, 1) })
	both.Go(func() { burst(t, f.objs.HedgerowXdp, 1, two, 1) })
	both.Wait()
	sum, err := f.sumCounters()
	check(t, err)
	all := tracked(t, f)
	if got := uint64(len(all)) + sum.FlowsEnded + sum.FlowsEvicted; got != sum.FlowsTotal || sum.FlowsEvicted == 0 || sum.FlowsEnded == 0 {
		t.Errorf("%d flows made: %d in the table, %d ended, %d evicted, together %d", sum.FlowsTotal, len(all), sum.FlowsEnded, sum.FlowsEvicted, got)
	}
	for k, r := range all {
		ip := k.A.As4()
		want := uint64(40 + (int(ip[2])<<8+int(ip[3]))%1000)
		if uint32(r.R[0].Rst) == r.Packets {
			want = 40 // resets without a flow
		}
		if d := r.D[0]; d.Bytes != want*uint64(d.Packets) || uint64(d.SizeMin) != want || uint64(d.SizeMax) != want || r.D[1].Packets != 0 {
			t.Errorf("%s: has packets of another flow: %+v", k, r)
		}
	}
	t.Logf("%d flows made, %d in the table, %d ended, %d evicted, %d packets untracked", sum.FlowsTotal, len(all), sum.FlowsEnded, sum.FlowsEvicted, sum.FlowsUntracked)
}
