//go:build linux

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// testRun is one program over one stream of packets that all must pass.
func testRun(p *xdpbench.Program, s *xdpbench.Stream, n int, row *Row) (float64, error) {
	was, err := p.Verdicts()
	if err != nil {
		return 0, err
	}
	took, err := p.Run(s, n)
	if err != nil {
		return 0, err
	}
	now, err := p.Verdicts()
	if err != nil {
		return 0, err
	}
	if v := now.Less(was); v.All() != v.Passed || v.All() < uint64(n) {
		return 0, fmt.Errorf("%s: verdicts %+v of %d legitimate packets: expected all to pass", p.Name, v, n)
	}
	row.Packets += uint64(n)
	return float64(took.Nanoseconds()), nil
}

// networks are n distinct prefixes, mostly /24, that hold none of the addresses.
func networks(n int, free []netip.Addr) []netip.Prefix {
	rng := rand.New(rand.NewPCG(uint64(n), 75))
	taken := map[netip.Prefix]bool{}
	for _, a := range free {
		for bits := 16; bits <= 28; bits++ {
			taken[netip.PrefixFrom(a, bits).Masked()] = true
		}
	}
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		v := rng.Uint32()
		if !public(v) {
			continue
		}
		bits := 24
		switch rng.IntN(10) {
		case 0:
			bits = 16 + rng.IntN(8)
		case 1, 2:
			bits = 25 + rng.IntN(4)
		}
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), bits).Masked()
		if !taken[p] {
			taken[p] = true
			out = append(out, p)
		}
	}
	return out
}

// fullRow is the whole program with a list in its own tables, against the same
// program with the list in the kernel's hash and trie.
func (r *runner) fullRow() (err error) {
	addrs, nets, flows := r.size(100000, 2000), r.size(75000, 1000), r.size(10000, 1000)
	row := Row{
		ID: "full", Title: fmt.Sprintf("the whole program on a legitimate packet, %d flows, %d addresses, %d networks", flows, addrs, nets),
		Unit: "ns a packet, test run",
	}
	pop := populate(addrs)
	legit := pop.others[:flows]
	pfx := networks(nets, legit)
	until := time.Now().Add(4 * time.Hour)
	s, err := xdpbench.NewStream(xdpbench.Ends{From: sendMAC, To: recvMAC, Dst: recvAddr, TCP: true}, flows)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.SetSources(sources(legit, flows)); err != nil {
		return err
	}
	var subjects []subject
	add := func(name string, load func(*plane) error) error {
		if err := r.doing("%s: loading", name); err != nil {
			return err
		}
		m, err := newPlane(planeOptions{flows: 65536, rules: uint32(addrs+nets) + 4096})
		if err != nil {
			return err
		}
		p, err := xdpbench.Hedgerow(name, m.Measured)
		if err != nil {
			return errors.Join(err, m.Close())
		}
		subjects = append(subjects, subject{name, func() (float64, error) { return testRun(p, s, r.size(1000000, 20000), &row) }})
		r.later(p.Close, m.Close)
		if err := errors.Join(load(m), m.stages()); err != nil {
			return err
		}
		_, err = p.Run(s, 2*flows) // makes the flows
		return err
	}
	defer func() { err = errors.Join(err, r.closeAll()) }()
	const oracle = "same on hash and trie"
	if err := add(oracle, func(m *plane) error { return m.single(pop.listed, pfx, until) }); err != nil {
		return err
	}
	if err := add(ours, func(m *plane) error { return m.list(pop.listed, pfx, until) }); err != nil {
		return err
	}
	if row.Series, err = r.rounds(r.Rounds, subjects); err != nil {
		return err
	}
	a, b := series(row.Series, ours), series(row.Series, oracle)
	row.Ratios = append(row.Ratios, compare(ours+" / "+oracle, a.Values, b.Values, 0.75, true))
	r.report.Rows = append(r.report.Rows, row)
	return nil
}
