package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// Depths of a simulation.
const (
	DepthRounds = "rounds" // models and their aggregation alone
	DepthMesh   = "mesh"   // whole nodes: packets, learner, gossip, policy
)

// Nodes are the whole nodes of depth mesh. Times are in seconds.
type Nodes struct {
	Seconds       float64 `toml:"seconds"`       // how long they live
	Flows         float64 `toml:"flows"`         // ordinary sessions a second at each site, in the mean
	Organisations int     `toml:"organisations"` // the sites are of; 0: each is alone
	Learner       bool    `toml:"learner"`
	Warmup        int     `toml:"warmup"`  // flows before a first model
	Retrain       float64 `toml:"retrain"` // between trainings
	Rounds        float64 `toml:"rounds"`  // between rounds of shared models
	Block         float64 `toml:"block"`   // how long a block stands
}

// Campaigns are attackers that go from site to site. Times are in seconds.
type Campaigns struct {
	Attackers int      `toml:"attackers"`
	Kinds     []string `toml:"kinds"` // of attacks, in turn: scan, brute, beacon, spurt
	Begin     float64  `toml:"begin"` // when the first attacker begins
	Every     float64  `toml:"every"` // between the beginnings of two attackers
	Move      float64  `toml:"move"`  // from a site to the next
	Sites     int      `toml:"sites"` // that each goes to; 0: all
}

// Network is what happens to messages between sites, and to the sites. Times are in
// seconds at depth mesh, and in rounds at depth rounds.
type Network struct {
	Delay  float64 `toml:"delay"`  // one way
	Jitter float64 `toml:"jitter"` // 0 to this is added
	Loss   float64 `toml:"loss"`   // share of messages
	Away   float64 `toml:"away"`   // share of its time in which a site is cut off
	Spell  float64 `toml:"spell"`  // how long each time, in the mean
	Cuts   []Cut   `toml:"cuts"`
}

// Cut parts the sites in two for a time: this share of them, and the rest.
type Cut struct {
	From  float64 `toml:"from"`
	Until float64 `toml:"until"`
	Share float64 `toml:"share"`
}

func defaultNodes() Nodes {
	return Nodes{Seconds: 600, Flows: 10, Organisations: 1, Warmup: 800, Retrain: 3600, Rounds: 1200, Block: 3600}
}

func defaultCampaigns() Campaigns {
	return Campaigns{Attackers: 4, Kinds: []string{string(scenario.Scan), string(scenario.Brute)}, Begin: 120, Every: 30, Move: 45}
}

// Limits of whole nodes.
const (
	maxNodes     = 1000
	maxSeconds   = 30 * 86400
	maxFlows     = 1000
	maxAttackers = 10_000
)

// between names a number that is out of its range.
func between(field string, x, low, high float64) error {
	if !(x >= low && x <= high) {
		return fmt.Errorf("%s: found %g: expected %g to %g", field, x, low, high)
	}
	return nil
}

func (n *Network) check() error {
	for _, c := range n.Cuts {
		if !(c.From >= 0 && c.Until > c.From && c.Share > 0 && c.Share < 1) {
			return fmt.Errorf("network.cuts: found %+v: expected from below until, and a share between 0 and 1", c)
		}
	}
	return errors.Join(
		between("network.delay", n.Delay, 0, 3600), between("network.jitter", n.Jitter, 0, 3600), between("network.loss", n.Loss, 0, 0.99),
		between("network.away", n.Away, 0, 0.99), between("network.spell", n.Spell, 0.01, maxSeconds))
}

func (n *Nodes) check(sites int) error {
	return errors.Join(
		within("sites.count", sites, 1, maxNodes),
		between("nodes.seconds", n.Seconds, 1, maxSeconds),
		between("nodes.flows", n.Flows, 0.1, maxFlows),
		within("nodes.organisations", n.Organisations, 0, sites),
		within("nodes.warmup", n.Warmup, 50, 1_000_000),
		between("nodes.retrain", n.Retrain, 1, maxSeconds),
		between("nodes.rounds", n.Rounds, 1, maxSeconds),
		between("nodes.block", n.Block, 1, 86400))
}

func (c *Campaigns) check(sites int) error {
	for _, k := range c.Kinds {
		if !slices.Contains(scenario.Attacks(), scenario.Attack(k)) {
			return fmt.Errorf("campaigns.kinds: found %q: expected some of %q", k, scenario.Attacks())
		}
	}
	if c.Attackers > 0 && len(c.Kinds) == 0 {
		return errors.New("campaigns.kinds: expected at least one, since there are attackers")
	}
	return errors.Join(
		within("campaigns.attackers", c.Attackers, 0, maxAttackers),
		between("campaigns.begin", c.Begin, 0, maxSeconds),
		between("campaigns.every", c.Every, 0, maxSeconds),
		between("campaigns.move", c.Move, 0, maxSeconds),
		within("campaigns.sites", c.Sites, 0, sites))
}

// checkMesh says what is wrong with a scenario of whole nodes.
func (s *Scenario) checkMesh(lib *Library) error {
	if s.Attackers.Attack != "" {
		if _, err := lib.lie(s.Attackers.Attack); err != nil {
			return fmt.Errorf("attackers.attack: %w", err)
		}
	}
	if s.Privacy.on() {
		return fmt.Errorf("privacy.noise: found %g: expected 0 at depth %q: a node's noise cannot be foretold, so no run could be repeated", s.Privacy.Noise, DepthMesh)
	}
	return errors.Join(s.Nodes.check(s.Sites.Count), s.Campaigns.check(s.Sites.Count), s.Network.check(), s.Attackers.check(s.Sites.Count))
}
