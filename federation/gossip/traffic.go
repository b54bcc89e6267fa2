package gossip

import (
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// traffic counts the bytes on all streams of the host, as libp2p reports them:
// before encryption, without the framing of connections. It keeps totals alone;
// what libp2p could ask beside them, it does not.
type traffic struct{ sent, received atomic.Int64 }

var _ metrics.Reporter = (*traffic)(nil)

func (t *traffic) LogSentMessage(n int64)                              { t.sent.Add(n) }
func (t *traffic) LogRecvMessage(n int64)                              { t.received.Add(n) }
func (*traffic) LogSentMessageStream(int64, protocol.ID, peer.ID)      {}
func (*traffic) LogRecvMessageStream(int64, protocol.ID, peer.ID)      {}
func (*traffic) GetBandwidthForPeer(peer.ID) metrics.Stats             { return metrics.Stats{} }
func (*traffic) GetBandwidthForProtocol(protocol.ID) metrics.Stats     { return metrics.Stats{} }
func (*traffic) GetBandwidthByPeer() map[peer.ID]metrics.Stats         { return nil }
func (*traffic) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats { return nil }
func (*traffic) TrimIdle(time.Time)                                    {}

func (t *traffic) GetBandwidthTotals() metrics.Stats {
	return metrics.Stats{TotalIn: t.received.Load(), TotalOut: t.sent.Load()}
}

func (t *traffic) Reset() {
	t.sent.Store(0)
	t.received.Store(0)
}

// Traffic is how many bytes the site has sent and received on its streams since New.
func (t *Transport) Traffic() (sent, received int64) {
	return t.traffic.sent.Load(), t.traffic.received.Load()
}
