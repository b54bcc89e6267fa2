package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// gateways are whole nodes of one organisation over software planes.
type gateways struct {
	*crowd
	hosts  []*host
	nodes  []*node.Node
	stores []*store.Store
	watch  *watch
}

// watch notes when the sites' planes enforce what was ordered.
type watch struct {
	mu   sync.Mutex
	at   map[netip.Addr]map[int]time.Time
	news chan struct{} // something was noted
}

// plane is a site's packet path; it notes when rules are in force.
type plane struct {
	dataplane.Plane
	site  int
	watch *watch
}

func (p plane) Apply(rules ...dataplane.Rule) error {
	if err := p.Plane.Apply(rules...); err != nil {
		return err
	}
	now := time.Now()
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	for _, r := range rules {
		seen := p.watch.at[r.Target.Prefix.Addr()]
		if _, known := seen[p.site]; seen != nil && !known && r.Action == dataplane.Block {
			seen[p.site] = now
		}
	}
	select {
	case p.watch.news <- struct{}{}:
	default:
	}
	return nil
}

// startGateways brings the nodes up, one after the other.
func startGateways(ctx context.Context, r *runner) (g *gateways, err error) {
	hosts, err := open(r.Sites, false)
	if err != nil {
		return nil, err
	}
	g = &gateways{crowd: gather(ctx), hosts: hosts, watch: &watch{at: make(map[netip.Addr]map[int]time.Time), news: make(chan struct{}, 1)}}
	for i, h := range hosts {
		if err := g.start(r, i, h); err != nil {
			return g, fmt.Errorf("%s: %w", h.name, err)
		}
		if err := h.connected(g.ctx, i); err != nil {
			return g, err
		}
	}
	return g, nil
}

func (g *gateways) start(r *runner, i int, h *host) error {
	p, err := softplane.Open(softplane.Options{Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		return err
	}
	st, err := store.Open(filepath.Join(r.dir, "enforce", h.name), store.Options{})
	if err != nil {
		return err
	}
	g.stores = append(g.stores, st)
	n, err := node.New(node.Options{
		Site: h.name, Version: "bench", Interface: "software", Plane: plane{p, i, g.watch}, Mode: dataplane.Enforce, Store: st, Key: h.key,
		Policy: node.PolicyOptions{Suspend: 30 * time.Second, Block: time.Hour, MaxBlocksPerHour: 100000, MaxShare: 1, Rules: true},
		Mesh:   node.MeshOptions{Organisation: h.org, Roster: h.roster, Transport: h.Transport, RoundEvery: time.Hour, Addrs: h.Addrs},
	})
	if err != nil {
		return err
	}
	g.nodes = append(g.nodes, n)
	g.run(h.name, n.Run)
	return nil
}

// end stops the nodes, then what they stood on.
func (g *gateways) end() error {
	err := g.crowd.end()
	for _, h := range g.hosts[len(g.nodes):] { // those that no node ever ran
		err = errors.Join(err, h.Close())
	}
	for _, s := range g.stores {
		err = errors.Join(err, s.Close())
	}
	return err
}

// spread blocks an address at one site and waits until all enforce it; it returns
// how long each other site took from the order on.
func (g *gateways) spread(at int, a netip.Addr) ([]time.Duration, error) {
	g.watch.mu.Lock()
	g.watch.at[a] = make(map[int]time.Time)
	g.watch.mu.Unlock()
	began := time.Now()
	err := g.nodes[at].Order(g.ctx, api.Order{Target: a.String(), Action: dataplane.Block.String(), Reason: "seen guessing passwords", Share: true})
	if err != nil {
		return nil, err
	}
	if err := g.enforced(a); err != nil {
		return nil, err
	}
	var out []time.Duration
	g.watch.mu.Lock()
	defer g.watch.mu.Unlock()
	for site, t := range g.watch.at[a] {
		if site != at {
			out = append(out, t.Sub(began))
		}
	}
	return out, nil
}

// enforced waits until every site does.
func (g *gateways) enforced(a netip.Addr) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		g.watch.mu.Lock()
		n := len(g.watch.at[a])
		g.watch.mu.Unlock()
		if n == len(g.nodes) {
			return nil
		}
		select {
		case <-g.watch.news:
		case <-late.C:
			return fmt.Errorf("%s is enforced at %d of %d sites after %v", a, n, len(g.nodes), patience)
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		}
	}
}

// address is the nth of those that are kept for documentation.
func address(n int) netip.Addr {
	nets := [][3]byte{{203, 0, 113}, {198, 51, 100}, {192, 0, 2}}
	p := nets[n/250%len(nets)]
	return netip.AddrFrom4([4]byte{p[0], p[1], p[2], byte(1 + n%250)})
}

// enforceRow orders one block after the other, each at another site.
func enforceRow(ctx context.Context, r *runner) (_ *Row, err error) {
	g, err := startGateways(ctx, r)
	if g != nil {
		defer func() { err = errors.Join(err, g.end()) }()
	}
	if err != nil {
		return nil, err
	}
	const first = 4 // they find out about each other's topics meanwhile
	var each, last []time.Duration
	for i := range first + r.Messages {
		// Their disks are one here: what all of them write of a block is written
		// before the next one.
		if err := pause(g.ctx, time.Duration(len(g.nodes))*4*time.Millisecond); err != nil {
			return nil, err
		}
		took, err := g.spread(i%len(g.nodes), address(i))
		if err != nil {
			return nil, err
		}
		if i < first {
			continue
		}
		var slowest time.Duration
		for _, d := range took {
			slowest = max(slowest, d)
		}
		each, last = append(each, took...), append(last, slowest)
	}
	row := &Row{Sites: r.Sites, Series: []Series{series("block until a site enforces it", each), series("block until the last site does", last)}}
	row.Figures = append(row.Series[0].delays(50, 500), row.Series[1].delays(0, 0)...)
	row.Notes = append(row.Notes, fmt.Sprintf("%d blocks by hand, shared; %d sites of one organisation, whole nodes with stores on the disk", r.Messages, r.Sites))
	return row, nil
}
