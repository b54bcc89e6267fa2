//go:build linux

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// Names of series.
const (
	lru      = "same on LRU_HASH"
	keptOurs = "flows kept by hedgerow, %"
	keptLRU  = "flows kept by LRU_HASH, %"
)

// flowTables is the same program over two tables of one size: ours, LRU_HASH.
type flowTables struct {
	stream *xdpbench.Stream
	tables [2]*xdpbench.Flows
}

func newFlowTables(flows, sources int) (f *flowTables, err error) {
	f = new(flowTables)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
			f = nil
		}
	}()
	e := xdpbench.Ends{From: sendMAC, To: recvMAC, Dst: recvAddr, TCP: true, Empty: true}
	if f.stream, err = xdpbench.NewStream(e, sources); err != nil {
		return f, err
	}
	for i, name := range []string{ours, lru} {
		if f.tables[i], err = xdpbench.LoadFlows(name, uint32(flows), i == 1, e); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *flowTables) close() error {
	var errs []error
	for _, t := range f.tables {
		if t != nil {
			errs = append(errs, t.Close())
		}
	}
	if f.stream != nil {
		errs = append(errs, f.stream.Close())
	}
	return errors.Join(errs...)
}

// subjects are both tables; before a round of either, its list becomes the stream.
func (f *flowTables) subjects(row *Row, list func(round int) []xdpbench.Source) []subject {
	var out []subject
	for _, t := range f.tables {
		round := 0
		out = append(out, subject{t.Name, func() (float64, error) {
			round++
			return f.play(t, list(round), row)
		}})
	}
	return out
}

// play shows each packet of a list to one table; all must pass.
func (f *flowTables) play(t *xdpbench.Flows, list []xdpbench.Source, row *Row) (float64, error) {
	if err := f.stream.SetSources(list); err != nil {
		return 0, err
	}
	return testRun(t.Program, f.stream, len(list), row)
}

// client is one of up to 2^24.
func client(i int) xdpbench.Source {
	return xdpbench.Source{Addr: netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 40000}
}

func firstClients(n int) []xdpbench.Source {
	out := make([]xdpbench.Source, n)
	for i := range out {
		out[i] = client(i)
	}
	return out
}

// stranger never meets a client.
func stranger(rng *rand.Rand) xdpbench.Source {
	x := rng.Uint32()
	return xdpbench.Source{Addr: netip.AddrFrom4([4]byte{200 + byte(x>>24)%20, byte(x >> 16), byte(x >> 8), byte(x)}), Port: uint16(rng.Uint32())}
}

// flowRow is one packet of a known flow, of ever more.
func (r *runner) flowRow() error {
	sizes := []int{1000, 10000, 100000, 1000000}
	if r.Quick {
		sizes = []int{1000, 5000}
	}
	row := Row{
		ID: "flow", Title: fmt.Sprintf("the whole program on a packet of a known flow, in random order, %d flows", sizes[len(sizes)-1]),
		Unit: "ns a packet, test run", Axis: "flows that are known",
	}
	for i, n := range sizes {
		rounds := r.Rounds
		if i < len(sizes)-1 {
			rounds = min(rounds, 3)
		}
		if err := r.flowSize(&row, n, rounds); err != nil {
			return fmt.Errorf("%d flows: %w", n, err)
		}
	}
	row.against(lru, ours, 1.7)
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

func (r *runner) flowSize(row *Row, n, rounds int) (err error) {
	if err := r.doing("making %d flows", n); err != nil {
		return err
	}
	known := firstClients(n)
	fill := make([]xdpbench.Source, 0, 3*n) // the second packet makes a flow what it stays
	for _, c := range known {
		fill = append(fill, c, c, c)
	}
	list := make([]xdpbench.Source, r.size(1<<20, 1<<15))
	f, err := newFlowTables(max(n, 65536), max(len(list), len(fill)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range list {
		list[i] = known[rng.IntN(n)]
	}
	var kept [2]int
	for i, t := range f.tables {
		if _, err := f.play(t, fill, row); err != nil {
			return err
		}
		ids, err := t.Known(known)
		if err != nil {
			return err
		}
		kept[i] = len(ids)
	}
	row.Series, err = r.rounds(rounds, f.subjects(row, func(int) []xdpbench.Source { return list }))
	row.Curve = append(row.Curve, Point{Size: n, Series: row.Series})
	row.Notes = []string{fmt.Sprintf("of %d flows in a table for %d, %d were in ours and %d in LRU_HASH", n, max(n, 65536), kept[0], kept[1])}
	return err
}

// floodRow is what a flood costs in which every packet is a new flow, and what
// becomes of the flows that were there before.
func (r *runner) floodRow() error {
	sizes := []int{65536, 1 << 20}
	if r.Quick {
		sizes = []int{2048, 4096}
	}
	row := Row{
		ID: "flood", Title: fmt.Sprintf("the whole program on a packet of a flood in which each is a new flow, table for %d flows", sizes[len(sizes)-1]),
		Unit: "ns a packet, test run", Axis: "flows that the table can hold",
	}
	for _, n := range sizes {
		if err := r.floodSize(&row, n); err != nil {
			return fmt.Errorf("table for %d flows: %w", n, err)
		}
		a, b := series(row.Series, lru), series(row.Series, ours)
		row.Ratios = append(row.Ratios, compare(fmt.Sprintf("%s / %s, table for %d", lru, ours, n), a.Values, b.Values, 3, false))
	}
	if err := r.survival(&row); err != nil {
		return fmt.Errorf("survival: %w", err)
	}
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

func (r *runner) floodSize(row *Row, n int) (err error) {
	packets := r.size(1<<20, 1<<15)
	f, err := newFlowTables(n, packets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	strangers := func(round int) []xdpbench.Source {
		return mix(rand.New(rand.NewPCG(2, uint64(round))), packets, attack{each: 1})
	}
	for _, t := range f.tables { // fills the table
		if _, err := f.play(t, strangers(0), row); err != nil {
			return err
		}
	}
	row.Series, err = r.rounds(r.Rounds, f.subjects(row, strangers))
	row.Curve = append(row.Curve, Point{Size: n, Series: row.Series})
	return err
}

// attack is a flood beside legitimate packets: their share in percent, the
// clients that they are of, and how many packets each stranger sends.
type attack struct{ share, clients, each int }

// mix is n packets of an attack. A stranger's come close together.
func mix(rng *rand.Rand, n int, a attack) []xdpbench.Source {
	list := make([]xdpbench.Source, 0, n)
	var recent [64]xdpbench.Source
	for i := range recent {
		recent[i] = stranger(rng)
	}
	for k := 0; len(list) < n; k++ {
		switch at := rng.IntN(len(recent)); {
		case rng.IntN(100) < a.share:
			list = append(list, client(rng.IntN(a.clients)))
		case a.each == 1:
			list = append(list, stranger(rng))
		default:
			if k%a.each == 0 {
				recent[at] = stranger(rng)
			}
			list = append(list, recent[at])
		}
	}
	return list
}

// survival floods a table that holds established flows, six ways (quick: two),
// and compares how many of them keep their state.
func (r *runner) survival(row *Row) error {
	clients := r.size(50000, 1000)
	shares := []int{2, 10, 50}
	if r.Quick {
		shares = []int{10}
	}
	kept := []Series{{Name: keptOurs}, {Name: keptLRU}}
	worst := Ratio{Name: fmt.Sprintf("legitimate flows kept, over LRU_HASH's, each plus one, worst of %d floods", 2*len(shares)), Target: 1}
	for _, each := range []int{1, 2} {
		for _, share := range shares {
			a := attack{share, clients, each}
			if err := r.doing("flood of %d-packet strangers, %d %% legitimate", each, share); err != nil {
				return err
			}
			had, has, err := r.surviveOne(row, a)
			if err != nil {
				return err
			}
			var part [2]float64
			for i := range kept {
				part[i] = 100 * float64(has[i]) / float64(clients)
				kept[i].Values = append(kept[i].Values, part[i])
			}
			if more := float64(has[0]+1) / float64(has[1]+1); worst.Mean == 0 || more < worst.Mean {
				worst.Mean, worst.Bound = more, more
			}
			row.Notes = append(row.Notes, fmt.Sprintf("strangers of %d packets, %d %% legitimate: of %d flows with a handshake %.1f %% keep their state, in LRU_HASH %.1f %% (before: %d and %d)",
				each, share, clients, part[0], part[1], had[0], had[1]))
		}
	}
	for _, s := range kept {
		s.Median = median(s.Values)
		row.Series = append(row.Series, s)
	}
	row.Ratios = append(row.Ratios, worst)
	return nil
}

// surviveOne is how many clients had a flow in each table, and how many had the
// same one after the flood.
func (r *runner) surviveOne(row *Row, a attack) (had, has [2]int, err error) {
	packets := r.size(1<<20, 1<<15)
	f, err := newFlowTables(r.size(65536, 2048), packets)
	if err != nil {
		return had, has, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	all := firstClients(a.clients)
	list := mix(rand.New(rand.NewPCG(3, uint64(a.share))), packets, a)
	for i, t := range f.tables {
		if err := t.Establish(all); err != nil {
			return had, has, err
		}
		were, err := t.Known(all)
		if err != nil {
			return had, has, err
		}
		had[i] = len(were)
		if _, err := f.play(t, list, row); err != nil {
			return had, has, err
		}
		if has[i], err = t.Kept(were); err != nil {
			return had, has, err
		}
	}
	return had, has, nil
}
