package flowlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// One capture is read in several ways: by the software plane, and from the logs in
// testdata, which other tools made of it (see the README there).

// shot is a frame at a time.
type shot struct {
	at    time.Time
	frame []byte
}

var officeStart = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// office is an hour of a small site: web, logins, names, pings, a scan, a
// printer that does not answer, a reset and a peer that keeps time.
func office() []shot {
	rng := rand.New(rand.NewPCG(11, 12))
	var all []shot
	at := func(s float64) time.Time { return officeStart.Add(time.Duration(s*1e6) * time.Microsecond) }
	host := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)}) }
	peer := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)}) }
	port := uint16(40000)
	session := func(start float64, c, s netip.AddrPort, ask, answer []byte, rounds int, end string) {
		ses := planetest.NewSession(c, s)
		now := start
		send := func(st planetest.Step) {
			all = append(all, shot{at(now), st.Frame})
			now += 0.002 + 0.05*rng.Float64()
		}
		open := ses.Open()
		if end == "silence" {
			send(open[0])
			return
		}
		if end == "refused" {
			send(open[0])
			send(ses.Send(1, flow.RST|flow.ACK, nil))
			return
		}
		for _, st := range open {
			send(st)
		}
		for range rounds {
			send(ses.Data(0, ask))
			send(ses.Data(1, answer[:1+rng.IntN(len(answer)-1)]))
		}
		if end == "reset" {
			send(ses.Send(0, flow.RST, nil))
			return
		}
		for _, st := range ses.Close() {
			send(st)
		}
	}
	hello := append([]byte{0x16, 3, 1, 2, 0, 1}, make([]byte, 500)...)
	for i := range 60 {
		start := float64(i)*50 + 10*rng.Float64()
		port++
		c := netip.AddrPortFrom(host(i%7), port)
		switch i % 6 {
		case 0, 1:
			session(start, c, netip.AddrPortFrom(peer(i%9), 443), hello, make([]byte, 1200), 1+rng.IntN(6), "fin")
		case 2:
			session(start, c, netip.AddrPortFrom(peer(3), 22), []byte("SSH-2.0-made\r\n"), []byte("SSH-2.0-here\r\n"), 4, "fin")
		case 3:
			session(start, c, netip.AddrPortFrom(peer(5), 80), []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 900), 2, "reset")
		case 4:
			session(start, c, netip.AddrPortFrom(host(9), 9100), nil, nil, 0, "silence")
		case 5:
			session(start, c, netip.AddrPortFrom(peer(8), 25), nil, nil, 0, "refused")
		}
		q := netip.AddrPortFrom(host(i%7), 20000+uint16(i))
		dns := netip.AddrPortFrom(peer(0), 53)
		all = append(all, shot{at(start + 1), planetest.Packet{Src: q, Dst: dns, Proto: flow.UDP, TTL: 64, Payload: make([]byte, 30+i%9)}.Frame()},
			shot{at(start + 1.02), planetest.Packet{Src: dns, Dst: q, Proto: flow.UDP, TTL: 57, Payload: make([]byte, 90+i%40)}.Frame()})
	}
	for i := range 25 { // a scan
		port++
		session(1500+float64(i)*0.2, netip.AddrPortFrom(peer(40), port), netip.AddrPortFrom(host(2), uint16(100+i)), nil, nil, 0, []string{"refused", "silence"}[i%2])
	}
	for i := range 8 {
		for k := range 2 {
			p := planetest.Packet{Src: netip.AddrPortFrom(host(3), 0), Dst: netip.AddrPortFrom(peer(20+i), 0), Proto: flow.ICMP, Type: 8, TTL: 64, Payload: make([]byte, 56)}
			if k == 1 {
				p.Src, p.Dst, p.Type, p.TTL = p.Dst, p.Src, 0, 50
			}
			all = append(all, shot{at(200 + 3*float64(i) + 0.03*float64(k)), p.Frame()})
		}
	}
	slices.SortStableFunc(all, func(a, b shot) int { return a.at.Compare(b.at) })
	return all
}

// capture is shots as a pcap file with microseconds.
func capture(shots []shot) []byte {
	o := binary.LittleEndian
	b := o.AppendUint32(nil, 0xa1b2c3d4)
	b = o.AppendUint16(o.AppendUint16(b, 2), 4)
	b = o.AppendUint32(o.AppendUint32(o.AppendUint32(o.AppendUint32(b, 0), 0), 65535), 1)
	for _, s := range shots {
		b = o.AppendUint32(o.AppendUint32(b, uint32(s.at.Unix())), uint32(s.at.Nanosecond()/1000))
		b = o.AppendUint32(o.AppendUint32(b, uint32(len(s.frame))), uint32(len(s.frame)))
		b = append(b, s.frame...)
	}
	return b
}

// officeSum is of the capture that the logs in testdata tell of.
const officeSum = "c668fdfc04b71931ff1cb6ca8c6453e9989470ce09ae4bcca093da87f50e51b6"

// TestOfficeIsThisTraffic keeps the generator making the capture that the logs
// in testdata were made from. FLOWLOG_CAPTURE names a file to write it to.
func TestOfficeIsThisTraffic(t *testing.T) {
	b := capture(office())
	if path := os.Getenv("FLOWLOG_CAPTURE"); path != "" {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != officeSum {
		t.Errorf("the capture has the sum %s, expected %s: make the logs in testdata anew (see the README there)", got, officeSum)
	}
}

// officeFile writes the capture for a test.
func officeFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "office.pcap")
	if err := os.WriteFile(path, capture(office()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// planeRecords runs a capture through the software plane and returns the records
// of flows that ended, in the order of their ends. Tools end a flow by their own
// idle times; long ones here keep each flow one.
func planeRecords(t testing.TB, path string) []flow.Record {
	t.Helper()
	c, err := intake.OpenCapture(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	p, err := softplane.Open(softplane.Options{Now: func() time.Time { return officeStart }, Idle: softplane.Idle{TCPUnanswered: 2 * time.Hour, TCP: 2 * time.Hour, Other: 2 * time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	var out []flow.Record
	take := func(ev *dataplane.Event) {
		if ev.Kind == dataplane.EventEnd {
			out = append(out, ev.Record)
		}
	}
	for {
		k, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Captured(k.Link, k.Data, k.OrigLen, k.At)
		p.Drain(take)
	}
	p.Advance(officeStart.Add(24 * time.Hour))
	p.Drain(take)
	slices.SortStableFunc(out, func(a, b flow.Record) int {
		if a.Last != b.Last {
			return int(min(1, max(-1, a.Last-b.Last)))
		}
		return int(a.ID) - int(b.ID)
	})
	return out
}
