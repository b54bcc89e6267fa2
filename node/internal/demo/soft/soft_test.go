package soft

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// watcher is a packet path that checks what it is shown, and drops by a rule.
type watcher struct {
	t    *testing.T
	lan  netip.Prefix
	drop func(at time.Time) bool

	mu      sync.Mutex
	frames  int
	lost    int
	payload [2]int // by hook
	flags   [2]uint8
	again   int // segments with payload below the highest sequence seen
	top     [2]uint32
}

func (w *watcher) Frame(hook dataplane.Hook, b []byte, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames++
	ip := b[14:]
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	if inside := hook == dataplane.FromInside; w.lan.Contains(src) != inside || w.lan.Contains(dst) == inside {
		w.t.Errorf("frame from %s to %s at hook %d", src, dst, hook)
	}
	if int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || checksum(0, ip[:20]) != 0 {
		w.t.Error("bad IP header")
	}
	l4 := ip[20:]
	if checksum(add(uint32(ip[9])+uint32(len(l4)), ip[12:20]), l4) != 0 {
		w.t.Error("bad transport checksum")
	}
	if w.drop != nil && w.drop(at) {
		w.lost++
		return false
	}
	if ip[9] == flow.UDP {
		w.payload[hook] += len(l4) - 8
		return true
	}
	w.flags[hook] |= l4[13]
	n := len(l4) - 20
	w.payload[hook] += n
	seq := binary.BigEndian.Uint32(l4[4:])
	if n > 0 && w.top[hook] != 0 && int32(seq-w.top[hook]) < 0 {
		w.again++
	}
	if n > 0 {
		w.top[hook] = seq + uint32(n)
	}
	return true
}

func setUp(t *testing.T) (*scenario.Scenario, *World, *watcher) {
	t.Helper()
	sc := scenario.New(4)
	site := sc.Site(scenario.Alder)
	w := &watcher{t: t, lan: site.LAN}
	sinks := map[string]FrameSink{}
	for _, s := range sc.Sites {
		sinks[s.Name] = &watcher{t: t, lan: s.LAN}
	}
	sinks[scenario.Alder] = w
	world, err := New(sc, sinks)
	if err != nil {
		t.Fatal(err)
	}
	return sc, world, w
}

func TestEveryKindIsRendered(t *testing.T) {
	script := []scenario.Exchange{{Up: 300, Down: 5000}, {Think: time.Second, Up: 30_000, Down: 60}}
	for _, kind := range []scenario.Kind{scenario.HTTP, scenario.Bulk, scenario.TLS, scenario.SSH, scenario.DNS, scenario.Probe} {
		for _, inbound := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				sc, world, w := setUp(t)
				site := sc.Site(scenario.Alder)
				s := scenario.Session{
					ID: 1, Kind: kind, Site: site.Name, From: site.Hosts[0].Addr, To: sc.Web[0], Port: 443,
					Script: script, Passwords: []string{sc.Password}, Timeout: 10 * time.Second, Inbound: inbound,
				}
				up, down := dataplane.FromInside, dataplane.ToInside
				if inbound {
					s.From, s.To = s.To, s.From
					up, down = down, up
				}
				if kind == scenario.DNS {
					s.Script = []scenario.Exchange{{Up: 50, Down: 200}}
				}
				if kind == scenario.Probe {
					s.Script = nil
				}
				r := world.Run(t.Context(), &s)
				if !r.OK || !r.Answered || r.Err != nil {
					t.Fatalf("%s: %v", kind, r.Err)
				}
				wantUp, wantDown := s.Bytes()
				if w.payload[up] < wantUp || w.payload[down] < wantDown || w.payload[up] > wantUp+6000 || w.payload[down] > wantDown+6000 {
					t.Errorf("%s: payload %v for a script of %d up, %d down", kind, w.payload, wantUp, wantDown)
				}
				if w.again != 0 {
					t.Errorf("%s: %d segments sent again without loss", kind, w.again)
				}
				const whole = flow.SYN | flow.ACK | flow.FIN
				if kind != scenario.DNS && (w.flags[up]&whole != whole || w.flags[down]&whole != whole) {
					t.Errorf("%s: flags %08b and %08b: expected a handshake and two FINs", kind, w.flags[up], w.flags[down])
				}
			})
		}
	}
}

func TestDroppedForGoodFailsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, world, w := setUp(t)
		w.drop = func(time.Time) bool { return true }
		for _, x := range sc.ScanOf(sc.Site(scenario.Alder))[:3] {
			r := world.Run(t.Context(), &x.Session)
			if r.OK || r.Answered || r.Duration != x.Timeout {
				t.Errorf("probe through a wall: %+v", r)
			}
		}
		src := sc.Ordinary(sc.Site(scenario.Alder), 20)
		for range 20 {
			x := src.Next()
			if r := world.Run(t.Context(), &x.Session); r.OK || r.Err == nil {
				t.Errorf("%s through a wall: %+v", x.Kind, r)
			}
		}
	})
}

// A suspension that is lifted must let the session go on, as TCP would.
func TestSuspendedSessionRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, world, w := setUp(t)
		begin := time.Now()
		w.drop = func(at time.Time) bool {
			d := at.Sub(begin)
			return d > 300*time.Millisecond && d < 2*time.Second
		}
		site := sc.Site(scenario.Alder)
		s := scenario.Session{
			ID: 1, Kind: scenario.TLS, Site: site.Name, From: site.Hosts[0].Addr, To: sc.Web[0], Port: 443, Timeout: 10 * time.Second,
			Script: []scenario.Exchange{{Up: 3000, Down: 3000}, {Think: 400 * time.Millisecond, Up: 20_000, Down: 9000}},
		}
		r := world.Run(t.Context(), &s)
		if !r.OK || w.lost == 0 || r.Duration < 2*time.Second {
			t.Errorf("result %+v with %d frames lost", r, w.lost)
		}
	})
}

func TestClosedPortRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, world, w := setUp(t)
		for _, x := range sc.ScanOf(sc.Site(scenario.Alder)) {
			if r := world.Run(t.Context(), &x.Session); !r.OK || !r.Answered {
				t.Fatalf("%+v", r)
			}
		}
		if w.flags[dataplane.FromInside]&flow.RST == 0 {
			t.Error("no refusal was seen")
		}
	})
}
