package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Figures of the mesh; see the research on gossipsub at Ethereum and Filecoin.
const (
	queue       = 4096
	dialTimeout = 5 * time.Second
	steady      = 10 * time.Second // a connection that lasts this long ends the dialling pauses
	maxRPC      = 256 << 10
)

// running is what a Run's work hangs on.
type running struct {
	ctx  context.Context
	h    federation.Handler
	work sync.WaitGroup // added to only under Transport.mu, while Transport.run is this
}

// Run joins the topics, dials the roster and delivers to h until ctx ends, then
// closes the host. A Transport runs once.
func (t *Transport) Run(ctx context.Context, h federation.Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := t.begin(ctx, h)
	if err != nil {
		return err
	}
	subs, err := t.join(ctx, h)
	if err != nil {
		return errors.Join(err, t.Close())
	}
	t.host.SetStreamHandler(t.proto, func(s network.Stream) { t.serve(ctx, h.Serve, s) })
	t.host.SetStreamHandler(straightly, func(s network.Stream) { t.hear(ctx, h, s) })
	note := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { t.note(c.RemotePeer()) },
		DisconnectedF: func(_ network.Network, c network.Conn) { t.note(c.RemotePeer()); t.missed(c.RemotePeer()) },
	}
	t.host.Network().Notify(note)
	for _, sub := range subs {
		r.work.Go(func() { discard(ctx, sub) })
	}
	stop := t.findNear()
	t.mu.Lock()
	t.run = r
	if t.opt.Behind {
		r.work.Go(func() { t.stayReachable(ctx) })
	}
	for _, l := range t.links.all() {
		t.tend(l)
	}
	t.mu.Unlock()
	<-ctx.Done()
	stop()
	t.host.Network().StopNotify(note)
	t.host.RemoveStreamHandler(t.proto)
	t.host.RemoveStreamHandler(straightly)
	err = t.Close() // from here on nobody adds work
	cancel()
	r.work.Wait()
	return err
}

// tend keeps a link connected and tells of its changes, until it leaves the roster.
// t.mu is held.
func (t *Transport) tend(l *peerLink) {
	if t.run == nil {
		return
	}
	ctx, h := t.run.ctx, t.run.h
	t.run.work.Go(func() { t.watch(ctx, l, h) })
	t.run.work.Go(func() { t.dial(ctx, l) })
	t.run.work.Go(func() { t.speak(ctx, l) })
}

func (t *Transport) begin(ctx context.Context, h federation.Handler) (*running, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began || t.closed {
		return nil, errors.New("gossip: run: a transport runs once; make a new one")
	}
	t.began = true
	return &running{ctx: ctx, h: h}, nil
}

// join starts gossipsub and subscribes to every topic. The validators are where
// messages are delivered: what they accept is forwarded, and reading the
// subscriptions is only a duty.
func (t *Transport) join(ctx context.Context, h federation.Handler) ([]*pubsub.Subscription, error) {
	var names []string
	for _, name := range t.topics {
		names = append(names, name)
	}
	ps, err := pubsub.NewGossipSub(ctx, t.host,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithGossipSubParams(meshParams()),
		pubsub.WithPeerScore(scoreParams(names, t.appScore), scoreThresholds()),
		pubsub.WithPeerScoreInspect(t.keepScores, time.Second),
		pubsub.WithPeerGater(pubsub.NewPeerGaterParams(0.33, pubsub.ScoreParameterDecay(2*time.Minute), pubsub.ScoreParameterDecay(time.Hour))),
		pubsub.WithAppSpecificRpcInspector(t.inspect),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { return t.admit(p) == nil }),
		pubsub.WithDirectPeers(t.directPeers()),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerOutboundQueueSize(queue),
		pubsub.WithValidateQueueSize(queue),
		pubsub.WithValidateThrottle(queue),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithSeenMessagesTTL(10*time.Minute),
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(names...)),
	)
	if err != nil {
		return nil, fmt.Errorf("gossip: start: %v", err)
	}
	joined := make(map[federation.Topic]*pubsub.Topic)
	var subs []*pubsub.Subscription
	for topic, name := range t.topics {
		err := ps.RegisterTopicValidator(name, t.validator(topic, h), pubsub.WithValidatorConcurrency(queue), pubsub.WithValidatorTimeout(10*time.Second))
		if err != nil {
			return nil, fmt.Errorf("gossip: topic %s: %v", topic, err)
		}
		tp, err := ps.Join(name)
		if err != nil {
			return nil, fmt.Errorf("gossip: topic %s: %v", topic, err)
		}
		sub, err := tp.Subscribe(pubsub.WithBufferSize(queue))
		if err != nil {
			return nil, fmt.Errorf("gossip: topic %s: %v", topic, err)
		}
		joined[topic] = tp
		subs = append(subs, sub)
	}
	t.mu.Lock()
	t.joined = joined
	t.mu.Unlock()
	return subs, nil
}

// validator hands a message to h. Its origin is the signing peer, not who forwarded
// it. An author who has left the roster, or is over its budget, is ignored: who
// forwarded it may not know.
func (t *Transport) validator(topic federation.Topic, h federation.Handler) pubsub.ValidatorEx {
	return func(ctx context.Context, _ peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
		if len(msg.Data) > wire.MaxSmall {
			return pubsub.ValidationReject
		}
		author := msg.GetFrom()
		if author != t.host.ID() {
			if err := t.admit(author); err != nil {
				t.refused.count(err)
				return pubsub.ValidationIgnore
			}
			if !t.ledger.charge(author, len(msg.Data)) {
				t.refused.count(errOverBudget)
				return pubsub.ValidationIgnore
			}
			if topic == straightFor && t.heard.has(sha256.Sum256(msg.Data)) {
				return pubsub.ValidationAccept // its author says it again: somebody lacks it
			}
		}
		switch h.Receive(ctx, topic, identity.ID(author.String()), msg.Data) {
		case federation.Accept:
			return pubsub.ValidationAccept
		case federation.Ignore:
			return pubsub.ValidationIgnore
		default:
			return pubsub.ValidationReject
		}
	}
}

func discard(ctx context.Context, sub *pubsub.Subscription) {
	defer sub.Cancel()
	for {
		if _, err := sub.Next(ctx); err != nil {
			return
		}
	}
}

// meshParams keep the mesh thin: an author sends what it says to all whom it is
// connected with, and everybody passes it on to its direct peers, some six, beside the
// mesh. With the library's eight in the mesh a word came to each site fourteen times,
// and reading that was most of the work of fifty.
func meshParams() pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout, p.Dlazy = 4, 3, 6, 2, 1, 6
	p.HeartbeatInterval = 700 * time.Millisecond
	p.HistoryLength, p.HistoryGossip = 6, 3
	return p
}

// scoreParams punishes invalid messages, broken promises and excess. There is
// nothing to earn but a small credit for being in the roster, so good behaviour
// cannot be saved up. Sites behind one address are no fault: who is not in the
// roster gets no connection, however many addresses it has. Rates of delivery are
// not scored: a mesh of few and quiet sites would score chance.
func scoreParams(topics []string, app func(peer.ID) float64) *pubsub.PeerScoreParams {
	p := &pubsub.PeerScoreParams{
		Topics:                      make(map[string]*pubsub.TopicScoreParams),
		AppSpecificScore:            app,
		AppSpecificWeight:           1,
		IPColocationFactorThreshold: 1,
		BehaviourPenaltyWeight:      -10,
		BehaviourPenaltyThreshold:   6,
		BehaviourPenaltyDecay:       pubsub.ScoreParameterDecay(time.Hour),
		DecayInterval:               time.Second,
		DecayToZero:                 0.01,
		RetainScore:                 6 * time.Hour,
	}
	for _, name := range topics {
		p.Topics[name] = &pubsub.TopicScoreParams{
			SkipAtomicValidation:           true,
			TopicWeight:                    1,
			TimeInMeshQuantum:              time.Second, // the library divides by it, weight or not
			InvalidMessageDeliveriesWeight: -100,
			InvalidMessageDeliveriesDecay:  pubsub.ScoreParameterDecay(time.Hour),
		}
	}
	return p
}

// scoreThresholds graylist a site after its sixth invalid message within an hour
// or so; requests still reach it.
func scoreThresholds() *pubsub.PeerScoreThresholds {
	return &pubsub.PeerScoreThresholds{
		GossipThreshold: -500, PublishThreshold: -1000, GraylistThreshold: -2500,
		AcceptPXThreshold: 1000, OpportunisticGraftThreshold: 3.5,
	}
}

func (t *Transport) note(p peer.ID) {
	if l := t.links.get(p); l != nil {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// missed has a lost connection looked at by who dials.
func (t *Transport) missed(p peer.ID) {
	if l := t.links.get(p); l != nil {
		select {
		case l.lost <- struct{}{}:
		default:
		}
	}
}

// watch tells h of every change of a site's connection, and cuts it when its
// certificate ends or the site floods.
func (t *Transport) watch(ctx context.Context, l *peerLink, h federation.Handler) {
	for {
		if info, changed := t.look(l); changed {
			h.PeerChanged(info)
		}
		if t.ledger.silenced(l.pid) {
			_ = t.host.Network().ClosePeer(l.pid)
		}
		end, cancel := l.end(t.opt.Now())
		select {
		case <-ctx.Done():
			cancel()
			return
		case <-l.left:
			cancel()
			_ = t.host.Network().ClosePeer(l.pid)
			if info, changed := t.look(l); changed {
				h.PeerChanged(info)
			}
			return
		case <-end:
			t.opt.Log.Warn("a site's certificate has ended: it is cut off until it brings a new one", "site", l.at().Name, "id", l.pid.String())
			_ = t.host.Network().ClosePeer(l.pid)
		case <-l.changed:
		}
		cancel()
	}
}

// look compares a site's connection with what was told last.
func (t *Transport) look(l *peerLink) (federation.PeerInfo, bool) {
	up := t.connected(l.pid)
	l.mu.Lock()
	changed := up != l.up
	if changed {
		l.up, l.since, l.why = up, time.Now(), ""
		if !up {
			l.why = "the connection ended"
		}
	}
	l.mu.Unlock()
	return t.info(l), changed
}

func (t *Transport) connected(p peer.ID) bool {
	c := t.host.Network().Connectedness(p)
	return c == network.Connected || c == network.Limited
}

func (t *Transport) info(l *peerLink) federation.PeerInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	info := federation.PeerInfo{
		ID: l.site.ID, Connected: l.up, Since: l.since, Why: l.why,
		Name: l.site.Name, Organisation: l.site.Organisation, Standing: l.site.Standing,
	}
	if s, ok := t.scores.Load(l.pid); ok {
		info.Score, _ = s.(float64)
	}
	if err := l.site.admitted(t.opt.Now()); err != nil {
		info.Why = err.Error()
	} else if t.ledger.silenced(l.pid) {
		info.Why = errOverBudget.Error()
	}
	if cs := t.host.Network().ConnsToPeer(l.pid); l.up && len(cs) > 0 {
		info.Addr = cs[0].RemoteMultiaddr().String()
		info.Relayed = !slices.ContainsFunc(cs, func(c network.Conn) bool { return !relayed(c.RemoteMultiaddr()) })
		info.RTT = t.host.Peerstore().LatencyEWMA(l.pid)
	}
	return info
}

// Peers lists the roster's other sites, by organisation and name.
func (t *Transport) Peers() []federation.PeerInfo {
	var out []federation.PeerInfo
	for _, l := range t.links.all() {
		out = append(out, t.info(l))
	}
	slices.SortFunc(out, func(a, b federation.PeerInfo) int {
		return strings.Compare(a.Organisation+"\x00"+a.Name, b.Organisation+"\x00"+b.Name)
	})
	return out
}

// dial keeps a site connected. A site that refuses us accepts first and cuts
// then, so only a connection that lasts resets the pause.
func (t *Transport) dial(ctx context.Context, l *peerLink) {
	pause := t.opt.DialEvery
	for {
		if t.connected(l.pid) {
			if !t.lasts(ctx, l, &pause) {
				return
			}
			continue
		}
		t.dialOnce(ctx, l)
		wait := pause
		pause = min(2*pause, t.opt.DialAtMost)
		if !l.sleep(ctx, wait) {
			return
		}
	}
}

// lasts waits as long as a site is connected, and says whether the link is still
// wanted. The pause begins anew when that was long enough.
func (t *Transport) lasts(ctx context.Context, l *peerLink, pause *time.Duration) bool {
	began := time.Now()
	for t.connected(l.pid) {
		if !l.sleep(ctx, steady, l.lost) {
			return false
		}
		if time.Since(began) >= steady {
			*pause = t.opt.DialEvery
		}
	}
	return l.sleep(ctx, t.opt.DialEvery)
}

func (t *Transport) dialOnce(ctx context.Context, l *peerLink) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if sw, ok := t.host.Network().(*swarm.Swarm); ok {
		sw.Backoff().Clear(l.pid) // the pauses between attempts are ours to choose
	}
	addrs := t.waysTo(l)
	if len(addrs) == 0 {
		return // it dials us
	}
	t.host.Peerstore().AddAddrs(l.pid, addrs, peerstore.TempAddrTTL)
	err := t.host.Connect(ctx, peer.AddrInfo{ID: l.pid, Addrs: addrs})
	if err == nil {
		t.note(l.pid)
		return
	}
	l.mu.Lock()
	l.why = fmt.Sprintf("dial: %.200v", err)
	l.mu.Unlock()
	t.opt.Log.Debug("a site could not be reached; it will be tried again", "site", l.at().Name, "error", err)
}
