package sim

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// MeshResult is all that a run of whole nodes made. Equal scenarios give equal
// results.
type MeshResult struct {
	Scenario Scenario
	Sites    []NodeRow
	Contacts []ContactRow
	Blocks   []BlockRow
}

// NodeRow is a site's account.
type NodeRow struct {
	Site, Organisation string
	Liar               bool
	Ordinary, Lost     int // sessions of ordinary work, and those of them that failed
	Alerts             int
	Blocks, False      int // targets that were blocked, and those of them that were innocent
	Limits, Cramped    int // likewise of those whose budget of new flows was cut
	Rounds             int // that made a model
	Models, Adopted    int // that came to judge, and those of them that rounds made
	Messages, Bytes    int64
}

// ContactRow is the first meeting of an attacker and a site. Times are in seconds.
type ContactRow struct {
	Attacker      int
	Address, Kind string
	Site          string
	Liar          bool // the site is one
	At            float64
	Seen          bool // it was at another site before
	Prevented     bool // the first thing that it tried got no answer
	Tried         int
	Answered      int
}

// BlockRow is a target that a site blocked, or whose budget it cut: the first time.
type BlockRow struct {
	At       float64
	Site     string
	Target   string
	Action   string
	From     string // whose word it was; "" is the site itself
	Attacker int    // 0: the target is innocent
}

func (m *mesh) result() *MeshResult {
	r := &MeshResult{Scenario: *m.s}
	for _, w := range m.sites {
		x := &w.seen
		row := NodeRow{Site: w.site.Name, Organisation: orgName(w.org), Liar: w.liar, Ordinary: x.ordinary, Lost: x.lost, Alerts: x.alerts,
			Rounds: x.rounds, Models: x.models, Adopted: x.adopted, Messages: w.messages, Bytes: w.bytes}
		for _, b := range x.blocks {
			out := BlockRow{At: m.since(b.at), Site: w.site.Name, Target: b.target, Action: b.action, From: b.from}
			if b.attacker != nil {
				out.Attacker = b.attacker.n + 1
			}
			row.count(&b)
			r.Blocks = append(r.Blocks, out)
		}
		r.Sites = append(r.Sites, row)
	}
	slices.SortStableFunc(r.Blocks, func(a, b BlockRow) int { return cmp.Compare(a.At, b.At) })
	for _, v := range m.visits {
		if v.met {
			r.Contacts = append(r.Contacts, ContactRow{
				Attacker: v.attacker.n + 1, Address: v.attacker.addr.String(), Kind: string(v.attacker.kind), Site: m.sites[v.site].site.Name, Liar: m.sites[v.site].liar,
				At: m.since(v.begin), Seen: v.turn > 0, Prevented: v.prevented, Tried: v.tried, Answered: v.answered,
			})
		}
	}
	slices.SortStableFunc(r.Contacts, func(a, b ContactRow) int { return cmp.Compare(a.At, b.At) })
	return r
}

func (r *NodeRow) count(b *blocked) {
	all, innocent := &r.Blocks, &r.False
	if b.action != actionBlock {
		all, innocent = &r.Limits, &r.Cramped
	}
	*all++
	if b.attacker == nil {
		*innocent++
	}
}

var actionBlock = dataplane.Block.String()

func (m *mesh) since(t time.Time) float64 { return t.Sub(m.start).Seconds() }

// MeshSums are a run in a few figures.
type MeshSums struct {
	Contacts, Seen, Prevented int // first contacts; of attackers that another site had met; of these, prevented
	Tried, Answered           int // connections of attackers
	FalseBlocks, Cramped      int // innocent targets that were blocked, or whose budget was cut, one for each site
	Ordinary, Lost            int // sessions of ordinary work
	Bytes                     int64
}

// Sums adds a run up. What befalls liars is left out, but for their bytes.
func (r *MeshResult) Sums() (s MeshSums) {
	for _, c := range r.Contacts {
		if c.Liar {
			continue
		}
		s.Contacts++
		s.Tried += c.Tried
		s.Answered += c.Answered
		if c.Seen {
			s.Seen++
			if c.Prevented {
				s.Prevented++
			}
		}
	}
	for _, x := range r.Sites {
		s.Bytes += x.Bytes
		if x.Liar {
			continue
		}
		s.FalseBlocks += x.False
		s.Cramped += x.Cramped
		s.Ordinary += x.Ordinary
		s.Lost += x.Lost
	}
	return s
}

// meshFigures names the columns of figures: what a sweep keeps of a run.
var meshFigures = []string{"contacts", "seen_elsewhere", "prevented", "prevented_share", "tried", "answered_share", "false_blocks", "false_limits",
	"ordinary", "lost_share", "rounds", "models", "adopted", "bytes", "block_within_1s", "block_in_the_end"}

func (r *MeshResult) figures() (out []string) {
	s := r.Sums()
	rounds, models, adopted := r.models()
	after, part, _ := r.Spread()
	for _, x := range []float64{
		float64(s.Contacts), float64(s.Seen), float64(s.Prevented), quotient(s.Prevented, s.Seen), float64(s.Tried), quotient(s.Answered, s.Tried),
		float64(s.FalseBlocks), float64(s.Cramped), float64(s.Ordinary), quotient(s.Lost, s.Ordinary), float64(rounds), float64(models), float64(adopted),
		float64(s.Bytes), part[slices.Index(after, 1)], part[len(part)-1],
	} {
		out = append(out, number(x))
	}
	return out
}

// models are the rounds that made one, as the site that heard of most of them counts
// them, the models that came to judge at honest sites, and those of these that rounds made.
func (r *MeshResult) models() (rounds, models, adopted int) {
	for _, x := range r.Sites {
		if !x.Liar {
			rounds, models, adopted = max(rounds, x.Rounds), models+x.Models, adopted+x.Adopted
		}
	}
	return rounds, models, adopted
}

// quotient is a share; of nothing 0.
func quotient(part, of int) float64 { return float64(part) / max(1, float64(of)) }

// spreadTimes are the seconds after an attacker's first block at which the sites that
// block it are counted.
var spreadTimes = []float64{0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300}

// Spread is the share of all other sites that block an attacker so many seconds after
// the first that does, as the mean over the attackers that were blocked at all, and
// how many these are.
func (r *MeshResult) Spread() (after, share []float64, attackers int) {
	first := map[int]float64{}
	for _, b := range r.Blocks {
		if _, known := first[b.Attacker]; !known && b.Attacker > 0 && b.Action == actionBlock {
			first[b.Attacker] = b.At
		}
	}
	counted := map[string]bool{}
	share = make([]float64, len(spreadTimes))
	for _, b := range r.Blocks {
		key := fmt.Sprint(b.Attacker, " ", b.Site)
		if b.Attacker == 0 || b.Action != actionBlock || counted[key] {
			continue
		}
		counted[key] = true
		for i, t := range spreadTimes {
			if b.At-first[b.Attacker] <= t {
				share[i]++
			}
		}
	}
	for i := range share {
		share[i] = max(0, share[i]-float64(len(first))) / max(1, float64(len(first)*(len(r.Sites)-1)))
	}
	return spreadTimes, share, len(first)
}

func share(part, of int) string {
	if of == 0 {
		return "none"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(of))
}

func (r *MeshResult) words() string {
	n := &r.Scenario.Nodes
	trust := fmt.Sprintf("%d organisations, which weigh each other's words", n.Organisations)
	switch n.Organisations {
	case 0:
		trust = "each alone"
	case 1:
		trust = "one organisation, whose sites trust each other"
	}
	liars := "nobody lies"
	if n := r.Scenario.Attackers.liars(r.Scenario.Sites.Count); n > 0 {
		liars = fmt.Sprintf("%d sites lie: %s", n, r.Scenario.Attackers.Attack)
	}
	learner := "counting rules alone"
	if n.Learner {
		learner = "rules and learner"
	}
	return fmt.Sprintf("%d whole nodes for %g s, %g sessions a second at each; %s; %s; %d attackers; %s; seed %d",
		r.Scenario.Sites.Count, n.Seconds, n.Flows, trust, learner, r.Scenario.Campaigns.Attackers, liars, r.Scenario.Seed)
}

// Print writes what a run found, in a few lines.
func (r *MeshResult) Print(w io.Writer) error {
	s := r.Sums()
	var b strings.Builder
	p := func(f string, a ...any) { fmt.Fprintf(&b, f+"\n", a...) }
	p("%s: %s", r.Scenario.Name, r.words())
	p("")
	p("first contacts of an attacker and a site   %8d", s.Contacts)
	p("  of attackers that another site had met   %8d", s.Seen)
	p("    of these prevented                     %8d  (%s)", s.Prevented, share(s.Prevented, s.Seen))
	p("connections that attackers tried           %8d", s.Tried)
	p("  that got an answer                       %8d  (%s)", s.Answered, share(s.Answered, s.Tried))
	p("blocks of the innocent, over all sites     %8d", s.FalseBlocks)
	p("cut budgets of the innocent, over all sites%8d", s.Cramped)
	p("sessions of ordinary work                  %8d", s.Ordinary)
	p("  that failed                              %8d  (%s)", s.Lost, share(s.Lost, s.Ordinary))
	if rounds, models, adopted := r.models(); models > 0 {
		p("rounds that made a model                   %8d", rounds)
		p("models that came to judge, over all sites  %8d  (%d of them of rounds)", models, adopted)
	}
	p("bytes between sites                        %8d", s.Bytes)
	after, part, n := r.Spread()
	p("")
	p("%d attackers were blocked; of the other sites, so many blocked them too:", n)
	for i := range after {
		p("  within %5g s of the first block  %5.1f %%", after[i], 100*part[i])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func yes(b bool) string { return strconv.FormatBool(b) }

func (r *MeshResult) tables() []table {
	nodes := table{name: "nodes.csv", head: []string{"site", "organisation", "liar", "ordinary", "lost", "alerts", "blocks", "false_blocks", "limits", "false_limits", "rounds", "models", "adopted", "messages", "bytes"}}
	for _, x := range r.Sites {
		nodes.add(x.Site, x.Organisation, yes(x.Liar), x.Ordinary, x.Lost, x.Alerts, x.Blocks, x.False, x.Limits, x.Cramped, x.Rounds, x.Models, x.Adopted, x.Messages, x.Bytes)
	}
	contacts := table{name: "contacts.csv", head: []string{"attacker", "address", "kind", "site", "liar", "at_s", "seen_elsewhere", "prevented", "tried", "answered"}}
	for _, x := range r.Contacts {
		contacts.add(x.Attacker, x.Address, x.Kind, x.Site, yes(x.Liar), number(x.At), yes(x.Seen), yes(x.Prevented), x.Tried, x.Answered)
	}
	blocks := table{name: "blocks.csv", head: []string{"at_s", "site", "target", "action", "from", "attacker"}}
	for _, x := range r.Blocks {
		blocks.add(number(x.At), x.Site, x.Target, x.Action, x.From, x.Attacker)
	}
	spread := table{name: "spread.csv", head: []string{"after_s", "share_of_other_sites", "attackers"}}
	after, part, n := r.Spread()
	for i := range after {
		spread.add(number(after[i]), number(part[i]), n)
	}
	return []table{nodes, contacts, blocks, spread}
}

// add appends a row.
func (t *table) add(cells ...any) {
	var row []string
	for _, c := range cells {
		row = append(row, fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

func (r *MeshResult) drawings() []drawing {
	return []drawing{{"spread.svg", r.drawSpread}, {"contacts.svg", r.drawContacts}}
}

// drawSpread shows how blocks spread over the sites.
func (r *MeshResult) drawSpread(w io.Writer) error {
	after, part, n := r.Spread()
	c := plot.Curve{Name: "block it too"}
	for i := range after {
		c.X, c.Y = append(c.X, math.Log10(1+after[i])), append(c.Y, part[i])
	}
	return plot.Curves(w, fmt.Sprintf("Sites that block an attacker after the first (mean of %d attackers)", n), r.words(),
		"log10(1 + seconds since the first block)", "share of the other sites", []float64{0, 0.5, 1, 1.5, 2, 2.5}, []plot.Curve{c})
}

// drawContacts shows the share of first contacts prevented, by how many sites the
// attacker had been at before.
func (r *MeshResult) drawContacts(w io.Writer) error {
	width := max(1, int(r.Scenario.Nodes.Seconds/20))
	seen, stopped := map[int]float64{}, map[int]float64{}
	for _, c := range r.Contacts {
		if c.Seen {
			k := int(c.At) / width
			seen[k]++
			if c.Prevented {
				stopped[k]++
			}
		}
	}
	c := plot.Curve{Name: "prevented"}
	for k := range 21 {
		if seen[k] > 0 {
			c.X, c.Y = append(c.X, float64(k*width)), append(c.Y, stopped[k]/seen[k])
		}
	}
	return plot.Curves(w, "First contacts of attackers that another site had met", r.words(), "seconds", "share prevented", ticks(int(r.Scenario.Nodes.Seconds)), []plot.Curve{c})
}

// Save writes a run's figures into a folder, which it makes.
func (r *MeshResult) Save(dir string) error {
	return save(dir, &r.Scenario, r.tables(), r.drawings(), r.HTML)
}

// HTML writes a run as one page that loads nothing from elsewhere.
func (r *MeshResult) HTML(w io.Writer) error {
	return writeReport(w, &r.Scenario, r.Print, r.drawings(), r.tables())
}
