package scenario

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// attack draws the parameters of one attack; the same seed, attack, site and
// hostile address give the same sessions.
func (s *Scenario) attack(kind Attack, site *Site, who netip.Addr) (*rand.Rand, func(Session) Session) {
	salt := uint64(0x626164)
	for _, c := range string(kind) + site.Name + who.String() {
		salt = salt*131 + uint64(c)
	}
	rng := rand.New(rand.NewPCG(s.Seed, salt))
	id := 1<<63 | salt<<16
	return rng, func(t Session) Session {
		id++
		t.ID, t.Attack, t.Site = id, kind, site.Name
		return t
	}
}

// ScanOf is the scanner's tour over the ports of a site's server: a probe each
// 20 to 45 ms, nearly all of them closed, and then it comes back to the open
// ones, once a second or so. Behind a masquerading gateway only the forwarded
// ports can be reached, so there it is those.
func (s *Scenario) ScanOf(site *Site) []Timed {
	rng, mark := s.attack(Scan, site, s.Scanner)
	var out []Timed
	probe := func(after time.Duration, port uint16) {
		out = append(out, Timed{
			After: after,
			Session: mark(Session{
				Kind: Probe, Inbound: true, From: s.Scanner, To: site.Server.Addr, Port: port,
				Closed: !isOpen(port), Timeout: 1500 * time.Millisecond,
			}),
		})
	}
	for _, port := range scanPorts(rng, site) {
		probe(20*time.Millisecond+time.Duration(rng.IntN(25))*time.Millisecond, port)
	}
	for i := range returns {
		probe(1100*time.Millisecond+time.Duration(rng.IntN(300))*time.Millisecond, site.Forwarded()[i%3])
	}
	return out
}

// returns is how often the scanner comes back to open ports.
const returns = 9

func scanPorts(rng *rand.Rand, site *Site) []uint16 {
	open := site.Forwarded()
	if site.NAT {
		return open
	}
	seen := map[uint16]bool{}
	var ports []uint16
	for len(ports) < 80 {
		p := uint16(20 + rng.IntN(9000))
		if !seen[p] && !isOpen(p) {
			seen[p] = true
			ports = append(ports, p)
		}
	}
	// The open ones turn up after the scan has shown itself, as a scanner
	// that goes through ports in random order meets them.
	for i, p := range open {
		at := 30 + 12*i + rng.IntN(8)
		ports[at] = p
	}
	return ports
}

func isOpen(port uint16) bool { return port == PortSSH || port == PortHTTP || port == PortTLS }

// BruteOf is the guesser at a site's SSH server: sessions of three wrong
// passwords each, four to six a second.
func (s *Scenario) BruteOf(site *Site) []Timed {
	rng, mark := s.attack(Brute, site, s.Guesser)
	var out []Timed
	for range 45 {
		var guesses []string
		for range 3 {
			guesses = append(guesses, fmt.Sprintf("guess-%08x", rng.Uint32()))
		}
		out = append(out, Timed{
			After: 160*time.Millisecond + time.Duration(rng.IntN(90))*time.Millisecond,
			Session: mark(Session{
				Kind: SSH, Inbound: true, From: s.Guesser, To: site.Server.Addr, Port: PortSSH,
				Passwords: guesses, Timeout: 3 * time.Second,
			}),
		})
	}
	return out
}

// BeaconOf is an inside host that leaks through TLS: about once a second it
// sends 16 to 96 KB to its master, in one piece, and gets a few bytes back. Like
// real ones it shuffles its pauses, so as not to keep time.
func (s *Scenario) BeaconOf(site *Site, host, master netip.Addr) []Timed {
	rng, mark := s.attack(Beacon, site, master)
	period := 900*time.Millisecond + time.Duration(rng.IntN(200))*time.Millisecond
	var out []Timed
	for range 20 {
		jitter := 1 + 0.7*(2*rng.Float64()-1)
		out = append(out, Timed{
			After: time.Duration(float64(period) * jitter),
			Session: mark(Session{
				Kind: TLS, From: host, To: master, Port: PortTLS, Timeout: 3 * time.Second,
				Script: []Exchange{{Up: size(rng, 16_000, 96_000), Down: 40 + rng.IntN(80)}},
			}),
		})
	}
	return out
}

// SpurtOf is an inside host that pours megabytes of encrypted traffic to a port
// that it never used: six connections of about 3 MB.
func (s *Scenario) SpurtOf(site *Site, host netip.Addr) []Timed {
	rng, mark := s.attack(Spurt, site, s.Sink)
	var out []Timed
	for range 6 {
		var script []Exchange
		for range 12 {
			script = append(script, Exchange{
				Think: time.Duration(10+rng.IntN(30)) * time.Millisecond,
				Up:    200_000 + rng.IntN(120_000), Down: 30 + rng.IntN(50),
			})
		}
		out = append(out, Timed{
			After: 400 * time.Millisecond,
			Session: mark(Session{
				Kind: TLS, From: host, To: s.Sink, Port: s.SpurtPort, Script: script, Timeout: 8 * time.Second,
			}),
		})
	}
	return out
}
