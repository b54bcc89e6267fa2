// Package round is the pure machine of model rounds among the sites of one
// organisation (the "lab preset"; federation.Status names it).
//
// A round r+1 starts from the current global model, the base. Every site trains
// from the base, seals its delta, and offers it by hash. The proposer (the sites
// take turns by round and view) lists the deltas that it holds, once it has all of
// them or the deadline has passed. Whoever holds all listed deltas computes the
// clipped mean, adds it to the base, and so has the next global model: the same
// bits everywhere. A proposer that stays silent is replaced after a timeout by
// the next in turn, which is a higher view. A round stays open until a list of
// at least MinDeltas deltas exists; nothing is lost but time.
//
// Partitions and slow proposers can make two models for one round. All sites
// prefer the higher round, then the lower view, then the lower hash; sites
// announce their model and fetch a better one from who announced it. So sites
// that can talk end on one model. This trusts every site of the roster: a site
// that lies about its state or its delta is not withstood (f = 0).
//
// Duties of the driver: one goroutine at a time; call Tick at Next; after every
// call, carry out Ready in this order: Persist, then Send and everything else. A
// message in Seal is to be sealed under our key and handed back through Step,
// which then puts it into Send: so what must survive a crash is on disk before
// anybody can know of it. After a *wire.Refusal the state has not changed.
package round

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Preset describes these rounds wherever status is shown.
func (m *Machine) Preset() string {
	return "lab: " + m.cfg.Rule.String() + ", over the sites of one organisation"
}

// maxAhead bounds how far ahead of us a model may claim to be.
const maxAhead = 1 << 20

// Config is equal at every site, but for Self and Trains. Zero durations,
// Rule and MinDeltas take the defaults in parentheses.
type Config struct {
	Self      identity.ID
	Sites     []identity.ID // with Self; the order does not matter
	Schema    string
	Init      []float32     // genesis; its length is the model's
	Every     time.Duration // from one model to the next round; 0: only Start begins one
	Deadline  time.Duration // for deltas (30 s)
	ViewAfter time.Duration // until a silent proposer is replaced (half of Deadline)
	Retry     time.Duration // of fetches and resends (1 s)
	Announce  time.Duration // of our state (10 s)
	Rule      robust.Spec   // how deltas become one (robust.Lab)
	MinDeltas int           // that a list needs (more than half of Sites)
	Trains    bool          // this site sends deltas
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Init) == 0 || len(c.Init) > wire.MaxParams {
		return c, fmt.Errorf("round: init: %d parameters: expected 1 to %d", len(c.Init), wire.MaxParams)
	}
	if err := wire.CheckSchema(c.Schema); err != nil {
		return c, fmt.Errorf("round: %w", err)
	}
	c.Sites = slices.Clone(c.Sites)
	slices.Sort(c.Sites)
	c.Sites = slices.Compact(c.Sites)
	if !slices.Contains(c.Sites, c.Self) || len(c.Sites) > wire.MaxSite {
		return c, fmt.Errorf("round: sites: expected at most %d with ourselves among them", wire.MaxSite)
	}
	c.Deadline = positive(c.Deadline, 30*time.Second)
	c.ViewAfter = positive(c.ViewAfter, c.Deadline/2)
	c.Retry = positive(c.Retry, time.Second)
	c.Announce = positive(c.Announce, 10*time.Second)
	if c.Rule == (robust.Spec{}) {
		c.Rule = robust.Lab()
	}
	if err := c.Rule.Check(len(c.Sites)); err != nil {
		return c, fmt.Errorf("round: rule: %w", err)
	}
	if c.MinDeltas <= 0 {
		c.MinDeltas = len(c.Sites)/2 + 1
	}
	return c, nil
}

func positive(d, or time.Duration) time.Duration {
	if d <= 0 {
		return or
	}
	return d
}

// Head is a global model.
type Head struct {
	Round  uint64
	View   uint32
	Hash   wire.Hash
	Params []float32
}

// better is the one order in which all sites prefer models.
func better(a, b wire.State) bool {
	return cmp.Or(cmp.Compare(b.Round, a.Round), cmp.Compare(a.View, b.View), bytes.Compare(a.Hash[:], b.Hash[:])) < 0
}

func (h Head) state() wire.State { return wire.State{Round: h.Round, View: h.View, Hash: h.Hash} }

// Step names of events, in the order in which a round goes.
const (
	Begun      = "begun"
	Delta      = "delta"
	Listed     = "listed"
	Aggregated = "aggregated"
	CaughtUp   = "caught-up"
	Failed     = "failed"
)

// Event tells of a step.
type Event struct {
	Step     string
	Round    uint64
	Author   identity.ID // of the delta or list
	Base     wire.Hash
	Hash     wire.Hash
	Sites    []identity.ID // in an aggregate
	Examples int
	Why      string
}

// Train asks the driver to train from a base and to call Trained or TrainFailed.
type Train struct {
	Round  uint64
	Base   wire.Hash
	Params []float32
}

// Fetch asks the driver to fetch bytes by hash from one site: a sealed delta
// goes to Step, parameters go to Fetched. A failure needs no report.
type Fetch struct {
	Hash   wire.Hash
	Params bool
	From   identity.ID
}

// Ready is what the driver has to do.
type Ready struct {
	Persist bool // store Snapshot before anything else
	Send    []*wire.Message
	Seal    []wire.Payload
	Fetch   []Fetch
	Train   *Train
	Adopt   *Head // a new global model for the site's gate
	Events  []Event
}

// Empty says that there is nothing to do.
func (r Ready) Empty() bool {
	return !r.Persist && len(r.Send) == 0 && len(r.Seal) == 0 && len(r.Fetch) == 0 && r.Train == nil && r.Adopt == nil && len(r.Events) == 0
}

// open is a round on its way, or the last one while others may still need it.
type open struct {
	round    uint64
	base     wire.Hash
	begun    time.Time
	training bool
	offers   map[identity.ID]*wire.Message // first offer of each author
	deltas   map[wire.Hash]*wire.Message
	lists    map[uint32]*wire.Message // by view
	bad      map[uint32]bool          // lists that can never be computed
	sealing  map[string]bool          // what was put into Seal and is not back yet
	own      []*wire.Message          // what we resend: begin, offer, lists
}

// A want is a hash to be fetched.
type want struct {
	params  bool
	sources []identity.ID
	next    int
	due     time.Time
}

// Machine is one site's view of the rounds.
type Machine struct {
	cfg   Config
	head  Head
	since time.Time // of the head; zero until the first call with a time
	last  time.Time // latest time seen
	open  *open
	prev  *open // the round that made head: its deltas are still served

	ownDelta *wire.Message // last delta of ours, kept so that we never sign two for one base
	ownLists []*wire.Message
	states   map[identity.ID]*wire.Message
	ownState *wire.Message
	sealing  bool      // a State is in Seal
	noticed  time.Time // when a better model was first heard of; zero when none is
	wants    map[wire.Hash]*want

	announceAt, resendAt time.Time
	resendGap            time.Duration
	ready                Ready
}

// New returns a machine at genesis. Restore may follow.
func New(cfg Config) (*Machine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Machine{
		cfg:    cfg,
		head:   Head{Hash: wire.ModelHash(cfg.Schema, cfg.Init), Params: slices.Clone(cfg.Init)},
		states: make(map[identity.ID]*wire.Message),
		wants:  make(map[wire.Hash]*want),
	}, nil
}

// Head is the current global model. The slice is not to be changed.
func (m *Machine) Head() Head { return m.head }

// Ready hands over what has piled up and forgets it.
func (m *Machine) Ready() Ready {
	r := m.ready
	m.ready = Ready{}
	return r
}

// Status is the open round, if any.
type Status struct {
	Open      uint64
	View      uint32
	Proposer  identity.ID
	Deltas    int
	Phase     string
	NextBegin time.Time // when we would begin a round ourselves; zero: not by time
}

// Status tells where the machine stands.
func (m *Machine) Status(now time.Time) Status {
	st := Status{Phase: "idle"}
	o := m.open
	if o == nil {
		st.NextBegin = m.nextBegin()
		return st
	}
	st.Open, st.View, st.Deltas = o.round, m.view(now), len(o.deltas)
	st.Proposer = m.proposer(o.round, st.View)
	switch {
	case o.training:
		st.Phase = "training"
	case len(o.lists) > 0:
		st.Phase = "fetching"
	default:
		st.Phase = "gathering"
	}
	return st
}

// Announced is the model that a site last announced.
func (m *Machine) Announced(id identity.ID) (wire.State, bool) {
	if id == m.cfg.Self {
		return m.head.state(), true
	}
	msg := m.states[id]
	if msg == nil {
		return wire.State{}, false
	}
	return *msg.Payload.(*wire.State), true
}

// proposer is whose turn it is. Sites is sorted, so all sites agree.
func (m *Machine) proposer(round uint64, view uint32) identity.ID {
	return m.cfg.Sites[(round+uint64(view))%uint64(len(m.cfg.Sites))]
}

// view is the present view by our clock: 0 until the deadline and one timeout
// have passed, then one more with each timeout.
func (m *Machine) view(now time.Time) uint32 {
	late := now.Sub(m.open.begun) - m.cfg.Deadline
	if late <= 0 {
		return 0
	}
	return uint32(min(late/m.cfg.ViewAfter, 1<<30))
}

// nextBegin staggers the sites by their turn, so that one usually begins.
func (m *Machine) nextBegin() time.Time {
	if m.cfg.Every <= 0 || m.since.IsZero() {
		return time.Time{}
	}
	rank := 0
	for m.proposer(m.head.Round+1, uint32(rank)) != m.cfg.Self {
		rank++
	}
	return m.since.Add(m.cfg.Every + time.Duration(rank)*m.cfg.ViewAfter)
}

// Next is when Tick is due.
func (m *Machine) Next() time.Time {
	next := m.announceAt
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, w := range m.wants {
		sooner(w.due)
	}
	if m.open == nil {
		sooner(m.nextBegin())
		return next
	}
	sooner(m.resendAt)
	sooner(m.boundary())
	return next
}

// boundary is the next time at which another proposer may act.
func (m *Machine) boundary() time.Time {
	deadline := m.open.begun.Add(m.cfg.Deadline)
	if m.last.Before(deadline) {
		return deadline
	}
	return deadline.Add((m.last.Sub(deadline)/m.cfg.ViewAfter + 1) * m.cfg.ViewAfter)
}

// Start begins the next round now. It returns its number.
func (m *Machine) Start(now time.Time) (uint64, error) {
	m.wake(now)
	if m.open != nil {
		return m.open.round, errOpen
	}
	round := m.head.Round + 1
	m.announce()
	m.ready.Seal = append(m.ready.Seal, &wire.Begin{Round: round, Base: m.head.Hash})
	m.begin(now)
	return round, nil
}

var errOpen = errors.New("round: one is open already")

// IsOpen says whether an error of Start means that a round is open already.
func IsOpen(err error) bool { return errors.Is(err, errOpen) }
