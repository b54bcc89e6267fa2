// Package gossip carries a federation's messages over libp2p. It is the only
// package that knows libp2p.
//
// A Transport is one host: TCP with Noise and QUIC with TLS 1.3, under the site's
// own key, so that a connection proves which site is at its other end. Only the
// roster gets through: the gater closes any other connection as soon as the
// handshake has shown its key, before a byte of ours is said. A roster is used
// rather than a shared secret because it allows QUIC and single revocation. It may
// change at any time (SetRoster): who is no longer in it, or whose certificate
// ends, is cut off at once, and what it signed is not forwarded any more.
//
// Every organisation has a budget of messages and bytes; what is above it is
// dropped before a signature is checked where its author sent it itself, and who
// keeps sending is cut off until most of that is forgotten.
//
// Broadcasts go through gossipsub (StrictSign) on one topic for each
// federation.Topic, of the organisation or, where it is Shared, of all; the Handler's verdict is the validator's, so nothing
// that a site refuses is forwarded by it, and who sends invalid messages sinks in
// score. Gossip is lossy by nature; requests run on streams of their own, with
// sizes and deadlines on both ends, and the federation pulls over them what was
// lost. The rounds' words go straight to every site as long as all are connected, and
// by gossip otherwise.
//
// Queues are 4096 where the library's defaults are 32, with which bursts lose
// messages silently. Every site of the roster with addresses is dialled again,
// with growing pauses, as long as Run runs.
package gossip

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/gologshim"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// Errors that a caller may test for.
var (
	ErrListen  = errors.New("gossip: cannot listen")
	ErrAddress = errors.New("gossip: bad address")
	ErrStopped = errors.New("gossip: the transport is not running")
	ErrTooBig  = errors.New("gossip: message too large")
)

// Options configure a Transport. Key and Organisation are required.
type Options struct {
	Key          *identity.Key
	Organisation string   // in the names of topics: a-z, 0-9, '-' and '.', at most 64
	Listen       []string // multiaddresses, as /ip4/0.0.0.0/tcp/4400; none: only dial
	Roster       []federation.Site
	Budget       Budget
	Log          *slog.Logger

	// DialEvery and DialAtMost are the first and the longest pause between two
	// attempts to reach a site (500 ms, 30 s).
	DialEvery, DialAtMost time.Duration

	// Discover announces the site on the local network and finds others of the
	// roster there, by multicast DNS.
	Discover bool
	// Relay carries traffic of roster sites that cannot reach each other. Behind
	// says that others cannot reach this site (an address translation without a
	// forwarded port): it asks up to three relays to be reachable through them.
	Relay, Behind bool

	// Now is the clock that certificates are held against.
	Now func() time.Time
}

// Transport is a libp2p host that serves one federation.Member.
type Transport struct {
	opt    Options
	host   host.Host
	rcmgr  io.Closer
	self   identity.ID
	topics map[federation.Topic]string
	proto  protocol.ID
	ledger *ledger

	links   links
	refused refusals
	scores  sync.Map // peer.ID -> float64
	traffic traffic

	said, gossiped, heard recent // words of ours; those that gossip had to carry; others' that came straight

	mu     sync.Mutex
	joined map[federation.Topic]*pubsub.Topic // nil unless running
	run    *running                           // nil unless running
	closed bool
	began  bool
}

var organisation = regexp.MustCompile(`^[a-z0-9.-]{1,64}$`)

// New opens the host and listens. Nothing is delivered or dialled until Run;
// who never runs it must Close it.
func New(opt Options) (*Transport, error) {
	if opt.Key == nil {
		return nil, errors.New("gossip: key: a site needs one")
	}
	if !organisation.MatchString(opt.Organisation) {
		return nil, fmt.Errorf("gossip: organisation: %.80q: expected 1 to 64 of a-z, 0-9, '-' and '.'", opt.Organisation)
	}
	gologshim.SetDefaultHandler(slog.DiscardHandler) // libp2p writes to standard error by itself; we say what matters, and where
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.DialEvery <= 0 {
		opt.DialEvery = 500 * time.Millisecond
	}
	if opt.DialAtMost < opt.DialEvery {
		opt.DialAtMost = max(30*time.Second, opt.DialEvery)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	t := &Transport{
		opt: opt, self: opt.Key.ID(),
		topics: make(map[federation.Topic]string),
		proto:  sharedProtocol("request"), // who may ask what, the Member decides
		ledger: newLedger(opt.Budget, opt.Now),
	}
	for _, topic := range federation.Topics() {
		t.topics[topic] = "/hedgerow/1/" + opt.Organisation + "/" + string(topic)
		if topic.Shared() {
			t.topics[topic] = "/hedgerow/1//" + string(topic) // no organisation's name is empty
		}
	}
	fresh, err := t.links.set(opt.Roster, t.self)
	if err != nil {
		return nil, err
	}
	t.ledger.bill(fresh)
	if err := t.open(); err != nil {
		return nil, err
	}
	return t, nil
}

// parseAddrs reads multiaddresses of TCP or QUIC, without a /p2p part: the
// roster says who is there.
func parseAddrs(in []string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, s := range in {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("address %q: %v; expected a form like /ip4/192.0.2.1/tcp/4400 or /ip4/192.0.2.1/udp/4400/quic-v1", s, err)
		}
		if _, err := a.ValueForProtocol(ma.P_P2P); err == nil {
			return nil, fmt.Errorf("address %q: give it without /p2p/...: the id is in the roster", s)
		}
		out = append(out, a)
	}
	return out, nil
}

func (t *Transport) open() error {
	listen, err := parseAddrs(t.opt.Listen)
	if err != nil {
		return fmt.Errorf("%w: listen: %v", ErrAddress, err)
	}
	priv, err := crypto.UnmarshalEd25519PrivateKey(t.opt.Key.Private())
	if err != nil {
		return fmt.Errorf("gossip: key: %v", err)
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(resourceLimits(max(t.links.len(), roomFor))), rcmgr.WithMetricsDisabled())
	if err != nil {
		return fmt.Errorf("gossip: limits: %v", err)
	}
	t.rcmgr = limits
	t.host, err = libp2p.New(append(t.reach(),
		libp2p.NoListenAddrs, // Listen below: a host that fails to listen in New is not cleaned up
		libp2p.Identity(priv),
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(quic.NewTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.ConnectionGater(&gater{t}),
		libp2p.ResourceManager(limits),
		libp2p.DisableMetrics(),
		libp2p.BandwidthReporter(&t.traffic),
		libp2p.Ping(false),
		libp2p.UserAgent("hedgerow"),
		libp2p.AddrsFactory(t.shown(listen)),
	)...)
	if err != nil {
		_ = limits.Close()
		return fmt.Errorf("gossip: open host: %v", err)
	}
	if len(listen) == 0 {
		return nil
	}
	if err := t.host.Network().Listen(listen...); err != nil {
		_ = t.Close()
		return fmt.Errorf("%w on %v: %v; choose another address or stop what uses this one", ErrListen, t.opt.Listen, err)
	}
	if got := len(t.Addrs()); got < len(listen) {
		t.opt.Log.Warn("some addresses could not be listened on", "asked", fmt.Sprint(t.opt.Listen), "listening", fmt.Sprint(t.Addrs()))
	}
	return nil
}

// resourceLimits leaves room for two connections each way with every site and
// little for strangers, who hold one only until their key is known.
func resourceLimits(sites int) rcmgr.ConcreteLimitConfig {
	conns := rcmgr.LimitVal(4*sites + 32)
	return rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: conns, ConnsInbound: conns, ConnsOutbound: conns, FD: conns + 16,
			Streams: 64 * conns, StreamsInbound: 32 * conns, StreamsOutbound: 64 * conns, Memory: 256 << 20,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: 32, ConnsInbound: 32, ConnsOutbound: 32, Streams: 128, StreamsInbound: 128, StreamsOutbound: 128, Memory: 32 << 20,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 8, ConnsInbound: 4, ConnsOutbound: 4, Streams: 128, StreamsInbound: 64, StreamsOutbound: 128, Memory: 64 << 20,
		},
	}.Build(rcmgr.DefaultLimits.AutoScale())
}

// Addrs lists where the host listens, as the rosters of the other sites want it.
func (t *Transport) Addrs() []string {
	var out []string
	for _, a := range t.host.Network().ListenAddresses() {
		if !relayed(a) {
			out = append(out, a.String())
		}
	}
	return out
}

// Close ends the host. Run does so itself.
func (t *Transport) Close() error {
	t.mu.Lock()
	done := t.closed
	t.closed, t.joined, t.run = true, nil, nil
	t.mu.Unlock()
	if done {
		return nil
	}
	return errors.Join(t.host.Close(), t.rcmgr.Close())
}
