package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// HostsCell is one setting under which the Stratosphere hosts are played.
type HostsCell struct {
	Organisations int  // 0: each alone; 1: all trust each other; 3: each weighs the others' words
	Dark          bool // unused services answer; whoever knocks completes the handshake
	Liar          bool // one of the three sites accuses innocent addresses
}

// HostsCells are the settings that tell something of each other.
func HostsCells() (out []HostsCell) {
	for _, dark := range []bool{false, true} {
		out = append(out, HostsCell{Dark: dark})
		for _, liar := range []bool{false, true} {
			out = append(out, HostsCell{1, dark, liar}, HostsCell{3, dark, liar})
		}
	}
	return out
}

// String says a setting in words.
func (c HostsCell) String() string {
	trust := map[int]string{0: "each alone", 1: "one organisation", 3: "three organisations"}[c.Organisations]
	if c.Dark {
		trust += ", unused services answer"
	}
	if c.Liar {
		trust += ", one of three lies"
	}
	return trust
}

// Hosts are three machines of one address range that stood in the open for a day
// each, with all flows that their logs tell of (Stratosphere Lab, 008, 010, 011).
type Hosts struct {
	flows [][]*recorded // of each host, by their begin
	sites []*scenario.Site
	begin time.Time
	end   time.Time
}

// hostAddrs are the machines, in the order of dataset.Hosts.
var hostAddrs = []string{"147.32.81.167", "147.32.83.234", "147.32.83.165"}

// ReadHosts reads the three logs below a folder of data sets. Flows of IPv6, and
// those in which the machine has no part, are left out.
func ReadHosts(ctx context.Context, folder string) (*Hosts, error) {
	h := &Hosts{}
	for i, file := range dataset.Hosts(folder) {
		addr := netip.MustParseAddr(hostAddrs[i])
		inside := netip.PrefixFrom(addr, 32)
		var flows []*recorded
		_, err := history.Read(ctx, file, history.Options{Inside: []netip.Prefix{inside}}, func(r *history.Report) {
			if r.Final && r.Record.InitInside != r.Record.RespInside && r.Record.Key.A.Is4() {
				x := &recorded{rec: *r.Record}
				if r.Class == flowlog.Attack {
					x.visit = &visit{site: i}
				}
				flows = append(flows, x)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("sim: hosts: %w", err)
		}
		slices.SortStableFunc(flows, byBegin)
		if len(flows) == 0 {
			return nil, fmt.Errorf("sim: hosts: %s: no flow of %s", file, addr)
		}
		h.flows = append(h.flows, flows)
		h.sites = append(h.sites, newHostSite(i, addr))
		begin, end := time.Unix(0, flows[0].rec.Start).UTC(), time.Unix(0, flows[len(flows)-1].rec.Start).UTC()
		if h.begin.IsZero() || begin.Before(h.begin) {
			h.begin = begin
		}
		if end.After(h.end) {
			h.end = end
		}
	}
	h.begin, h.end = h.begin.Truncate(time.Second), h.end.Add(time.Minute)
	return h, nil
}

// newHostSite is a site of one machine.
func newHostSite(i int, addr netip.Addr) *scenario.Site {
	return &scenario.Site{
		Name: fmt.Sprintf("host-%03d", []int{8, 10, 11}[i]), LAN: netip.PrefixFrom(addr, 32), WAN: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}),
	}
}

// outside is the end of a flow that is not the host.
func (x *recorded) outside() netip.Addr {
	ep, _, _ := x.rec.Outside()
	return ep.Addr()
}

// visits gives each hostile source a visit at each host, in the order in which they
// came, and ties the flows to it.
func (h *Hosts) visits() (all []*visit, hostile map[netip.Addr]*attacker) {
	hostile = map[netip.Addr]*attacker{}
	type key struct {
		addr netip.Addr
		site int
	}
	known := map[key]*visit{}
	for site, flows := range h.flows {
		for _, x := range flows {
			if x.visit == nil {
				continue
			}
			a := x.outside()
			v := known[key{a, site}]
			if x.first = v == nil; x.first {
				v = &visit{site: site, begin: time.Unix(0, x.rec.Start).UTC()}
				known[key{a, site}] = v
				all = append(all, v)
				if hostile[a] == nil {
					hostile[a] = &attacker{n: len(hostile), kind: "recorded", addr: a}
				}
				v.attacker = hostile[a]
			}
			x.visit, x.gone = v, false
		}
	}
	slices.SortStableFunc(all, func(a, b *visit) int { return a.begin.Compare(b.begin) })
	met := map[netip.Addr]int{}
	for _, v := range all {
		v.turn = met[v.attacker.addr]
		met[v.attacker.addr]++
	}
	return all, hostile
}

// innocents are those with whom the hosts had ordinary work and nothing else.
func (h *Hosts) innocents(hostile map[netip.Addr]*attacker) []netip.Addr {
	seen := map[netip.Addr]bool{}
	for _, flows := range h.flows {
		for _, x := range flows {
			if a := x.outside(); x.visit == nil && hostile[a] == nil {
				seen[a] = true
			}
		}
	}
	out := make([]netip.Addr, 0, len(seen))
	for a := range seen {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b netip.Addr) int { return a.Compare(b) })
	return out
}

// hostsBlock is how long a block stands, and hostsStep the step of time.
const (
	hostsBlock = 24 * time.Hour
	hostsStep  = time.Second
	hostsLie   = 10 * time.Minute
)

// Play lets three nodes, whole but for the learner, live through what the hosts
// received and sent.
func (h *Hosts) Play(ctx context.Context, c HostsCell, o Options) (r *MeshResult, err error) {
	if o.Library == nil {
		o.Library = Builtin()
	}
	s := Default()
	s.Name, s.Depth, s.Sites.Count = "stratosphere hosts: "+c.String(), DepthMesh, len(h.sites)
	s.Nodes.Seconds, s.Nodes.Organisations, s.Nodes.Block = h.end.Sub(h.begin).Seconds(), c.Organisations, hostsBlock.Seconds()
	if c.Liar {
		s.Attackers = Attackers{Attack: "bad-mouthing", Share: 0.34}
	}
	ctx, stop := context.WithCancel(ctx)
	m := &mesh{s: &s, start: h.begin, now: h.begin, step: hostsStep, workers: max(o.Workers, 1)}
	defer func() {
		stop()
		err = errors.Join(err, m.close())
	}()
	m.visits, m.hostile = h.visits()
	m.sc = &scenario.Scenario{Seed: s.Seed, Sites: h.sites, Web: h.innocents(m.hostile)}
	if err := m.found(o.Library); err != nil {
		return nil, err
	}
	if m.liars != nil {
		m.liars.every = hostsLie
	}
	for i, w := range m.sites {
		w.script, w.proofs = newScript(h.flows[i]), c.Dark
	}
	if err := m.open(ctx); err != nil {
		return nil, fmt.Errorf("sim: hosts: %w", err)
	}
	if err := m.live(ctx, h.end.Sub(h.begin), o.Told); err != nil {
		return nil, err
	}
	return m.result(), nil
}

// Evidence is what a host must have seen of a source before it tells the others.
type Evidence struct {
	Name     string
	Services int           // distinct silent services
	Within   time.Duration // so long
	Spoke    bool          // or a handshake that was completed and used, as the log has it
}

// evidences are those that are compared. The counting rules of a gateway are 15
// within a minute, and 3 where unused services answer.
var evidences = []Evidence{
	{"1 unanswered service", 1, time.Minute, false}, {"2 within a day", 2, 24 * time.Hour, false}, {"3 within a day", 3, 24 * time.Hour, false},
	{"2 within a minute", 2, time.Minute, false}, {"3 within a minute", 3, time.Minute, false},
	{"15 within a minute", 15, time.Minute, false}, {"a handshake, and payload", 0, 0, true},
}

// lives are how long a block stands.
var lives = []time.Duration{time.Hour, 4 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// Ceiling is what sharing could prevent at most if a host told the others at once,
// and they believed it at once.
type Ceiling struct {
	Evidence  string
	Sources   int   // pairs of source and host at which the evidence was there
	Prevented []int // of the first contacts, for each of lives
	False     int   // likewise pairs, of sources of ordinary work
}

// Ceilings are those of all kinds of evidence; contacts are all first contacts, seen
// those whose source another host had met.
func (h *Hosts) Ceilings() (out []Ceiling, contacts, seen int) {
	visits, hostile := h.visits()
	for _, v := range visits {
		if contacts++; v.turn > 0 {
			seen++
		}
	}
	for _, e := range evidences {
		told := make([]map[netip.Addr][]int64, len(h.flows)) // when, for each source
		for i, flows := range h.flows {
			told[i] = e.told(flows)
		}
		c := Ceiling{Evidence: e.Name, Prevented: make([]int, len(lives))}
		for i := range told {
			for a := range told[i] {
				if hostile[a] != nil {
					c.Sources++
				} else {
					c.False++
				}
			}
		}
		for _, v := range visits {
			for k, life := range lives {
				if shielded(told, v, life) {
					c.Prevented[k]++
				}
			}
		}
		out = append(out, c)
	}
	return out, contacts, seen
}

// shielded says that another host told of a source not too long before a visit.
func shielded(told []map[netip.Addr][]int64, v *visit, life time.Duration) bool {
	for i := range told {
		if i == v.site {
			continue
		}
		for _, at := range told[i][v.attacker.addr] {
			if d := v.begin.UnixNano() - at; d > 0 && d <= int64(life) {
				return true
			}
		}
	}
	return false
}

// told are the times at which sources from outside had shown the evidence.
func (e Evidence) told(flows []*recorded) map[netip.Addr][]int64 {
	type service struct {
		port  uint16
		proto uint8
	}
	out, last := map[netip.Addr][]int64{}, map[netip.Addr]map[service]int64{}
	for _, x := range flows {
		r, a := &x.rec, x.outside()
		if r.InitInside {
			continue
		}
		if e.Spoke {
			if r.Key.Proto == flow.TCP && r.Dir[0].Payload > 0 && r.Dir[1].Packets > 0 {
				out[a] = append(out[a], r.Last)
			}
			continue
		}
		if r.Dir[1].Packets > 0 {
			continue
		}
		if last[a] == nil {
			last[a] = map[service]int64{}
		}
		last[a][service{r.Responder().Port(), r.Key.Proto}] = r.Start
		n := 0
		for _, at := range last[a] {
			if r.Start-at <= int64(e.Within) {
				n++
			}
		}
		if n >= e.Services {
			out[a] = append(out[a], r.Start)
		}
	}
	return out
}

// PrintCeilings writes them as a table.
func (h *Hosts) PrintCeilings(w io.Writer) error {
	all, contacts, seen := h.Ceilings()
	_, err := fmt.Fprintf(w, "%d first contacts; of %d of them (%.1f %%) another host had met the source\n\n| what a host must see before it tells | sources | prevented, block of 1 h | 4 h | 24 h | 7 d | ordinary sources |\n|---|---|---|---|---|---|---|\n",
		contacts, seen, 100*float64(seen)/float64(contacts))
	for _, c := range all {
		line := fmt.Sprintf("| %s | %d |", c.Evidence, c.Sources)
		for _, n := range c.Prevented {
			line += fmt.Sprintf(" %d |", n)
		}
		_, e := fmt.Fprintf(w, "%s %d |\n", line, c.False)
		err = cmp.Or(err, e)
	}
	return err
}

// HostsHead and HostsRow are a table of what cells made.
const HostsHead = "| setting | first contacts seen elsewhere before | prevented | blocks by own evidence | by others' word | false blocks | innocent budgets cut | packets of ordinary flows dropped |\n|---|---|---|---|---|---|---|---|"

// HostsRow is the line of a cell.
func HostsRow(c HostsCell, r *MeshResult) string {
	s := r.Sums()
	own, others := 0, 0
	for _, b := range r.Blocks {
		if b.Action != actionBlock {
			continue
		}
		if b.From == "" {
			own++
		} else {
			others++
		}
	}
	return fmt.Sprintf("| %s | %d | %d (%.1f %%) | %d | %d | %d | %d | %d |", c, s.Seen, s.Prevented, 100*float64(s.Prevented)/float64(max(s.Seen, 1)),
		own, others, s.FalseBlocks, s.Cramped, s.Lost)
}
