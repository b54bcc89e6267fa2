// Package dataplane says what a packet path offers to a site: it enforces
// rules on packets and turns packets into flow records. dataplane/xdp is the
// path in the Linux kernel, dataplane/softplane the same semantics in Go over
// captures; dataplane/planetest holds both to one conformance suite.
//
// Order for each packet: parse, flow verdict, block, quarantine, budget, never-block
// (asked only when something would drop, and ahead of every drop), mode,
// account, milestone, score. The plane's own scorer comes last, see Scoring: what it
// suspends or limits is asked about with the flow verdicts from the next packet on.
package dataplane

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Mode says whether rules act.
type Mode uint8

// Modes. In Monitor nothing is ever dropped: what would have been is counted.
const (
	Monitor Mode = iota
	Enforce
)

// String is "monitor" or "enforce".
func (m Mode) String() string {
	if m == Enforce {
		return "enforce"
	}
	return "monitor"
}

// Never is one never-block entry, deliberately narrow: traffic from or to an
// address in Prefix that matches Proto and Port is never dropped. Zero Proto
// or Port match any. Port is the port at the side of Prefix's address, unless
// AnySide is set: then either port may match.
type Never struct {
	Prefix  netip.Prefix
	Proto   uint8
	Port    uint16
	AnySide bool
}

// Hook is where a packet was seen.
type Hook uint8

// Hooks: from the protected side, or towards it.
const (
	FromInside Hook = iota
	ToInside
)

// EventKind is why an event was emitted.
type EventKind uint8

// Kinds of events.
const (
	EventMilestone EventKind = iota // the flow reached a milestone
	EventEnd                        // the flow ended (Record.End says why)
	EventFirstDrop                  // a rule dropped a flow's or peer's packet for the first time
	EventFlood                      // a flood ran into Event.Flood; at most one a second and kind
	EventProof                      // the initiator proved its address to one that nobody uses
	EventAnswer                     // a resolver answered an inside host: only Event.Answer and At are set
	EventVerdict                    // the plane's own scorer found something: Event.Verdict says what
)

// Event is what a plane tells the site of a flow.
type Event struct {
	Kind   EventKind
	Record flow.Record
	// For EventFirstDrop: the reason id of the rule and the time of the drop.
	Reason uint32
	At     int64
	Mode   Mode // FirstDrop in Monitor is one that would have been
	// For EventFlood: what it ran into. Record then holds no flow but the packet
	// that showed it, whose source proves nothing.
	Flood FloodKind
	// For EventAnswer.
	Answer *Answer
	// For EventVerdict: Record is the flow with the packet that decided, At when.
	// Valid until handle returns.
	Verdict *Verdict
}

// Answer is a DNS message that answers a query which Client was seen to send:
// the same two hosts, ports and message id, over UDP, within ten seconds, the
// first such answer only. A long message is cut.
type Answer struct {
	Client, Resolver netip.Addr
	Message          []byte // from the DNS header on, at most 1232 bytes; valid until handle returns
}

// Names is the part of a plane that shows DNS answers.
type Names interface {
	// WatchNames says whether answers are shown, as events of the kind
	// EventAnswer. They are not at first.
	WatchNames(on bool) error
}

// Hellos is the part of a plane that reads what TLS clients say first, over TCP
// and QUIC. It looks at the first three payload packets of a flow at most.
type Hellos interface {
	// WatchHellos says whether records carry Record.Hello. They do not at first.
	WatchHellos(on bool) error
}

// Hit is how often a rule matched.
type Hit struct {
	Rule    Rule
	Packets uint64
	Bytes   uint64
}

// Stats are running totals of a plane.
type Stats struct {
	Packets          uint64            `json:"packets"`     // seen
	Bytes            uint64            `json:"bytes"`       // seen
	Dropped          uint64            `json:"dropped"`     // really dropped
	WouldDrop        uint64            `json:"would_drop"`  // monitor mode
	NeverSaved       uint64            `json:"never_saved"` // a drop averted by a never-block entry
	Malformed        map[string]uint64 `json:"malformed"`
	Flows            uint64            `json:"flows"` // in the table now
	FlowsTotal       uint64            `json:"flows_total"`
	FlowsEvicted     uint64            `json:"flows_evicted"`   // left for want of room before they ended
	FlowsUntracked   uint64            `json:"flows_untracked"` // packets that no flow counted, for want of room or of a moment's quiet
	EventsLost       uint64            `json:"events_lost"`     // ring full or over budget
	AnswersLost      uint64            `json:"answers_lost"`    // DNS answers that were not shown: ring full or over budget
	HellosLost       uint64            `json:"hellos_lost"`     // packets with hellos of TLS clients that were not read: ring full or over budget
	RulesIntended    uint64            `json:"rules_intended"`
	RulesEnforced    uint64            `json:"rules_enforced"`
	AttachMode       string            `json:"attach_mode"`        // "native", "generic", "software"
	NotAccountedFrag uint64            `json:"not_accounted_frag"` // later fragments: source policy only
	Flood            FloodStats        `json:"flood"`
	Orphaned         uint64            `json:"orphaned"` // new inbound packets while nobody watched, where the plane fails closed
	Attached         []Attached        `json:"attached"`
}

// Attached is one interface of a plane.
type Attached struct {
	Interface string `json:"interface"`
	Role      string `json:"role"`              // inside, host, outside, bridge, sensor
	Mode      string `json:"mode"`              // as Stats.AttachMode
	GROOff    bool   `json:"gro_off,omitempty"` // aggregation of received packets is off because the mode is generic
	Egress    string `json:"egress,omitempty"`  // the hook for what leaves: "TCX", "clsact", "" where there is none
	Down      string `json:"down,omitempty"`    // why its packets are not filtered now; "" when they are
}

// Sentinels that callers test.
var (
	ErrClosed      = errors.New("plane is closed")
	ErrFull        = errors.New("table is full")
	ErrUnsupported = errors.New("not supported here")
	ErrNeverBlock  = errors.New("target is on the never-block list")
)

// Plane is one packet path. Methods may be called from any goroutine. Apply
// and Remove are idempotent: the newest rule for a target replaces the older.
// A rule is enforced when Apply returns nil.
type Plane interface {
	Apply(rules ...Rule) error
	Remove(targets ...Target) error
	SetNever(entries []Never) error
	// SetRemediation says what a quarantined host may still reach: entries name
	// the other end as never-block entries do, and replace all earlier ones.
	SetRemediation(entries []Never) error
	SetMode(Mode) error
	// Rules reads back what is enforced now, with hits, from the plane itself.
	Rules() ([]Hit, error)
	Stats() (Stats, error)
	// Run delivers events to handle until ctx ends or the plane closes; nil
	// after a cancelled ctx. handle is called from one goroutine and must not
	// keep the event.
	Run(ctx context.Context, handle func(*Event)) error
	// Close releases the process's resources. What is pinned goes on enforcing.
	Close() error
}

// Listed is one entry of the bulk set: every packet from or to an address in
// Prefix is dropped until Expires. Reason is as in Rule.
type Listed struct {
	Prefix  netip.Prefix
	Expires time.Time
	Reason  uint32
}

// BulkState says what of the bulk set is enforced.
type BulkState struct {
	Generation uint64            // counts replacements; 0 means that there was none
	Intended   uint64            // entries of the last replacement
	Enforced   uint64            // entries found by reading the plane's own tables, not expired
	Bytes      uint64            // memory of the tables
	Hits       map[uint32]uint64 // packets matched, by reason, since the last replacement
}

// Bulk is the part of a plane that holds large sets, such as threat feeds.
// Rules of Apply stand beside it and are looked at first.
type Bulk interface {
	// ReplaceBulk makes entries the whole bulk set, in one step: each packet
	// meets either the old set or the new one, whole. Entries may overlap and
	// come in any order; of those that cover a packet, the longest prefix that
	// has not expired gives the reason. On an error the old set stays. An error
	// wraps ErrFull when the set is larger than the plane was opened for.
	ReplaceBulk(entries []Listed) error
	// BulkState reads back what is enforced.
	BulkState() (BulkState, error)
}
