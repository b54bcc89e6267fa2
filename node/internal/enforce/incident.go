package enforce

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// quiet is how long an incident stays open after its last alert.
const quiet = time.Hour

// incident groups what has one cause. The cause is the outside peer where
// there is one, else the inside host that opened the flows.
type incident struct {
	id     string
	cause  string
	peer   netip.Addr // outside end, invalid when both ends are inside
	target dataplane.Target
	svc    bool // target is a service: the peer was contacted from inside

	first, last time.Time
	flows       map[uint64]bool // alerted flows, bounded
	alerts      int
	hosts       map[netip.Addr]bool // inside hosts, bounded
	alertIDs    []string            // bounded

	validated  bool            // the peer proved its address in some of what is held against it
	proved     map[uint64]bool // alerted flows in which it did, bounded
	ruleProved bool            // a counting rule fired on such flows
	runProved  bool            // a run of such flows was unusual
	rule       bool            // a counting rule fired
	much       bool            // a host did more than others; nothing more is known
	persists   bool            // a run of flows was unusual, though each alone need not be
	family     string
	suspended  int
	asked      bool
	asking     bool
	seenBy     []string // sites that answered that they have seen the peer
	blocked    bool
	limited    bool
	past       bool      // found in the archive
	recalled   bool      // a flow was a variant of what a person confirmed
	spared     int       // times that the learner's word alone was not enough
	waits      time.Time // when that was last so of a rule
	held       bool      // a block was due, and the operator's budget of false ones kept it
	label      string    // confirmed, dismissed, ""
	sentence   string
	strongest  dataplane.Action
	bestP      float64
	detectedNS int64
}

const (
	maxFlowsPerIncident  = 256
	maxHostsPerIncident  = 64
	maxAlertsPerIncident = 256
)

// target of a block for a flow's outside end: the whole address when it came
// to us, only the service when one of our hosts went to it, for an address out
// there may serve many.
func targetOf(rec *flow.Record) (t dataplane.Target, peer netip.Addr, service, ok bool) {
	out, end, ok := rec.Outside()
	if !ok {
		return dataplane.Target{}, netip.Addr{}, false, false
	}
	t = dataplane.Peer(out.Addr())
	if end == 1 && out.Port() != 0 {
		t.Port, t.Proto = out.Port(), rec.Key.Proto
		service = true
	}
	return t, out.Addr(), service, true
}

// CauseOf names what a flow's alerts would be grouped under: the outside peer, or
// its service where one of our hosts went to it, or else the inside host.
func CauseOf(rec *flow.Record) string {
	if t, peer, svc, ok := targetOf(rec); ok {
		if svc {
			return "peer " + t.String()
		}
		return "peer " + peer.String()
	}
	return "host " + rec.Initiator().Addr().String()
}

func (in *incident) record(site string, now time.Time) *event.Event {
	state := "open"
	if in.label != "" {
		state = in.label
	}
	return &event.Event{
		V: event.Version, ID: in.id, Time: now, Site: site, Kind: event.KindIncident,
		Incident: &event.Incident{
			Cause: in.cause, State: state, First: in.first, Last: in.last,
			Alerts: in.alerts, Hosts: len(in.hosts), Action: in.strongest.String(), Sentence: in.sentence, Past: in.past,
		},
	}
}

// insideHost is the site's own end of a flow (the initiator when both are).
func insideHost(rec *flow.Record) netip.Addr {
	if rec.InitInside || !rec.RespInside {
		return rec.Initiator().Addr()
	}
	return rec.Responder().Addr()
}

// FlowBody renders a record for the event schema.
func FlowBody(rec *flow.Record, p float64) event.Flow {
	dir := "external"
	switch {
	case rec.InitInside && rec.RespInside:
		dir = "internal"
	case rec.InitInside:
		dir = "outbound"
	case rec.RespInside:
		dir = "inbound"
	}
	_, end, ok := rec.Outside()
	ends := [...]string{"open", "fin", "rst", "idle", "evicted"}
	e := "open"
	if int(rec.End) < len(ends) {
		e = ends[rec.End]
	}
	i, r := rec.Initiator(), rec.Responder()
	return event.Flow{
		Proto: flow.ProtoName(rec.Key.Proto), Src: i.Addr().String(), SrcPort: i.Port(),
		Dst: r.Addr().String(), DstPort: r.Port(), Direction: dir,
		Start: rec.Start, Duration: rec.Duration().Seconds(),
		PktsOut: rec.Dir[0].Packets, PktsIn: rec.Dir[1].Packets,
		BytesOut: rec.Dir[0].Bytes, BytesIn: rec.Dir[1].Bytes,
		Validated: ok && rec.Validated[end], End: e, P: p, Dropped: rec.Dropped, TLS: tlsBody(rec.Hello),
	}
}

// tlsBody is what an operator is told of a TLS client.
func tlsBody(h *flow.Hello) *event.TLS {
	if h == nil {
		return nil
	}
	return &event.TLS{JA4: h.JA4, Version: flow.VersionName(h.Version), Server: h.Name, Protocol: h.Protocol, QUIC: h.QUIC, ECH: h.ECH}
}

// sentence says in one line what happened and why it stands out.
func sentence(rec *flow.Record, reasons []event.Reason) string {
	i, r := rec.Initiator(), rec.Responder()
	what := fmt.Sprintf("%s to %s %s/%d", i.Addr(), r.Addr(), flow.ProtoName(rec.Key.Proto), r.Port())
	var words []string
	for _, re := range reasons {
		if len(words) == 3 {
			break
		}
		words = append(words, re.Words)
	}
	if len(words) == 0 {
		return what + " does not fit this site's normal"
	}
	return what + ": " + strings.Join(words, "; ")
}

// service is "tcp/443 at 198.51.100.7".
func serviceName(rec *flow.Record) string {
	r := rec.Responder()
	return fmt.Sprintf("%s/%d", flow.ProtoName(rec.Key.Proto), r.Port())
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}
