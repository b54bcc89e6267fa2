package softplane

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// The bounds of the kernel path.
const (
	dnsPort    = 53
	dnsHead    = 12
	dnsMax     = 1232
	dnsWait    = 10 * time.Second
	maxQueries = 16384
)

// names is what inside hosts asked resolvers and was not answered yet.
type names struct {
	on      bool
	queries map[query]int64
}

type query struct {
	client   netip.AddrPort
	resolver netip.Addr
	id       uint16
}

var _ dataplane.Names = (*Plane)(nil)

// WatchNames implements dataplane.Names.
func (p *Plane) WatchNames(on bool) error {
	return p.locked(func() error {
		p.names.on = on
		return nil
	})
}

// hear notes the queries of inside hosts, and shows the first answer to each.
func (p *Plane) hear(q *parsed, inside [2]bool, t int64) {
	if q.Proto != flow.UDP || q.NoPorts || q.payload < dnsHead || len(q.body) < 4 {
		return
	}
	id, answer := binary.BigEndian.Uint16(q.body), q.body[2]&0x80 != 0
	switch {
	case inside[0] && q.DstPort == dnsPort && !answer:
		p.names.note(query{netip.AddrPortFrom(q.Src, q.SrcPort), q.Dst, id}, t)
	case inside[1] && q.SrcPort == dnsPort && answer:
		k := query{netip.AddrPortFrom(q.Dst, q.DstPort), q.Src, id}
		at, asked := p.names.queries[k]
		if !asked || t-at > int64(dnsWait) {
			return
		}
		delete(p.names.queries, k)
		body := q.body[:min(len(q.body), q.payload, dnsMax)]
		p.emit(dataplane.Event{Kind: dataplane.EventAnswer, At: t, Answer: &dataplane.Answer{
			Client: q.Dst, Resolver: q.Src, Message: append([]byte(nil), body...),
		}})
	}
}

// note remembers a query. When there are too many, those that nobody answered
// in time are forgotten, or else all.
func (n *names) note(k query, t int64) {
	if len(n.queries) >= maxQueries {
		for old, at := range n.queries {
			if t-at > int64(dnsWait) {
				delete(n.queries, old)
			}
		}
		if len(n.queries) >= maxQueries {
			clear(n.queries)
		}
	}
	if n.queries == nil {
		n.queries = map[query]int64{}
	}
	n.queries[k] = t
}
