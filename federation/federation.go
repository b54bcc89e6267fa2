// Package federation is a site's membership in the mesh: an event loop around
// pure machines.
//
// A Member publishes and receives signed indicators (federation/intel decides
// what becomes of them), takes part in model rounds (federation/round), answers
// "have you seen this?", and keeps up with the others by pulling what gossip lost.
// One lock guards the machines; nothing is sent, fetched, trained or called back
// while it is held. The member never sees a packet or a model: an update is a vector of float32 under a
// schema name, and what a site does about an indicator is the node's business.
//
// The sites of one organisation trust each other directly by a roster. Among them
// rounds take the mean of the sites' updates; that tolerates no lying site (f = 0),
// and Status says so. Limits, signatures, replay protection and validation are
// nonetheless complete, so that a stranger, a broken site or a bad network can do no
// more than be refused by name.
//
// Other organisations of a consortium are not trusted. Their words are weighed
// against each other (federation/intel, Trust) before they lead to anything, hear
// nothing that its author did not mark for all (TLP green or clear), and once enough
// organisations count, models are made in sealed rounds (federation/council) by a
// rule that withstands liars, in place of the organisation's own rounds.
//
// Duties of the caller: give every site the same roster, Schema, ParamDim and
// Init; tell SetRoll when the consortium's roster changes; keep Storage durable (a sequence number is stored before it is used, a
// delta before it is offered); run Run exactly once, and treat its return as the
// end of the member.
package federation

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Topic is a broadcast channel: of our organisation, or, where Shared says so, of
// the whole consortium.
type Topic string

// Topics.
const (
	TopicIntel  Topic = "intel"
	TopicModels Topic = "models"

	TopicCommons Topic = "commons" // indicators for all organisations
	TopicCouncil Topic = "council" // rounds between organisations
)

// Shared says whether other organisations hear the topic.
func (t Topic) Shared() bool { return t == TopicCommons || t == TopicCouncil }

// Topics lists every topic.
func Topics() []Topic { return []Topic{TopicIntel, TopicModels, TopicCommons, TopicCouncil} }

// Verdict is what a handler thinks of a broadcast message.
type Verdict int

// Verdicts: Accept forwards, Ignore drops without blame, Reject drops and
// counts against the sender.
const (
	Accept Verdict = iota
	Ignore
	Reject
)

// PeerInfo is what a transport knows of one site.
type PeerInfo struct {
	ID        identity.ID
	Connected bool
	Since     time.Time // of the present state
	Addr      string    // "" when not connected
	RTT       time.Duration
	Why       string // last error in words, "" when connected

	Name, Organisation, Standing string  // as in the roster
	Score                        float64 // of its conduct; falls with invalid and excessive messages
	Relayed                      bool    // reached through another site, not directly
}

// A Handler receives what a transport brings. Its methods may be called from
// many goroutines, do not keep b, and return soon.
type Handler interface {
	// Receive judges a broadcast message. from is its origin as far as the
	// transport can prove it, not the last hop.
	Receive(ctx context.Context, topic Topic, from identity.ID, b []byte) Verdict
	// Serve answers a request of the proven peer from.
	Serve(ctx context.Context, from identity.ID, b []byte) ([]byte, error)
	// PeerChanged tells that a site came or went.
	PeerChanged(p PeerInfo)
}

// A Transport carries bytes between the sites of a roster. It holds no lock of
// its own while it calls the Handler.
type Transport interface {
	// Run connects to the roster and delivers to h until ctx ends. It returns
	// nil after an orderly end and leaves no goroutine behind.
	Run(ctx context.Context, h Handler) error
	// Broadcast sends b to every site that is reachable now; it is lossy, does
	// not wait for delivery, and does not keep b.
	Broadcast(ctx context.Context, topic Topic, b []byte) error
	// Request asks one site and waits for its answer. It returns ErrUnreachable
	// when there is no way to the peer.
	Request(ctx context.Context, peer identity.ID, b []byte) ([]byte, error)
	// Peers lists the roster's other sites.
	Peers() []PeerInfo
}

// A Trainer is the site's learner behind its own gate. Its methods are called
// by one goroutine each at a time, take as long as they need, and stop when ctx
// ends. Slices handed over belong to the callee.
type Trainer interface {
	// Train returns new parameters, trained on local data from base, and how
	// many examples that took. The length must be that of base. After an error that
	// wraps ErrAbstains nothing is told of it.
	Train(ctx context.Context, round uint64, base []float32) (params []float32, examples int, err error)
	// Adopt offers a round's model to the site, which uses it or says why not.
	Adopt(ctx context.Context, round uint64, hash string, params []float32) (adopted bool, why string, err error)
}

// Storage keeps the member's state. Keys are short ASCII paths that begin with "federation/".
type Storage interface {
	// Load returns the value of key, or an error wrapping ErrNotFound.
	Load(key string) ([]byte, error)
	// Save replaces the value of key; it is durable when Save returns.
	Save(key string, b []byte) error
	// Delete removes key; nothing there is no error.
	Delete(key string) error
}

// Errors that a caller may test for.
var (
	ErrNotFound    = errors.New("federation: not found")
	ErrUnreachable = errors.New("federation: the site is not reachable")
	ErrRateLimited = errors.New("federation: too many requests; try again in a second")
	ErrStopped     = errors.New("federation: the member is not running")
	ErrNoTrainer   = errors.New("federation: this site takes no part in model rounds")
	ErrAbstains    = errors.New("federation: the trainer has said why it takes no part")
	ErrRoundOpen   = errors.New("federation: a round is open already")
)

// Site is a member of the roster.
type Site struct {
	Name  string
	ID    identity.ID
	Addrs []string // transport addresses; may be empty for a site that dials us

	// For a site that a consortium's certificate speaks for.
	Organisation string    // "" means our own
	Standing     string    // of its organisation, in a word; "" means direct trust
	Until        time.Time // when its certificate ends; zero means never
}

// Options configure a Member. Site and Key are required; everything else has a
// default or may be absent.
type Options struct {
	Site      string // our name
	Key       *identity.Key
	Roster    []Site    // all sites, with or without ourselves; empty means solo
	Transport Transport // nil is allowed for a roster of one
	Storage   Storage   // nil means memory
	Trainer   Trainer   // nil: intel only, no rounds

	Schema        string        // feature and model schema; required with a Trainer
	ParamDim      int           // parameters of the model; required with a Trainer
	Init          []float32     // the genesis model, equal at every site; nil means zeros
	RoundEvery    time.Duration // from one model to the next round; 0 means 10 min, negative: only StartRound
	DeltaDeadline time.Duration // for the sites' deltas; 0 means 30 s
	Rule          robust.Spec   // how deltas of our own sites become one; the zero Spec means robust.Lab
	SyncEvery     time.Duration // between pulls from one connected site; 0 means 30 s

	Consortium *Consortium // nil: our organisation is in none

	Log  *slog.Logger
	Now  func() time.Time
	Seed uint64 // of jitter and of the choice whom to ask; not of anything secret
	// Rand is for what hides an update until all have sent theirs; nil is crypto/rand,
	// and only a simulation has another.
	Rand io.Reader

	// OnAsk answers from the site's own history. It is called from several goroutines.
	OnAsk func(typ wire.Type, value string) (seen bool, count uint64, last time.Time)
	// OnIndicator, OnRound and OnPeer are called in order by one goroutine, which
	// may call the member back.
	OnIndicator func(IndicatorEvent)
	OnRound     func(RoundEvent)
	OnPeer      func(PeerEvent)
}

// Effect is what became of a received message.
type Effect string

// Effects. Keep means: this claim is gone, but another site's claim about the
// same value stands, so nothing is lifted. Limit asks for a budget on the peer's
// new flows; only words of other organisations lead to it.
const (
	Enforce Effect = "enforce"
	Limit   Effect = "limit"
	Observe Effect = "observe"
	Lift    Effect = "lift"
	Keep    Effect = "keep"
	Refused Effect = "refused"
)

// IndicatorEvent tells what another site's indicator or withdrawal leads to.
type IndicatorEvent struct {
	Indicator  wire.Indicator // for a refused withdrawal, only its ID
	Author     string         // site name
	AuthorID   identity.ID
	From       string // the author's organisation; "" is ours
	Op         string // "indicator", "withdrawal" or "expiry"
	Effect     Effect
	Reason     wire.Reason // for Refused
	Why        string
	SentAt     time.Time // the author's clock
	ReceivedAt time.Time
}

// RoundEvent tells of a step in a model round.
type RoundEvent struct {
	Round    uint64
	Step     string // "begun", "trained", "delta", "listed", "aggregated", "caught-up", "adopted", "refused", "failed"; between organisations those of package council
	Site     string // whose delta or list it is; between organisations, whose doing
	Base     string
	Hash     string   // of the model, once there is one
	Sites    []string // whose deltas are in it
	Examples int
	Why      string
	At       time.Time
}

// PeerEvent tells that a site came or went.
type PeerEvent struct {
	Site string
	Peer PeerInfo
}

// PeerStatus is a roster site as seen from here.
type PeerStatus struct {
	Site     string
	ID       identity.ID
	Info     PeerInfo
	LastSeen time.Time // last well-formed message of that author
	Refused  uint64    // its messages that were turned down
	Round    uint64    // of the model that it last announced
	Hash     string
}

// Status is the member in figures. Between organisations Round, Hash and Open are
// those of the chain: the last final block's, and the round that we are in.
type Status struct {
	Site      string
	ID        identity.ID
	Sites     int    // of the roster, ourselves included
	Connected int    // other sites
	Preset    string // the rule of rounds, and what it withstands
	Counted   int    // organisations that count; 0 outside of a consortium
	Height    uint64 // of the last final block, between organisations
	Round     uint64 // of the current global model
	Hash      string
	Phase     string // "idle", "training", "gathering", "fetching", "no trainer"
	Open      uint64 // the open round, 0 when none
	Deltas    int    // held for the open round
	NextRound time.Time
	Fork      string // why models of rounds are not adopted: two sealed ones conflict; "" when they are
	Live      int    // indicators in force, of all authors
	Refused   map[wire.Reason]uint64
}

// Answer is one site's answer to a question.
type Answer struct {
	Site  string
	From  string // its organisation; "" is ours
	Seen  bool
	Count uint64
	Last  time.Time
}

// Live is an indicator in force.
type Live struct {
	Indicator wire.Indicator
	Author    string
	AuthorID  identity.ID
	From      string // the author's organisation; "" is ours
	Own       bool
	Effect    Effect // Enforce, Limit or Observe
	SentAt    time.Time
}
