//go:build linux

package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// Names of subjects, as they stand in tables and plots.
const (
	ours = "hedgerow"
	bare = "bare drop"
	hash = "xdp hash"
	trie = "xdp lpm trie"
	sets = "ipset"
	fltr = "xdp-filter"
)

// wireCase is one stream of packets, and what must become of all of them.
type wireCase struct {
	id, title string
	sources   func(p population) []xdpbench.Source
	drop      bool
	targets   map[string]float64
}

const (
	hotSources  = 1000
	legitimate  = 10000
	streamLimit = 1 << 20
)

var wireCases = []wireCase{
	{"hot", "drop of 1,000 attackers", func(p population) []xdpbench.Source { return sources(p.listed, hotSources) }, true,
		map[string]float64{nftBouncer.name: 5, nftIngress.name: 4}},
	{"random", "drop of listed sources at random", func(p population) []xdpbench.Source { return sources(p.listed, streamLimit) }, true,
		map[string]float64{nftBouncer.name: 2.3}},
	{"miss", "10,000 legitimate flows that no list holds", func(p population) []xdpbench.Source { return sources(p.others, legitimate) }, false,
		map[string]float64{nftBouncer.name: 4.5, nftInterval.name: 15, trie: 10}},
}

// wireRows measures the cost of a packet on a link, size after size; the last
// size gives the rows' figures and all of them the curves.
func (r *runner) wireRows() error {
	sizes := []int{1000, 10000, 100000, 1000000}
	if r.Quick {
		sizes = []int{1000, 5000}
	}
	if len(r.Sizes) > 0 {
		sizes = slices.Sorted(slices.Values(r.Sizes))
	}
	var done []Row
	for _, c := range wireCases {
		if r.wanted(c.id) {
			done = append(done, Row{ID: c.id, Title: c.title + fmt.Sprintf(", %d addresses", sizes[len(sizes)-1]), Unit: "CPU ns a packet, on a link"})
		}
	}
	for i, size := range sizes {
		n := r.Rounds
		if i < len(sizes)-1 {
			n = min(n, 3)
		}
		if err := r.wireSize(size, n, done); err != nil {
			return fmt.Errorf("%d addresses: %w", size, err)
		}
	}
	for _, row := range done {
		for _, c := range wireCases {
			for _, peer := range []string{nftBouncer.name, nftIngress.name, nftInterval.name, sets, trie, hash} {
				if c.id == row.ID {
					row.against(peer, ours, c.targets[peer])
				}
			}
		}
		row.againstFilter()
		row.Notes = append(row.Notes, missingPeers()...)
		r.report.Rows = append(r.report.Rows, row)
	}
	return nil
}

// wireSize measures all wanted rows with lists of one size.
func (r *runner) wireSize(size, rounds int, done []Row) (err error) {
	pop := populate(size)
	w, err := newWire(streamLimit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	receivers, m, err := r.fleet(w, pop)
	defer func() {
		for _, x := range receivers {
			err = errors.Join(err, x.close())
		}
	}()
	if err != nil {
		return err
	}
	for i := range done {
		row := &done[i]
		r.row.id = row.ID
		if err := r.wireCase(w, row, pop, receivers, m, rounds); err != nil {
			return fmt.Errorf("%s: %w", row.ID, err)
		}
		row.Curve = append(row.Curve, Point{Size: size, Series: row.Series})
	}
	return nil
}

func (r *runner) wireCase(w *wire, row *Row, pop population, receivers []*receiver, m *plane, rounds int) error {
	var c wireCase
	for _, c = range wireCases {
		if c.id == row.ID {
			break
		}
	}
	if err := w.stream.SetSources(c.sources(pop)); err != nil {
		return err
	}
	n := r.size(1500000, 30000)
	var subjects []subject
	for _, x := range receivers {
		if x.serves != nil && !x.serves(c) {
			continue
		}
		packets := n
		if x.name == nftInterval.name {
			packets = n / 4 // an order slower than the rest
		}
		measure := func() (float64, error) {
			return r.wireRound(x, packets, c.drop || x.drops, m, row)
		}
		if _, err := measure(); err != nil { // warms caches and makes the flows
			return err
		}
		subjects = append(subjects, subject{x.name, measure})
	}
	var err error
	row.Series, err = r.rounds(rounds, subjects)
	return err
}

// wireRound is one figure. Every packet must have met the verdict that its
// source implies, and the shipped program must have counted the same.
func (r *runner) wireRound(x *receiver, n int, drop bool, m *plane, row *Row) (float64, error) {
	before, err := m.Stats()
	if err != nil {
		return 0, err
	}
	ns, v, err := x.handle(n)
	if err != nil {
		return 0, err
	}
	right := v.Passed
	if drop {
		right = v.Dropped
	}
	if right != v.All() {
		return 0, fmt.Errorf("%s: verdicts %+v: expected all %d alike", x.name, v, v.All())
	}
	row.Packets += v.All()
	if x.name != ours {
		return ns, nil
	}
	after, err := m.Stats()
	if err != nil {
		return 0, err
	}
	if seen, dropped := after.Packets-before.Packets, after.Dropped-before.Dropped; seen != v.All() || dropped != v.Dropped {
		return 0, fmt.Errorf("the shipped program counted %d packets and %d drops: expected %d and %d", seen, dropped, v.All(), v.Dropped)
	}
	return ns, nil
}

// fleet makes a receiver for each subject, all with the same list. What it made
// is returned also on error.
func (r *runner) fleet(w *wire, pop population) (all []*receiver, m *plane, err error) {
	m, err = newPlane(planeOptions{flows: 65536, rules: uint32(len(pop.listed)) + 4096})
	if err != nil {
		return nil, nil, err
	}
	if err := r.doing("%s: loading %d addresses", ours, len(pop.listed)); err != nil {
		return nil, m, err
	}
	if err := m.list(pop.listed, nil, time.Now().Add(4*time.Hour)); err != nil {
		return nil, m, errors.Join(err, m.Close())
	}
	if err := m.stages(); err != nil {
		return nil, m, errors.Join(err, m.Close())
	}
	programs := []struct {
		name string
		make func() (*xdpbench.Program, error)
	}{
		{ours, func() (*xdpbench.Program, error) { return xdpbench.Hedgerow(ours, m.Measured) }},
		{bare, xdpbench.Bare},
		{hash, func() (*xdpbench.Program, error) { return xdpbench.Hash(pop.listed) }},
		{trie, func() (*xdpbench.Program, error) { return xdpbench.Trie(pop.listed) }},
	}
	for _, p := range programs {
		if err := r.doing("%s: loading %d addresses", p.name, len(pop.listed)); err != nil {
			return all, m, err
		}
		x, err := w.receive(p.name, attach(p.make))
		if err != nil {
			return all, m, err
		}
		x.drops = p.name == bare
		all = append(all, x)
	}
	all[0].closers = append(all[0].closers, m)
	for _, p := range r.peers(pop.listed) {
		if err := r.doing("%s: loading %d addresses", p.name, len(pop.listed)); err != nil {
			return all, m, err
		}
		x, err := w.receive(p.name, p.install)
		if err != nil {
			return all, m, err
		}
		x.serves, x.drops = p.serves, p.drops
		all = append(all, x)
	}
	return all, m, nil
}

type peer struct {
	name    string
	install func(*receiver) (func() (xdpbench.Verdicts, error), error)
	serves  func(wireCase) bool // see receiver
	drops   bool
}

// peers are those that are installed.
func (r *runner) peers(addrs []netip.Addr) []peer {
	var out []peer
	if installed("nft") {
		for _, l := range []layout{nftBouncer, nftIngress, nftInterval} {
			out = append(out, peer{name: l.name, install: l.install(r.dir, addrs)})
		}
	}
	if installed("ipset", "iptables") {
		out = append(out, peer{name: sets, install: installIpset(addrs)})
	}
	if installed("xdp-filter") && len(addrs) <= xdpbench.FilterMost {
		out = append(out,
			peer{fltr, installFilter("allow", addrs), func(c wireCase) bool { return c.drop }, true},
			peer{fltr, installFilter("deny", addrs), func(c wireCase) bool { return !c.drop }, true})
	}
	return out
}

// missingPeers are the words for those that are not installed.
func missingPeers() []string {
	var out []string
	if !installed("nft") {
		out = append(out, "nftables is left out: nft is not installed")
	}
	if !installed("ipset", "iptables") {
		out = append(out, "ipset is left out: ipset or iptables is not installed")
	}
	if !installed("xdp-filter") {
		out = append(out, "xdp-filter is left out: it is not installed (package xdp-tools)")
	}
	return out
}

// againstFilter adds the ratio to xdp-filter at the longest list that it took.
func (row *Row) againstFilter() {
	for _, p := range slices.Backward(row.Curve) {
		f, o := series(p.Series, fltr), series(p.Series, ours)
		if f != nil && o != nil {
			row.Ratios = append(row.Ratios, compare(fmt.Sprintf("%s / %s, %d addresses", fltr, ours, p.Size), f.Values, o.Values, 0, false))
			return
		}
	}
	if installed("xdp-filter") {
		row.Notes = append(row.Notes, fmt.Sprintf("xdp-filter is left out: it holds %d addresses at most", xdpbench.FilterMost))
	}
}

// attach puts a program on a receiver.
func attach(make func() (*xdpbench.Program, error)) func(*receiver) (func() (xdpbench.Verdicts, error), error) {
	return func(r *receiver) (func() (xdpbench.Verdicts, error), error) {
		p, err := make()
		if err != nil {
			return nil, err
		}
		r.closers = append(r.closers, p)
		return p.Verdicts, r.space.Do(func() error {
			l, err := p.Attach(r.index)
			if err == nil {
				r.closers = append(r.closers, l)
			}
			return err
		})
	}
}
