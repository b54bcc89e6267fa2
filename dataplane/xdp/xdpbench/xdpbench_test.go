package xdpbench

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

func needKernel(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		if err := rlimit.RemoveMemlock(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
		t.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
	}
	t.Skip("needs root: the programs are loaded into the kernel")
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listed(n int) []netip.Addr {
	out := make([]netip.Addr, n)
	for i := range out {
		out[i] = netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 7})
	}
	return out
}

// Every program must see each source of the stream in turn, and say of it what
// its table says.
func TestVerdictsOfEveryProgramAreExact(t *testing.T) {
	needKernel(t)
	const sets, rounds = 1000, 3
	addrs := listed(sets)
	s, err := NewStream(Ends{
		From: net.HardwareAddr{2, 0, 0, 0, 0, 1}, To: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		Dst: netip.MustParseAddrPort("10.99.0.2:9000"),
	}, 2*sets)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	var sources []Source
	for i, a := range addrs { // three listed, one not
		sources = append(sources, Source{a, 4000})
		if i%3 == 0 {
			sources = append(sources, Source{netip.AddrFrom4([4]byte{30, byte(i >> 8), byte(i), 7}), 4000})
		}
	}
	check(t, s.SetSources(sources))
	for name, make := range map[string]func(*testing.T) (*Program, error){
		"hash": func(*testing.T) (*Program, error) { return Hash(addrs) },
		"trie": func(*testing.T) (*Program, error) { return Trie(addrs) },
		"hedgerow": func(t *testing.T) (*Program, error) {
			m, err := xdp.LoadMeasured(xdp.Options{Role: xdp.Host, Mode: dataplane.Enforce}, 0)
			check(t, err)
			t.Cleanup(func() { m.Close() })
			for _, a := range addrs {
				check(t, m.Apply(dataplane.Rule{Target: dataplane.Peer(a), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}))
			}
			return Hedgerow("hedgerow", m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := make(t)
			check(t, err)
			t.Cleanup(func() { p.Close() })
			took, err := p.Run(s, rounds*len(sources))
			check(t, err)
			v, err := p.Verdicts()
			check(t, err)
			want := Verdicts{Dropped: rounds * sets, Passed: uint64(rounds * (len(sources) - sets))}
			if v != want {
				t.Errorf("verdicts %+v: expected %+v", v, want)
			}
			if took <= 0 {
				t.Errorf("a run took %s", took)
			}
		})
	}
}

func TestStreamRefusesWhatItCannotHold(t *testing.T) {
	needKernel(t)
	if _, err := NewStream(Ends{}, 1); err == nil {
		t.Error("a stream without ends was made")
	}
	e := Ends{From: make(net.HardwareAddr, 6), To: make(net.HardwareAddr, 6), Dst: netip.MustParseAddrPort("10.0.0.1:1")}
	if _, err := NewStream(e, MaxSources+1); err == nil {
		t.Error("a stream of too many sources was made")
	}
	s, err := NewStream(e, 1)
	check(t, err)
	defer s.Close()
	if s.SetSources(nil) == nil || s.SetSources(make([]Source, 2)) == nil {
		t.Error("a list of no or too many sources was taken")
	}
}
