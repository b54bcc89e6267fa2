package gossip

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// How a site stays reachable through relays.
const (
	relays       = 3
	reserveAgain = 10 * time.Minute // a reservation holds for an hour
	reserveRetry = 2 * time.Second
	maxNear      = 8 // addresses found on the local network, of one site
)

// reach is how the host reaches others and is reached. Every site can use relays;
// a relay serves the roster alone and without limits of its own, since the
// organisations' budgets hold for what it carries. Hole punching (DCUtR) turns a
// relayed connection into a direct one where the translations allow it.
func (t *Transport) reach() []libp2p.Option {
	out := []libp2p.Option{libp2p.EnableRelay(), libp2p.EnableHolePunching()}
	if t.opt.Behind {
		out = append(out, libp2p.ForceReachabilityPrivate())
	}
	if t.opt.Relay {
		out = append(out, libp2p.ForceReachabilityPublic(), libp2p.EnableRelayService(relay.WithInfiniteLimits(), relay.WithACL(&gater{t})))
	}
	return out
}

// AllowReserve lets the roster's sites be reachable through us.
func (g *gater) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return g.InterceptPeerDial(p) }

// AllowConnect lets the roster's sites reach the roster's sites through us.
func (g *gater) AllowConnect(src peer.ID, _ ma.Multiaddr, dest peer.ID) bool {
	return g.InterceptPeerDial(src) && g.InterceptPeerDial(dest)
}

func relayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// waysTo lists a site's addresses: those of the roster, those found nearby, and,
// as it may be behind a translation, the way over every relay that we know.
func (t *Transport) waysTo(l *peerLink) []ma.Multiaddr {
	l.mu.Lock()
	out := slices.Concat(l.site.addrs, l.near)
	l.mu.Unlock()
	for _, r := range t.relays() {
		if via, err := ma.NewMultiaddr("/p2p/" + r.String() + "/p2p-circuit"); err == nil && r != l.pid {
			out = append(out, via)
		}
	}
	return out
}

// relays lists the connected sites that offer to relay.
func (t *Transport) relays() []peer.ID {
	var out []peer.ID
	for _, l := range t.links.all() {
		if !t.connected(l.pid) {
			continue
		}
		if can, err := t.host.Peerstore().SupportsProtocols(l.pid, circuit.ProtoIDv2Hop); err == nil && len(can) > 0 {
			out = append(out, l.pid)
		}
	}
	slices.Sort(out)
	return out
}

// stayReachable keeps reservations with up to three relays.
func (t *Transport) stayReachable(ctx context.Context) {
	until := make(map[peer.ID]time.Time)
	tick := time.NewTicker(reserveRetry)
	defer tick.Stop()
	for {
		held := 0
		for _, r := range t.relays() {
			if held == relays {
				break
			}
			if time.Now().Before(until[r]) || t.reserve(ctx, r, until) {
				held++
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *Transport) reserve(ctx context.Context, r peer.ID, until map[peer.ID]time.Time) bool {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "reserve"), dialTimeout)
	defer cancel()
	if _, err := client.Reserve(ctx, t.host, peer.AddrInfo{ID: r}); err != nil {
		t.opt.Log.Debug("a relay gave no place; it will be asked again", "id", r.String(), "error", err)
		return false
	}
	until[r] = time.Now().Add(reserveAgain)
	return true
}

// findNear announces the site on the local network, if that is wanted.
func (t *Transport) findNear() (stop func()) {
	if !t.opt.Discover {
		return func() {}
	}
	s := mdns.NewMdnsService(t.host, "_hedgerow._udp", nearby{t})
	if err := s.Start(); err != nil {
		t.opt.Log.Warn("sites on the local network are not looked for", "error", err)
		return func() {}
	}
	return func() { _ = s.Close() }
}

// nearby takes addresses of roster sites from the local network. They are hints:
// who answers there must still show its key.
type nearby struct{ t *Transport }

// HandlePeerFound implements mdns.Notifee.
func (n nearby) HandlePeerFound(pi peer.AddrInfo) {
	l := n.t.links.get(pi.ID)
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.near = pi.Addrs[:min(len(pi.Addrs), maxNear)]
}
