//go:build !race

package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

// softTwin is the plane in Go, on the wall clock as the kernel is.
type softTwin struct {
	*softplane.Plane
	link softplane.LinkType
}

func (s softTwin) Inject(hook dataplane.Hook, frame []byte) (bool, error) {
	return s.Frame(hook, s.link, frame, 0, time.Now()), nil
}

func (s softTwin) Poll(handle func(*dataplane.Event)) error {
	s.Drain(handle)
	return nil
}

func (s softTwin) Flush(handle func(*dataplane.Event)) error {
	s.Plane.Flush()
	s.Drain(handle)
	return nil
}

// corpus is what became of captures that both planes saw.
type corpus struct {
	twins                            [2]*planetest.Twins // Ethernet, raw IP
	files, frames                    int
	short, long, translated, foreign int
	faults, disagree                 int
}

func newCorpus(t *testing.T) *corpus {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
			t.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
		}
		t.Skip("needs root: the programs are loaded into the kernel")
	}
	day := 24 * time.Hour
	c := &corpus{}
	for i, link := range []softplane.LinkType{softplane.Ethernet, softplane.Raw} {
		kernel, err := xdp.OpenDetached(xdp.Options{Mode: dataplane.Enforce, MaxFlows: 1 << 17, EventRate: 1e9}, link == softplane.Raw)
		if err != nil {
			t.Fatalf("%+v", err)
		}
		soft, err := softplane.Open(softplane.Options{Mode: dataplane.Enforce, MaxFlows: 1 << 17, MaxEvents: 1 << 20,
			Idle: softplane.Idle{TCPUnanswered: day, TCP: day, Other: day}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, err := range []error{kernel.Close(), soft.Close()} {
				if err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
		c.twins[i] = &planetest.Twins{A: kernel, B: softTwin{soft, link}}
	}
	return c
}

// TestCorpusThroughBothPlanes shows every capture to the kernel's programs and
// to the plane in Go: without rules, then with some on its addresses, services
// and flows.
// They must agree on each verdict, event, record and count.
func TestCorpusThroughBothPlanes(t *testing.T) {
	dir := realData(t)
	c := newCorpus(t)
	known := manifest(t, dir)
	for _, folder := range []string{"pcap-tcpdump-tests", "pcap-zeek-traces"} {
		err := filepath.WalkDir(filepath.Join(dir, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if _, ok := known[filepath.ToSlash(rel)]; ok {
				c.capture(t, path, rel)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d captures, %d frames; %d captures end at a fault; frames shown as Ethernet: %d translated from other links, "+
		"%d of links that have no IP; not shown: %d below %d bytes, %d above %d; captures with a disagreement: %d",
		c.files, c.frames, c.faults, c.translated, c.foreign, c.short, xdp.MinInject, c.long, xdp.MaxInject, c.disagree)
	if c.files != 1635 {
		t.Errorf("%d captures, expected the 1635 of the two folders", c.files)
	}
	for i, name := range []string{"Ethernet", "bare IP"} {
		s, err := c.twins[i].A.Stats()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d packets, %d IP bytes, %d flows, %d later fragments, %d dropped, %d events lost, malformed %v",
			name, s.Packets, s.Bytes, s.FlowsTotal, s.NotAccountedFrag, s.Dropped, s.EventsLost, s.Malformed)
		if s.FlowsTotal == 0 || s.Dropped == 0 || s.EventsLost != 0 || len(s.Malformed) == 0 {
			t.Errorf("%s: %+v: expected flows, drops, malformed packets, and no event lost", name, s)
		}
	}
}

func (c *corpus) capture(t *testing.T, path, rel string) {
	t.Helper()
	c.files++
	cp, err := OpenCapture(path)
	if err != nil {
		c.faults++ // TestRealCaptures holds faults to the manifest
		return
	}
	defer cp.Close()
	var steps [2][]planetest.Step
	for {
		p, err := cp.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.faults++
			}
			break
		}
		raw, step, ok := c.step(p, len(steps[0]))
		if ok {
			steps[raw] = append(steps[raw], step)
		}
	}
	for i, twins := range c.twins {
		c.play(t, rel, twins, steps[i])
	}
}

// step makes a frame of a packet that a plane on Ethernet (0) or on bare IP (1)
// can be shown.
func (c *corpus) step(p Packet, n int) (raw int, s planetest.Step, ok bool) {
	frame := slices.Clone(p.Data)
	switch p.Link {
	case softplane.Ethernet:
	case softplane.Raw, softplane.RawOld, softplane.RawBSD, softplane.IPv4, softplane.IPv6:
		raw = 1
	default:
		if as, ok := asEthernet(p.Link, frame); ok {
			c.translated++
			frame = as
		} else {
			c.foreign++ // hostile bytes are as good as any
		}
	}
	switch {
	case len(frame) < xdp.MinInject:
		c.short++
		return raw, s, false
	case len(frame) > xdp.MaxInject:
		c.long++
		return raw, s, false
	}
	c.frames++
	return raw, planetest.Step{Hook: dataplane.Hook(n % 2), Frame: frame}, true
}

// asEthernet puts an Ethernet header in the place of another link header.
func asEthernet(link softplane.LinkType, b []byte) ([]byte, bool) {
	var n int
	var proto uint16
	switch {
	case link == softplane.LinuxSLL && len(b) >= 16:
		n, proto = 16, binary.BigEndian.Uint16(b[14:])
	case link == softplane.LinuxSLL2 && len(b) >= 20:
		n, proto = 20, binary.BigEndian.Uint16(b)
	case link == softplane.CiscoHDLC && len(b) >= 4:
		n, proto = 4, binary.BigEndian.Uint16(b[2:])
	case (link == softplane.Null || link == softplane.Loop || link == softplane.PPP || link == softplane.PPPSerial) && len(b) >= 5:
		n = 4
		if link == softplane.PPP && b[0] != 0xff {
			n = 2
		}
		proto = map[byte]uint16{4: 0x0800, 6: 0x86dd}[b[n]>>4]
	default:
		return nil, false
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 12), proto), b[n:]...), true
}

func (c *corpus) play(t *testing.T, rel string, twins *planetest.Twins, steps []planetest.Step) {
	t.Helper()
	if len(steps) == 0 {
		return
	}
	c.agree(t, rel, twins, steps)
	rules := someRules(steps, twins.B.(softTwin).link)
	if len(rules) == 0 {
		return
	}
	targets := make([]dataplane.Target, len(rules))
	for i, r := range rules {
		targets[i] = r.Target
	}
	for _, side := range []dataplane.Plane{twins.A, twins.B} {
		if err := side.Apply(rules...); err != nil {
			t.Fatalf("%s: apply: %v", rel, err)
		}
	}
	c.agree(t, rel, twins, steps)
	for _, side := range []dataplane.Plane{twins.A, twins.B} {
		if err := side.Remove(targets...); err != nil {
			t.Fatalf("%s: remove: %v", rel, err)
		}
	}
}

func (c *corpus) agree(t *testing.T, rel string, twins *planetest.Twins, steps []planetest.Step) {
	t.Helper()
	differences, err := twins.Play(steps)
	if err != nil {
		t.Fatalf("%s: %v", rel, err)
	}
	if len(differences) > 0 {
		c.disagree++
		t.Errorf("%s: the planes disagree: %s", rel, strings.Join(differences, "\n"))
	}
}

// someRules makes rules of each form that match some of the frames, always the same.
func someRules(steps []planetest.Step, link softplane.LinkType) []dataplane.Rule {
	const most = 60
	until := time.Now().Add(time.Hour)
	rules := map[dataplane.Target]dataplane.Rule{}
	for _, s := range steps {
		k, ok := softplane.KeyOf(link, s.Frame)
		if !ok || len(rules) >= most {
			continue
		}
		h := fnv.New32a()
		fmt.Fprint(h, k)
		r := dataplane.Rule{Expires: until, Action: dataplane.Block, Reason: h.Sum32() % 1000}
		switch h.Sum32() % 64 {
		case 0:
			r.Target = dataplane.Peer(k.A)
		case 1:
			r.Target, r.Action = dataplane.Target{Flow: k}, dataplane.Suspend
		case 2:
			r.Target, r.Action = dataplane.Target{Flow: k}, dataplane.Observe
		case 3:
			r.Target = dataplane.Target{Prefix: dataplane.Peer(k.B).Prefix, Port: k.BPort, Proto: k.Proto}
		case 4:
			r.Target = dataplane.Target{Prefix: netip.PrefixFrom(k.B, k.B.BitLen()*3/4).Masked()}
		default:
			continue
		}
		if r.Validate() == nil && k.Proto != flow.ICMPv6 {
			rules[r.Target] = r
		}
	}
	out := make([]dataplane.Rule, 0, len(rules))
	for _, r := range rules {
		out = append(out, r)
	}
	return out
}
