// Package event is the one schema of what a site tells: the same record is
// logged, stored, shown by the commands, and exported. docs/events.md
// documents it; a test holds the two together.
//
// A record is an envelope (version, id, time, site, kind) and exactly one body,
// under the key that its kind names. Readers ignore keys that they do not know;
// a key never changes meaning within one version.
package event

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Version of the schema. It grows when a key changes its meaning or goes.
const Version = 1

// Kind names a record's body.
type Kind string

// Kinds.
const (
	KindFlow      Kind = "flow"
	KindAlert     Kind = "alert"
	KindIncident  Kind = "incident"
	KindVerdict   Kind = "verdict"
	KindBlock     Kind = "block"
	KindIndicator Kind = "indicator"
	KindModel     Kind = "model"
	KindPeer      Kind = "peer"
	KindFlood     Kind = "flood"
	KindQuality   Kind = "quality"
)

// Kinds lists every kind in the order of the documentation.
func Kinds() []Kind {
	return []Kind{KindFlow, KindAlert, KindIncident, KindVerdict, KindBlock, KindIndicator, KindModel, KindPeer, KindFlood, KindQuality}
}

// Event is one record.
type Event struct {
	V    int       `json:"v"`
	ID   string    `json:"id"`   // unique, sorts by time: 13 hex digits of ms, then 12 random ones
	Time time.Time `json:"time"` // UTC
	Site string    `json:"site"`
	Kind Kind      `json:"kind"`

	Flow      *Flow      `json:"flow,omitempty"`
	Alert     *Alert     `json:"alert,omitempty"`
	Incident  *Incident  `json:"incident,omitempty"`
	Verdict   *Verdict   `json:"verdict,omitempty"`
	Block     *Block     `json:"block,omitempty"`
	Indicator *Indicator `json:"indicator,omitempty"`
	Model     *Model     `json:"model,omitempty"`
	Peer      *Peer      `json:"peer,omitempty"`
	Flood     *Flood     `json:"flood,omitempty"`
	Quality   *Quality   `json:"quality,omitempty"`
}

// Flow is a flow as far as it got.
type Flow struct {
	Proto     string  `json:"proto"`
	Src       string  `json:"src"` // initiator address
	SrcPort   uint16  `json:"src_port"`
	Dst       string  `json:"dst"` // responder address
	DstPort   uint16  `json:"dst_port"`
	Direction string  `json:"direction"` // outbound, inbound, internal, external
	Start     int64   `json:"start_ns"`
	Duration  float64 `json:"duration_s"`
	PktsOut   uint32  `json:"packets_from_initiator"`
	PktsIn    uint32  `json:"packets_from_responder"`
	BytesOut  uint64  `json:"bytes_from_initiator"`
	BytesIn   uint64  `json:"bytes_from_responder"`
	Validated bool    `json:"outside_validated"` // the outside end proved that it receives at its address
	End       string  `json:"end"`               // open, fin, rst, idle, evicted
	P         float64 `json:"p,omitempty"`       // p-value by the active model; absent when none could judge
	Dropped   uint32  `json:"dropped,omitempty"`
	TLS       *TLS    `json:"tls,omitempty"`
}

// TLS is what the client of an encrypted flow said in the clear as it began.
type TLS struct {
	JA4      string `json:"ja4,omitempty"`
	Version  string `json:"version,omitempty"`  // the highest that it offers
	Server   string `json:"server,omitempty"`   // the name that it asks for; it stays on this gateway
	Protocol string `json:"protocol,omitempty"` // the first that it offers to speak
	QUIC     bool   `json:"quic,omitempty"`
	ECH      bool   `json:"ech,omitempty"`
}

// Reason is one cause of a verdict.
type Reason struct {
	Feature string  `json:"feature"` // name in the feature schema, or of the rule or indicator
	Words   string  `json:"words"`   // "sent 3.1 MB to a peer that this host met for the first time"
	Value   float64 `json:"value"`
	Normal  float64 `json:"normal"` // this site's median
	Weight  float64 `json:"weight"` // share of the score, 0..1
}

// Alert is one flow that does not fit.
type Alert struct {
	Incident string   `json:"incident"`
	Host     string   `json:"host"` // the inside address, "" when unknown
	Peer     string   `json:"peer"` // the outside address, "" when unknown
	Service  string   `json:"service"`
	Detector string   `json:"detector"` // self, attack, rule:<name>, indicator, kernel
	P        float64  `json:"p"`
	Model    string   `json:"model,omitempty"` // hash of the deciding model
	Milest   uint32   `json:"at_packet"`
	Sentence string   `json:"sentence"`
	Reasons  []Reason `json:"reasons"`
	Flow     Flow     `json:"flow"`
	Label    string   `json:"label,omitempty"` // "", confirmed, dismissed
	Past     bool     `json:"past,omitempty"`  // found later, in the archive
}

// Incident groups the alerts of one cause.
type Incident struct {
	Cause    string    `json:"cause"` // "peer 203.0.113.9" or "host 10.0.0.3 on tcp/8443"
	State    string    `json:"state"` // open, confirmed, dismissed, closed
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Alerts   int       `json:"alerts"`
	Hosts    int       `json:"hosts"`
	Action   string    `json:"action"` // strongest action so far
	Sentence string    `json:"sentence"`
	Past     bool      `json:"past,omitempty"` // found later, in the archive
}

// Verdict is a decision on one flow, peer or service.
type Verdict struct {
	Incident string    `json:"incident,omitempty"`
	Target   string    `json:"target"`
	Action   string    `json:"action"` // observe, rate-limit, suspend, block, quarantine, release
	Mode     string    `json:"mode"`   // monitor: counted only
	Expires  time.Time `json:"expires"`
	Evidence string    `json:"evidence"` // validated, spoofable, shared, operator, feed
	Sentence string    `json:"sentence"`
	// DetectedNS to EnforcedNS are wall-clock times of the deciding packet
	// and of the plane's confirmation; 0 when not measured.
	DetectedNS int64 `json:"detected_ns,omitempty"`
	EnforcedNS int64 `json:"enforced_ns,omitempty"`
	// FirstDropNS is the time of the first packet that the plane dropped for
	// this verdict; a record with it follows the verdict's own.
	FirstDropNS int64 `json:"first_drop_ns,omitempty"`
	// Scorer is the hash of the small model that decided in the packet path, and
	// ScorerVersion its number; empty for what the daemon decided.
	Scorer        string `json:"scorer,omitempty"`
	ScorerVersion uint32 `json:"scorer_version,omitempty"`
}

// Block is a standing rule and what became of it.
type Block struct {
	Target   string    `json:"target"`
	Action   string    `json:"action"`
	State    string    `json:"state"`  // active, expired, lifted
	Source   string    `json:"source"` // local, mesh:<site>, operator
	Evidence string    `json:"evidence"`
	Reason   string    `json:"reason"`
	ReasonID uint32    `json:"reason_id"`
	Rate     uint32    `json:"rate,omitempty"` // of a rate limit
	Conf     float64   `json:"confidence"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Incident string    `json:"incident,omitempty"`
	Domain   string    `json:"domain,omitempty"` // for which a pair of hosts is blocked
	Hits     uint64    `json:"hits"`
}

// Indicator is shared intelligence, sent or received.
type Indicator struct {
	ID       string    `json:"id"`
	Author   string    `json:"author"`    // site name
	Op       string    `json:"op"`        // indicator, sighting, dispute, withdrawal, expiry
	Type     string    `json:"indicator"` // address, service
	Value    string    `json:"value"`
	Score    float64   `json:"score"`
	Conf     float64   `json:"confidence"`
	Evidence string    `json:"evidence"`
	Expires  time.Time `json:"expires"`
	Sentence string    `json:"sentence"`
	Outcome  string    `json:"outcome"` // sent, enforced, observed, refused
	Why      string    `json:"why,omitempty"`
	SentNS   int64     `json:"sent_ns,omitempty"`
	DoneNS   int64     `json:"done_ns,omitempty"`
}

// Model is a step in a model's life.
type Model struct {
	Hash    string             `json:"hash"`
	Parent  string             `json:"parent,omitempty"`
	Origin  string             `json:"origin"` // local, round
	Round   uint64             `json:"round,omitempty"`
	State   string             `json:"state"` // candidate, shadow, canary, active, refused, rolled-back, retired
	Flows   int                `json:"flows"` // normal flows in training
	Attacks int                `json:"attacks"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
	Why     string             `json:"why"`
}

// Peer is a change in what is known of another site.
type Peer struct {
	Name   string `json:"name"`
	PeerID string `json:"peer_id"`
	State  string `json:"state"` // connected, gone, refused
	Why    string `json:"why,omitempty"`
}

// Flood is what a flood ran into, from its beginning to its end.
type Flood struct {
	Bound    string    `json:"bound"` // source, source-net, service, destination, breaker, challenge
	State    string    `json:"state"` // open, closed
	Mode     string    `json:"mode"`  // monitor: counted only
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Limit    uint32    `json:"limit"`   // new flows a second that the bound allows
	Packets  uint64    `json:"packets"` // over it, since First
	Targets  []string  `json:"targets"` // services that such packets went to, the first few
	Sentence string    `json:"sentence"`
	Means    string    `json:"means"`  // what it means for the site
	Advice   string    `json:"advice"` // what to do
}

// NewID returns an id for an event at t.
func NewID(t time.Time) string { return IDs(rand.Reader)(t) }

// IDs makes ids of what r gives, which must not fail: crypto/rand never does on the
// platforms that Go supports.
func IDs(r io.Reader) func(t time.Time) string {
	return func(t time.Time) string {
		var b [6]byte
		_, _ = io.ReadFull(r, b[:])
		return fmt.Sprintf("%013x%x", t.UnixMilli(), b)
	}
}

// Decode parses and checks one record.
func Decode(b []byte) (*Event, error) {
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("event: %v", err)
	}
	return &e, e.Validate()
}

// Validate checks the envelope and that exactly the named body is there.
func (e *Event) Validate() error {
	if e.V != Version {
		return fmt.Errorf("event: v: %d: expected %d", e.V, Version)
	}
	if e.ID == "" || e.Time.IsZero() {
		return errors.New("event: id and time are required")
	}
	bodies := map[Kind]bool{
		KindFlow: e.Flow != nil, KindAlert: e.Alert != nil, KindIncident: e.Incident != nil,
		KindVerdict: e.Verdict != nil, KindBlock: e.Block != nil, KindIndicator: e.Indicator != nil,
		KindModel: e.Model != nil, KindPeer: e.Peer != nil, KindFlood: e.Flood != nil,
		KindQuality: e.Quality != nil,
	}
	there, known := bodies[e.Kind]
	if !known {
		return fmt.Errorf("event: kind: %q: expected one of %v", e.Kind, Kinds())
	}
	n := 0
	for _, b := range bodies {
		if b {
			n++
		}
	}
	if !there || n != 1 {
		return fmt.Errorf("event: kind %q wants exactly one body under the key %q", e.Kind, e.Kind)
	}
	return nil
}
