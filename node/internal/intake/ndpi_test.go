package intake

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// volume is what went from A to B of a key, and back: packets and frame bytes.
type volume struct{ packets, bytes [2]uint64 }

// folded is for flows of one address with itself, whose directions the frames
// do not tell without their ports.
func (v volume) folded() volume {
	return volume{[2]uint64{v.packets[0] + v.packets[1]}, [2]uint64{v.bytes[0] + v.bytes[1]}}
}

// ndpiLine is a flow in the expected results of nDPI.
var ndpiLine = regexp.MustCompile(`^\s+\d+\s+(\S+) (\S+) (?:<->|->) (\S+) .*?\[(\d+) pkts/(\d+) bytes (?:<->|->) (\d+) pkts/(\d+) bytes\]`)

var ndpiProtos = map[string]uint8{"TCP": flow.TCP, "UDP": flow.UDP, "ICMP": flow.ICMP, "ICMPV6": flow.ICMPv6, "IGMP": 2, "GRE": 47,
	"ESP": 50, "AH": 51, "OSPF": 89, "PIM": 103, "VRRP": 112, "PGM": 113, "SCTP": 132, "IPIP": 4}

// readNDPI reads one file of expected results; flows that differ only in their
// VLAN or their time are added up. Some IPv6 addresses are printed so that they
// are none: those flows are counted apart.
func readNDPI(path string) (out map[flow.Key]volume, unreadable int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	out = map[flow.Key]volume{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if !strings.Contains(sc.Text(), " pkts/") || strings.HasPrefix(sc.Text(), "DPI Packets") {
			continue
		}
		m := ndpiLine.FindStringSubmatch(sc.Text())
		if m == nil {
			return nil, 0, fmt.Errorf("%s: a flow in another form: %.120s", path, sc.Text())
		}
		proto, ok := ndpiProtos[m[1]]
		if n, err := strconv.ParseUint(m[1], 10, 8); !ok && err == nil {
			proto, ok = uint8(n), true
		}
		if !ok {
			return nil, 0, fmt.Errorf("%s: protocol %q", path, m[1])
		}
		src, err1 := netip.ParseAddrPort(m[2])
		dst, err2 := netip.ParseAddrPort(m[3])
		if err1 != nil || err2 != nil {
			unreadable++
			continue
		}
		if proto != flow.TCP && proto != flow.UDP {
			src, dst = netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0)
		}
		key, fromB := flow.NewKey(src, dst, proto)
		v := out[key]
		for i := range 2 {
			d := i
			if fromB {
				d = 1 - i
			}
			v.packets[d] += number(m[4+2*i])
			v.bytes[d] += number(m[5+2*i])
		}
		out[key] = v
	}
	return out, unreadable, nil
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// measured is what the plane in Go made of a capture.
type measured struct {
	flows map[flow.Key]volume // as accounted
	seen  map[flow.Key]volume // frames by the flow that they would belong to
	kept  map[flow.Key]volume // the same, with the bytes that the capture kept
	links map[softplane.LinkType]int
	stats dataplane.Stats
	sides map[netip.Addr]*softplane.Plane // that know one address as inside
}

// planeFor opens a capture, for the caller to close, and a plane in Go to show it to.
func planeFor(t *testing.T, path string) (*Capture, *softplane.Plane) {
	t.Helper()
	c, err := OpenCapture(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := softplane.Open(softplane.Options{MaxEvents: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

func measure(t *testing.T, path string) *measured {
	t.Helper()
	c, p := planeFor(t, path)
	defer c.Close()
	var err error
	m := &measured{flows: map[flow.Key]volume{}, seen: map[flow.Key]volume{}, kept: map[flow.Key]volume{},
		links: map[softplane.LinkType]int{}, sides: map[netip.Addr]*softplane.Plane{}}
	ahead := map[flow.Key]volume{} // bytes of link headers and padding
	for err == nil {
		var pkt Packet
		if pkt, err = c.Next(); err == nil {
			m.frame(t, p, pkt, ahead)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Logf("%v", err)
	}
	p.Flush()
	p.Drain(m.ended)
	for k, v := range m.flows {
		for d := range v.bytes {
			v.bytes[d] += ahead[k].bytes[d]
		}
		m.flows[k] = v
	}
	return m
}

func (m *measured) frame(t *testing.T, p *softplane.Plane, pkt Packet, ahead map[flow.Key]volume) {
	t.Helper()
	m.links[pkt.Link]++
	before := m.stats
	p.Captured(pkt.Link, pkt.Data, pkt.OrigLen, pkt.At)
	p.Drain(m.ended)
	var err error
	if m.stats, err = p.Stats(); err != nil {
		t.Fatal(err)
	}
	k, ok := softplane.KeyOf(pkt.Link, pkt.Data)
	if !ok || sum(m.stats.Malformed) > sum(before.Malformed) {
		return
	}
	d := m.direction(t, k, pkt)
	add(m.seen, k, d, uint64(pkt.OrigLen))
	add(m.kept, k, d, uint64(len(pkt.Data)))
	add(ahead, k, d, uint64(pkt.OrigLen)-(m.stats.Bytes-before.Bytes))
}

func sum(of map[string]uint64) (n uint64) {
	for _, v := range of {
		n += v
	}
	return n
}

func add(to map[flow.Key]volume, k flow.Key, d int, bytes uint64) {
	v := to[k]
	v.packets[d]++
	v.bytes[d] += bytes
	to[k] = v
}

// direction is 0 from A to B. A plane that knows A as inside tells; for a key
// whose addresses are one, all goes to 0.
func (m *measured) direction(t *testing.T, k flow.Key, pkt Packet) int {
	t.Helper()
	side := m.sides[k.A]
	if side == nil {
		var err error
		if side, err = softplane.Open(softplane.Options{Inside: []netip.Prefix{netip.PrefixFrom(k.A, k.A.BitLen())}}); err != nil {
			t.Fatal(err)
		}
		m.sides[k.A] = side
	}
	if side.HookFor(pkt.Link, pkt.Data) == dataplane.FromInside {
		return 0
	}
	return 1
}

func (m *measured) ended(e *dataplane.Event) {
	if e.Kind != dataplane.EventEnd {
		return
	}
	v := m.flows[e.Record.Key]
	for i, d := range e.Record.Dir {
		if e.Record.InitB {
			i = 1 - i
		}
		v.packets[i] += uint64(d.Packets)
		v.bytes[i] += d.Bytes
	}
	m.flows[e.Record.Key] = v
}

// Why a flow differs from what nDPI expects.
const (
	isTunnel   = "inside a tunnel, which is a flow of its outer addresses here"
	isLink     = "on a link type that carries no IP here"
	isFragment = "later fragments, which have no ports here"
	isBroken   = "malformed here"
	isCut      = "a cut capture: nDPI counts the bytes that were kept"
	isPrinted  = "nDPI prints an address that is none"
	unknown    = "not explained"
)

// why explains a difference, strictest first.
func (m *measured) why(k flow.Key, want volume) string {
	seen := m.seen[k]
	switch {
	case want == m.kept[k]:
		return isCut
	case seen == volume{} && m.tunnels(), tunnel(k) && want.folded().packets[0] < seen.folded().packets[0]:
		return isTunnel
	case seen == volume{} && m.stats.Malformed["link"] > 0:
		return isLink
	case m.stats.NotAccountedFrag > 0 && want.folded().packets[0] > seen.folded().packets[0]:
		return isFragment
	case sum(m.stats.Malformed) > 0 && want.folded().packets[0] > seen.folded().packets[0]:
		return isBroken
	}
	return unknown
}

// tunnels says whether the capture has flows that carry IP.
func (m *measured) tunnels() bool {
	for k := range m.flows {
		if tunnel(k) {
			return true
		}
	}
	return false
}

// tunnel knows IPIP, IPv6 in IP, GRE, GTP, VXLAN, CAPWAP and TZSP.
func tunnel(k flow.Key) bool {
	ports := []uint16{2152, 4789, 5246, 5247, 37008}
	return k.Proto == 4 || k.Proto == 41 || k.Proto == 47 ||
		k.Proto == flow.UDP && (slices.Contains(ports, k.APort) || slices.Contains(ports, k.BPort))
}

// TestFlowsAgreeWithNDPI compares packets and bytes of each flow and direction
// with the expected results of another flow meter.
func TestFlowsAgreeWithNDPI(t *testing.T) {
	dir := filepath.Join(realData(t), "pcap-ndpi-tests")
	results, err := filepath.Glob(filepath.Join(dir, "result", "*.out"))
	if err != nil || len(results) < 400 {
		t.Fatalf("results: %d, %v: expected over 400", len(results), err)
	}
	all, equal := 0, 0
	differ := map[string]int{}
	for _, path := range results {
		want, unreadable, err := readNDPI(path)
		if err != nil {
			t.Error(err)
			continue
		}
		name := strings.TrimSuffix(filepath.Base(path), ".out")
		m := measure(t, filepath.Join(dir, "pcap", name))
		all += len(want) + unreadable
		differ[isPrinted] += unreadable
		for k, w := range want {
			if got := m.flows[k]; got == w || k.A == k.B && got.folded() == w.folded() {
				equal++
				continue
			}
			reason := m.why(k, w)
			differ[reason]++
			if reason == unknown {
				t.Errorf("%s: %v: nDPI %v, here %v, of %v seen", name, k, w, m.flows[k], m.seen[k])
			}
		}
	}
	share := func(n int) float64 { return 100 * float64(n) / float64(all) }
	t.Logf("%d captures, %d flows", len(results), all)
	t.Logf("%6d %6.2f %%  equal packets and bytes in both directions", equal, share(equal))
	for _, reason := range slices.Sorted(maps.Keys(differ)) {
		t.Logf("%6d %6.2f %%  %s", differ[reason], share(differ[reason]), reason)
	}
	if share(equal) < 99.3 {
		t.Errorf("%.2f %% of the flows are equal: expected at least 99.3", share(equal))
	}
}
