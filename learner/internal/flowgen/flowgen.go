// Package flowgen makes flow reports for tests: the ordinary work of an office
// and four attacks on it, from a seed. Sessions are scripts of messages that
// are cut into segments, timed and counted by the rules of dataplane/flow, so
// that a report is what a packet path would have told at the same milestone.
// It helps tests only; nothing that ships imports it.
package flowgen

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Report is one report of a flow.
type Report struct {
	Rec   flow.Record
	At    int64 // when it is reported; an idle end comes after the last packet
	Final bool
	Label string // "normal", or the attack's name
	Nth   int    // number of the flow within its label, from 0
}

// msg is a message of a session: payload bytes in a direction after a pause.
type msg struct {
	dir   int // 0 from the initiator
	size  int
	think time.Duration
}

// outcome is how a session ends.
type outcome uint8

const (
	finished outcome = iota // FIN both ways
	refused                 // the SYN is answered by RST
	silent                  // no answer
	left                    // no end: idle
)

// session is one flow to be played.
type session struct {
	start      int64
	from, to   netip.AddrPort
	fromInside bool
	toInside   bool
	proto      uint8
	hint       flow.Hint
	rtt        time.Duration
	ttl        [2]uint8
	window     [2]uint16
	script     []msg
	end        outcome
	label      string
	nth        int
}

const segment = 1448

// player counts the packets of one session.
type player struct {
	rec     flow.Record
	now     int64
	lastPay int64
	reports []Report
	s       *session
}

// play turns sessions into reports in the order of time.
func play(sessions []session, firstID uint64) []Report {
	var out []Report
	for i := range sessions {
		s := &sessions[i]
		p := player{s: s, now: s.start}
		key, fromB := flow.NewKey(s.from, s.to, s.proto)
		p.rec = flow.Record{
			Key: key, ID: firstID + uint64(i), InitB: fromB,
			InitInside: s.fromInside, RespInside: s.toInside, Start: s.start,
		}
		p.run()
		out = append(out, p.reports...)
	}
	slices.SortStableFunc(out, func(a, b Report) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	return out
}

func (p *player) run() {
	if p.s.proto == flow.TCP && !p.handshake() {
		return
	}
	for _, m := range p.s.script {
		p.now += int64(m.think)
		p.message(m)
	}
	if p.s.proto != flow.TCP || p.s.end == left {
		p.report(flow.EndIdle, p.now+int64(15*time.Second))
		return
	}
	p.packet(0, 0, flow.FIN|flow.ACK)
	p.now += int64(p.s.rtt)
	p.packet(1, 0, flow.FIN|flow.ACK)
	p.now += 1000
	p.packet(0, 0, flow.ACK)
	p.report(flow.EndFIN, p.now)
}

// handshake opens a TCP session; false when it came to nothing.
func (p *player) handshake() bool {
	p.packet(0, 0, flow.SYN)
	switch p.s.end {
	case silent:
		for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
			p.now += int64(wait)
			p.packet(0, 0, flow.SYN)
		}
		p.report(flow.EndIdle, p.now+int64(5*time.Second))
		return false
	case refused:
		p.now += int64(p.s.rtt)
		p.packet(1, 0, flow.RST|flow.ACK)
		p.report(flow.EndRST, p.now)
		return false
	}
	p.now += int64(p.s.rtt)
	p.packet(1, 0, flow.SYN|flow.ACK)
	p.rec.SynAckUS = flow.SaturateUS(int64(p.s.rtt))
	p.rec.Validated[1] = true
	p.now += 60_000
	p.packet(0, 0, flow.ACK)
	p.rec.AckUS = 60
	p.rec.Validated[0] = true
	return true
}

// message sends a message in segments; every second one is acknowledged.
func (p *player) message(m msg) {
	size := m.size
	for n := 1; size > 0; n++ {
		cut := min(size, segment)
		size -= cut
		flags := uint8(flow.ACK)
		if size == 0 {
			flags |= flow.PSH
		}
		p.packet(m.dir, cut, flags)
		p.now += 30_000 + int64(cut)*8
		if p.s.proto == flow.TCP && (n%2 == 0 || size == 0) {
			p.packet(1-m.dir, 0, flow.ACK)
			p.now += 10_000
		}
	}
	p.now += int64(p.s.rtt / 2)
}

func (p *player) packet(dir, payload int, flags uint8) {
	d := &p.rec.Dir[dir]
	size := 28
	if p.s.proto == flow.TCP {
		size = 52
	}
	size += payload
	if d.Packets == 0 {
		d.First, d.SizeMin, d.TTL, d.Window = p.now, uint16(size), p.s.ttl[dir], p.s.window[dir]
	} else {
		gap := flow.SaturateUS(p.now - d.Last)
		d.GapMax = max(d.GapMax, gap)
		d.GapSq += uint64(gap) * uint64(gap)
	}
	d.Packets++
	d.Bytes += uint64(size)
	d.Payload += uint64(payload)
	d.SizeSq += uint64(size) * uint64(size)
	d.SizeMin, d.SizeMax = min(d.SizeMin, uint16(size)), max(d.SizeMax, uint16(size))
	d.Last, p.rec.Last = p.now, p.now
	if p.s.proto == flow.TCP {
		p.flags(d, flags)
	}
	if payload > 0 {
		p.payload(dir, payload)
	}
	if flow.Milestone(p.rec.Packets()) {
		p.reports = append(p.reports, Report{Rec: p.rec, At: p.now, Label: p.s.label, Nth: p.s.nth})
	}
}

func (p *player) flags(d *flow.Dir, flags uint8) {
	d.Flags |= flags
	for bit, n := range map[uint8]*uint16{flow.SYN: &d.SYN, flow.FIN: &d.FIN, flow.RST: &d.RST, flow.PSH: &d.PSH} {
		if flags&bit != 0 {
			*n++
		}
	}
}

func (p *player) payload(dir, n int) {
	r := &p.rec
	if r.NFirst == 0 {
		p.lastPay = r.Start
		r.Hint = p.s.hint
	}
	if r.NFirst < flow.First {
		r.Sizes[r.NFirst] = int16(n)
		if dir == 1 {
			r.Sizes[r.NFirst] = -int16(n)
		}
		r.Gaps[r.NFirst] = flow.SaturateUS(p.now - p.lastPay)
		r.NFirst++
	}
	p.lastPay = p.now
}

func (p *player) report(end flow.End, at int64) {
	p.rec.End = end
	p.reports = append(p.reports, Report{Rec: p.rec, At: at, Final: true, Label: p.s.label, Nth: p.s.nth})
}

// Merge joins report streams in the order of time.
func Merge(streams ...[]Report) []Report {
	out := slices.Concat(streams...)
	slices.SortStableFunc(out, func(a, b Report) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	return out
}

// lognormal draws around a median, within a range.
func lognormal(norm, median, spread, lo, hi float64) int {
	return int(math.Min(hi, math.Max(lo, median*math.Exp(spread*norm))))
}
