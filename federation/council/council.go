// Package council is the pure machine of model rounds between organisations that
// do not trust each other. The rounds of one organisation's own sites, who do,
// are federation/round.
//
// A round r on the tip (the sealed block of the highest round) goes:
//
//	commit    each voting site trains from the tip's model and sends a hash of its
//	          delta, a secret salt, the round and the tip
//	set       the round's proposer lists the commitments; each site signs the list
//	          if it holds all of them and misses none that it has held for Grace
//	reveal    under two thirds of signatures the set is closed; only now are salts
//	          and deltas told, and only of the set: nobody can fit its delta to others'
//	list      the proposer lists the deltas, whose bytes it serves
//	vote      each site that holds all listed bytes, finds the same model, and knows
//	          of no omitted reveal signs the block
//	seal      two thirds of votes; the next round may begin
//
// Safety is kept by three numbers that are on disk before a signature leaves: the
// highest round voted in, the highest parent round voted for, and the highest round
// of a set signed. Package chain says why that is enough. Nothing else is needed for
// safety: not clocks, not the order of messages, not who proposes.
//
// Progress needs that messages arrive within the durations of Config and that
// fewer than a third of the roster are down or lie. A round that does not seal
// costs its time and nothing else: sites wish for the next round, and enter it
// when two thirds do. A site that sees a higher seal than its own asks for the
// blocks between; each is checked, none is believed.
//
// A liar who proposes, learns the reveals of a round and then lets it fail has seen
// deltas that may come again in the next round on the same tip. The same delta is
// committed again then, and what a robust rule gives up by that is one step on
// one base. The rule, not the secrecy, is the defence.
//
// Duties of the driver: one goroutine at a time; call Tick at Next; after every
// call carry out Ready in the order of its fields: what must survive is stored
// before anything is sent. A payload in Seal is to be put into an envelope and
// handed back through Step, which then puts it into Send. After a *wire.Refusal
// the state has not changed, but for what the sender is known to have said.
package council

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Config is equal at every member but for Self, Trains and the functions. Zero
// durations take the defaults in parentheses.
type Config struct {
	Self    identity.ID
	Genesis chain.Genesis
	Crypto  chain.Crypto  // chain.Ed25519
	Combine chain.Combine // the rule that the genesis names
	// Sign signs for Self. It is called for a statement at most once.
	Sign func(kind string, msg []byte) []byte
	// Salt draws 16 secret bytes.
	Salt func() [16]byte

	Every    time.Duration // from one seal to the next set (10 min)
	Gather   time.Duration // for commitments, after Every (30 s)
	Reveal   time.Duration // for reveals and their bytes (30 s)
	Vote     time.Duration // for votes (30 s)
	Grace    time.Duration // how long a word must be known before omitting it counts (5 s)
	Retry    time.Duration // of fetches and resends (1 s)
	Announce time.Duration // of where we are (10 s)
	Trains   bool          // this site sends deltas
}

func (c *Config) fill() error {
	if err := c.Genesis.Check(); err != nil {
		return err
	}
	if c.Crypto == nil {
		c.Crypto = chain.Remember(chain.Ed25519{})
	}
	if c.Combine == nil || c.Sign == nil || c.Salt == nil {
		return errors.New("council: config: expected combine, sign and salt")
	}
	for _, d := range []struct {
		d  *time.Duration
		or time.Duration
	}{
		{&c.Every, 10 * time.Minute}, {&c.Gather, 30 * time.Second}, {&c.Reveal, 30 * time.Second}, {&c.Vote, 30 * time.Second},
		{&c.Grace, 5 * time.Second}, {&c.Retry, time.Second}, {&c.Announce, 10 * time.Second},
	} {
		if *d.d <= 0 {
			*d.d = d.or
		}
	}
	return nil
}

// Step names of events.
const (
	Entered   = "entered"
	Committed = "committed"
	Closed    = "closed" // the set of commitments
	Listed    = "listed"
	Sealed    = "sealed"
	Final     = "final"
	Skipped   = "skipped" // the round before did not seal
	Withheld  = "withheld"
	Lied      = "equivocated"
	Censored  = "censored" // a set or list omits what we know
	Changed   = "roster"
	Failed    = "failed"
	CaughtUp  = "caught-up"
)

// Event tells of a step.
type Event struct {
	Step   string
	Round  uint64
	Org    string // whose doing it is
	Hash   wire.Hash
	Model  wire.Hash
	Listed int
	Why    string
}

// Train asks the driver to train from a model and to call Trained.
type Train struct {
	Base   wire.Hash // of the block
	Model  wire.Hash
	Params []float32
}

// Fetch asks for parameters by hash; they go to Fetched.
type Fetch struct {
	Hash wire.Hash
	From identity.ID
}

// Sync asks for sealed blocks from a height on; they go to Add.
type Sync struct {
	Height uint64
	From   identity.ID
}

// Params is a vector under its hash.
type Params struct {
	Hash   wire.Hash
	Params []float32
}

// Ready is what the driver has to do, in the order of the fields.
type Ready struct {
	Keep    []Params       // store these bytes
	Chain   []*wire.Sealed // store these final blocks by height
	Persist bool           // store Snapshot
	Send    []*wire.Message
	Seal    []wire.Payload
	Fetch   []Fetch
	Sync    *Sync
	Train   *Train
	Adopt   *Model // a final model for the site's gate
	Fork    string // two sealed blocks exclude each other: what conflicts, in words
	Events  []Event
}

// Model is a final global model.
type Model struct {
	Round  uint64
	Height uint64
	Params
}

// Empty says that there is nothing to do.
func (r *Ready) Empty() bool {
	return len(r.Keep) == 0 && len(r.Chain) == 0 && !r.Persist && len(r.Send) == 0 && len(r.Seal) == 0 &&
		len(r.Fetch) == 0 && r.Sync == nil && r.Train == nil && r.Adopt == nil && r.Fork == "" && len(r.Events) == 0
}

// Machine is one member's view of the rounds.
type Machine struct {
	cfg  Config
	tree *chain.Tree
	safe safety

	params map[wire.Hash][]float32 // models of kept blocks, by model hash
	adopt  wire.Hash               // the final model last offered to the gate

	round   uint64 // that we are in
	since   time.Time
	closed  time.Time // when the set of this round was; zero before
	rounds  map[uint64]*state
	wish    uint64
	wishes  map[identity.ID]*wire.Wish
	beyond  map[identity.ID]wire.Hash // blocks that others committed on in a later round, and that we lack
	entries []wire.Entry              // that wait for a block of ours

	counted, observers []chain.Member // whom the consortium wants in the roster; nil while that was not told
	approvals          map[identity.ID]*wire.Approve
	approval           *wire.Message // ours, resent as long as it is wanted

	trainedOn wire.Hash // block that Train was asked for
	trainAt   time.Time // not before, after a failure
	wants     map[wire.Hash]*want
	syncAt    time.Time
	syncTurn  int
	syncGap   time.Duration // grows while syncs bring nothing
	behind    bool          // others tell of seals that we lack

	last, announceAt, resendAt time.Time
	resendBy                   time.Time // whatever is heard meanwhile
	resendGap                  time.Duration
	patience                   time.Duration // the first resendGap of a round
	goal                       goal
	own                        wire.Hash // of our id
	ready                      Ready
}

// New returns a machine at genesis. Restore may follow.
func New(cfg Config) (*Machine, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	tree, err := chain.NewTree(cfg.Genesis, cfg.Crypto)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		cfg: cfg, tree: tree, patience: cfg.Retry, own: sha256.Sum256([]byte(cfg.Self)), syncGap: cfg.Retry, params: make(map[wire.Hash][]float32), rounds: make(map[uint64]*state),
		wishes: make(map[identity.ID]*wire.Wish), beyond: make(map[identity.ID]wire.Hash), wants: make(map[wire.Hash]*want), approvals: make(map[identity.ID]*wire.Approve),
	}
	m.params[tree.Tip().Next.Model] = slices.Clone(cfg.Genesis.Init)
	m.adopt = tree.Tip().Next.Model
	return m, nil
}

// Tree is the chain. It is not to be changed.
func (m *Machine) Tree() *chain.Tree { return m.tree }

// Round is the round that we are in; 0 before the first call with a time.
func (m *Machine) Round() uint64 { return m.round }

// Phase is what the round that we are in waits for, in a word.
func (m *Machine) Phase() string {
	st := m.rounds[m.round]
	switch {
	case st == nil:
		return "idle"
	case m.safe.voted >= m.round:
		return "voted"
	case st.setSigs != nil:
		return "revealing"
	case st.set != nil:
		return "closing"
	case st.committedOn != (wire.Hash{}):
		return "committed"
	}
	return "training"
}

// Ready hands over what has piled up and forgets it.
func (m *Machine) Ready() Ready {
	r := m.ready
	m.ready = Ready{}
	return r
}

// Propose hands over a change of the roster, with its approvals, for the next
// block of ours.
func (m *Machine) Propose(e wire.Entry) error {
	if len(m.entries) >= wire.MaxOrgs {
		return fmt.Errorf("council: %d changes of the roster wait: expected at most %d", len(m.entries), wire.MaxOrgs)
	}
	m.entries = append(m.entries, e)
	return nil
}

// Serve returns parameters that were told already, or nil.
func (m *Machine) Serve(hash wire.Hash) []float32 {
	if p := m.params[hash]; p != nil {
		return p
	}
	for _, st := range m.rounds {
		if p := st.held[hash]; p != nil && (hash != m.safe.own.Delta || st.revealed) {
			return p
		}
	}
	return nil
}

func (m *Machine) event(e Event) { m.ready.Events = append(m.ready.Events, e) }

func (m *Machine) orgName(id identity.ID) string {
	c := m.tree.Tip().Next
	if i := c.Org(id); i >= 0 {
		return c.Orgs[i].Org
	}
	return string(id)
}

// Next is when Tick is due.
func (m *Machine) Next() time.Time {
	if m.round != 0 && m.overdue(m.last) {
		return m.last
	}
	next := m.announceAt
	for _, t := range m.deadlines() {
		if t.After(m.last) && t.Before(next) {
			next = t
		}
	}
	if t := m.fetchAt(); t.Before(next) {
		next = t
	}
	if m.resendAt.Before(next) {
		next = m.resendAt
	}
	return next
}

// deadlines are the times at which this round asks for something.
func (m *Machine) deadlines() []time.Time {
	out := []time.Time{m.since.Add(m.cfg.Every), m.setBy(), m.roundBy()}
	if !m.closed.IsZero() {
		out = append(out, m.listBy(), m.closed.Add(m.cfg.Reveal))
	}
	if !m.trainAt.IsZero() {
		out = append(out, m.trainAt)
	}
	return append(out, m.rounds[m.round].graces(m.cfg.Grace)...)
}

func (m *Machine) setBy() time.Time { return m.since.Add(m.cfg.Every + m.cfg.Gather) }

// listBy is from when on a list may omit something: an honest proposer waits for all
// until Reveal is over, by a clock that began up to Grace before ours.
func (m *Machine) listBy() time.Time { return m.closed.Add(m.cfg.Reveal - m.cfg.Grace) }

// roundBy is when we give a round up. Rounds that failed in a row get more
// time each, up to fourfold, so that sites with slow links meet in the end.
func (m *Machine) roundBy() time.Time {
	failed := min(m.round-m.tree.Tip().Round(), 4)
	each := m.cfg.Gather + m.cfg.Reveal + m.cfg.Vote
	return m.since.Add(m.cfg.Every + time.Duration(failed)*each)
}
