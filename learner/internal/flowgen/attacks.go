package flowgen

import (
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// stranger is an address outside that nobody met.
func (o *Office) stranger() netip.Addr {
	return netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + o.rng.IntN(254))})
}

// Scan is a stranger who tries n ports of an inside host.
func (o *Office) Scan(start time.Time, n int) []Report {
	who, victim := o.stranger(), o.Host(o.rng.IntN(8))
	var all []session
	for range n {
		s := o.inbound(start, who, victim, uint16(1+o.rng.IntN(10_000)), flow.HintNone)
		s.rtt, s.end = 3*time.Millisecond, refused
		if o.rng.Float64() < 0.2 {
			s.end = silent
		}
		all = append(all, s)
		start = start.Add(10*time.Millisecond + o.wait(30*time.Millisecond))
	}
	return o.play(all, "scan")
}

// Brute is a stranger who guesses passwords at the login server in n sessions.
func (o *Office) Brute(start time.Time, n int) []Report {
	who := o.stranger()
	var all []session
	for range n {
		s := o.inbound(start, who, o.sshd, 22, flow.HintSSH)
		keyExchange(&s)
		for range 3 {
			s.script = append(s.script, msg{0, 148, 30 * time.Millisecond}, msg{1, 52, 60 * time.Millisecond})
		}
		all = append(all, s)
		start = start.Add(200*time.Millisecond + o.wait(200*time.Millisecond))
	}
	return o.play(all, "brute")
}

// Beacon is an inside host that calls a stranger regularly through TLS, n
// times, and leaves something there each time.
func (o *Office) Beacon(start time.Time, n int) []Report {
	who, host := o.stranger(), o.Host(o.rng.IntN(8))
	every := time.Second + time.Duration(o.rng.Float64()*float64(time.Second))
	var all []session
	for range n {
		s := o.outbound(start, host, who, 443, flow.HintTLS)
		o.hello(&s)
		s.script = append(s.script, msg{0, 8_000 + o.rng.IntN(56_000), 0}, msg{1, 80 + o.rng.IntN(60), s.rtt})
		all = append(all, s)
		start = start.Add(every + time.Duration(o.rng.NormFloat64()*0.03*float64(every)))
	}
	return o.play(all, "beacon")
}

// Spurt is an inside host that suddenly sends a lot, encrypted, to a port that
// it hardly used: n connections of some megabytes.
func (o *Office) Spurt(start time.Time, n int) []Report {
	who, host := o.stranger(), o.Host(o.rng.IntN(8))
	port := uint16(8443 + o.rng.IntN(1000))
	var all []session
	for range n {
		s := o.outbound(start, host, who, port, flow.HintTLS)
		o.hello(&s)
		s.script = append(s.script, msg{0, o.size(3e6, 0.4, 1e6, 8e6), 0}, msg{1, 200, s.rtt})
		all = append(all, s)
		start = start.Add(300*time.Millisecond + o.wait(500*time.Millisecond))
	}
	return o.play(all, "spurt")
}
