package drift

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

const (
	cells  = 8 // of a feature's known values; one more for "absent"
	absent = cells
	// Cells are at least so wide in the schema's scale: what moves less is no
	// news, such as that a familiar peer was met once more.
	apart     = 0.05
	large     = 0.25 // index from which a shift counts
	twice     = 2    // times the usual index
	chance    = 0.01 // over all features together
	perCause  = 0.05 // share of a window that one cause may hold
	minRefs   = 200
	forgets   = 0.2 // weight of the newest window in what is usual
	mostNamed = 3

	// Page-Hinkley: what a mean may rise unnoticed, and how far the sum may
	// climb, in standard deviations of the scores. Unchanged offices climb to 15
	// to 63 in six minutes, since what a host does shows in all its flows (scores
	// that are independent climb to 12 to 33 in 200,000 flows). Of 200 sites whose
	// scores rise fourfold for some of 12 hosts, 60 finds as many within 1000
	// flows as 70 does where it is 4 hosts (196), and in the median after 227
	// flows instead of 281; where it is 3 hosts, whose rise is hardly more than
	// the slack, both find it by chance (132 and 112).
	slack  = 0.5
	climb  = 70
	maxX   = 6.0 // -ln p beyond this says no more
	warmup = 500 // flows that tell what is usual
	// Of so many counted flows at most so many are of one cause: together they
	// stay below the slack, however strange they are.
	block, perBlock = 100, 2
)

// Kinds of drift.
const (
	Inputs = "inputs"
	Scores = "scores"
)

// Moved is a feature that is distributed otherwise than in the reference.
type Moved struct {
	Name  string  `json:"name"`
	Index float64 `json:"index"` // population stability index
	From  float64 `json:"from"`  // median of the reference, in the feature's unit
	To    float64 `json:"to"`    // of the window
	Words string  `json:"words"`
}

// Mover is a host and its share in what moved.
type Mover struct {
	Host  uint64  `json:"host"`
	Share float64 `json:"share"`
}

// Drift is one finding.
type Drift struct {
	Kind     string  `json:"kind"`
	Features []Moved `json:"features,omitempty"` // most moved first
	Hosts    []Mover `json:"hosts"`              // most share first
	Stat     float64 `json:"stat"`               // the index, or the climb
	Limit    float64 `json:"limit"`
	N        int     `json:"n"`      // reports or flows that it was found in
	Causes   int     `json:"causes"` // distinct ones among them
}

// Words say what drifted; hosts are for the caller to name.
func (d *Drift) Words() string {
	if d.Kind == Scores {
		return fmt.Sprintf("flows have become stranger: the sum over the mean climbed to %.0f (limit %.0f) over %d flows", d.Stat, d.Limit, d.N)
	}
	var w []string
	for _, m := range d.Features {
		w = append(w, m.Words)
	}
	return fmt.Sprintf("traffic is otherwise than what the model learnt: %s", strings.Join(w, "; "))
}

// Options of a Detector. Zero values take the defaults.
type Options struct {
	Window int // reports; default 2000, at least 200
}

// Detector compares a site's traffic with a reference, window by window. It is
// for one goroutine.
type Detector struct {
	o      Options
	ready  bool
	edges  [feature.Dim][]float32 // upper ends of the cells, all but the last
	ref    [feature.Dim][cells + 1]float64
	median [feature.Dim]float32
	m      float64 // independent observations in the reference
	usual  [feature.Dim]float64
	seen   int // windows

	rows   []row
	per    map[uint64]int
	scores hinkley
}

// row is one report of the window.
type row struct {
	host uint64
	cell [feature.Dim]uint8
}

// New makes a detector without a reference: it finds nothing.
func New(o Options) *Detector {
	if o.Window == 0 {
		o.Window = 2000
	}
	o.Window = max(o.Window, minRefs)
	d := &Detector{o: o, rows: make([]row, 0, o.Window)}
	d.clear()
	return d
}

func (d *Detector) clear() {
	d.rows, d.per = d.rows[:0], map[uint64]int{}
}

// Reference begins anew with what the model was trained on: vectors and a count
// of the distinct causes among them. Too few leave the detector without one.
func (d *Detector) Reference(vs []feature.Vector, causes int) {
	d.ready, d.seen, d.scores = len(vs) >= minRefs, 0, hinkley{}
	d.clear()
	if !d.ready {
		return
	}
	d.m = float64(max(causes, 2))
	xs := make([]float32, 0, len(vs))
	for i := range feature.Dim {
		xs = xs[:0]
		for k := range vs {
			if vs[k].Known(i) {
				xs = append(xs, vs[k].X[i])
			}
		}
		slices.Sort(xs)
		d.edges[i], d.ref[i], d.usual[i], d.median[i] = d.edges[i][:0], [cells + 1]float64{}, 0, 0
		if len(xs) > 0 {
			d.median[i] = xs[len(xs)/2]
			for c := 1; c < cells; c++ {
				if e := xs[c*len(xs)/cells]; len(d.edges[i]) == 0 || e >= d.edges[i][len(d.edges[i])-1]+apart {
					d.edges[i] = append(d.edges[i], e)
				}
			}
		}
		for k := range vs {
			d.ref[i][d.cellOf(i, &vs[k])]++
		}
		for c := range d.ref[i] {
			d.ref[i][c] /= float64(len(vs))
		}
	}
}

// cellOf is the cell of a feature's value: those up to the first edge are 0.
func (d *Detector) cellOf(i int, v *feature.Vector) uint8 {
	if !v.Known(i) {
		return absent
	}
	e := d.edges[i]
	return uint8(sort.Search(len(e), func(k int) bool { return v.X[i] <= e[k] }))
}

// Report counts a report of a flow, and says what has drifted when a window is full.
func (d *Detector) Report(v *feature.Vector, host, cause uint64) *Drift {
	if !d.ready || d.per[cause] >= int(perCause*float64(d.o.Window)) {
		return nil
	}
	d.per[cause]++
	r := row{host: host}
	for i := range r.cell {
		r.cell[i] = d.cellOf(i, v)
	}
	d.rows = append(d.rows, r)
	if len(d.rows) < d.o.Window {
		return nil
	}
	out := d.compare()
	d.seen++
	d.clear()
	return out
}

// compare holds the window against the reference.
func (d *Detector) compare() *Drift {
	n, causes, hosts := float64(len(d.rows)), max(len(d.per), 2), map[uint64]bool{}
	var index [feature.Dim]float64
	var now [feature.Dim][cells + 1]float64
	for _, r := range d.rows {
		hosts[r.host] = true
		for i, c := range r.cell {
			now[i][c] += 1 / n
		}
	}
	limit := math.Inf(1)
	out := &Drift{Kind: Inputs, N: len(d.rows), Causes: causes}
	for i := range index {
		index[i] = stability(&d.ref[i], &now[i])
		l := max(large, twice*d.usual[i], d.noise(i, causes, len(hosts)))
		if index[i] > l && d.counts(i, &now[i]) {
			out.Features = append(out.Features, Moved{Name: feature.Name(i), Index: index[i]})
			limit = min(limit, l)
		}
		if d.seen == 0 {
			d.usual[i] = min(index[i], large)
		} else {
			d.usual[i] += forgets * (index[i] - d.usual[i])
		}
	}
	if len(out.Features) == 0 {
		return nil
	}
	slices.SortStableFunc(out.Features, func(a, b Moved) int { return cmp.Compare(b.Index, a.Index) })
	out.Features = out.Features[:min(len(out.Features), mostNamed)]
	out.Stat, out.Limit = out.Features[0].Index, limit
	for k := range out.Features {
		d.name(&out.Features[k], &now)
	}
	out.Hosts = d.movers(feature.Index(out.Features[0].Name), &now)
	return out
}

// noise is how large an index gets by chance. What is told of a host is the same
// in all its reports, so of that there are as many observations as hosts.
func (d *Detector) noise(i, causes, hosts int) float64 {
	per := 1/d.m + 1/float64(causes)
	if strings.HasPrefix(feature.Name(i), "host_") {
		per = 2 / float64(max(hosts, 1))
	}
	return per * calibrate.ChiSquare(float64(len(d.edges[i])+1), 1-chance/feature.Dim)
}

// counts says whether a move matters. Of what is told of a flow's surroundings
// only the suspicious side does: a site that has grown familiar with its peers
// has not drifted.
func (d *Detector) counts(i int, now *[cells + 1]float64) bool {
	side := feature.Suspect(i)
	if side == 0 {
		return true
	}
	var moved float64
	for c := range cells {
		moved += float64(c) * (now[c]/max(1-now[absent], 1e-9) - d.ref[i][c]/max(1-d.ref[i][absent], 1e-9))
	}
	return moved*float64(side) > 0
}

// stability is the population stability index of two distributions; half an
// observation in a thousand stands where one has none.
func stability(p, q *[cells + 1]float64) (sum float64) {
	const none = 5e-4
	for c := range p {
		a, b := max(p[c], none), max(q[c], none)
		sum += (b - a) * math.Log(b/a)
	}
	return sum
}

// name words how a feature moved.
func (d *Detector) name(m *Moved, now *[feature.Dim][cells + 1]float64) {
	i := feature.Index(m.Name)
	gone, was := now[i][absent], d.ref[i][absent]
	m.From, m.To = feature.Natural(i, d.median[i]), feature.Natural(i, d.windowMedian(i, &now[i]))
	switch {
	case gone-was > 0.1 || was-gone > 0.1:
		m.Words = fmt.Sprintf("%s is absent in %.0f %% of reports, it was in %.0f %%", m.Name, 100*gone, 100*was)
	case feature.IsFlag(i):
		m.Words = fmt.Sprintf("%s in %.0f %% of reports, it was in %.0f %%", m.Name, 100*top(&now[i]), 100*top(&d.ref[i]))
	default:
		m.Words = fmt.Sprintf("%s is mostly about %s, it was %s", m.Name, feature.Quantity(i, m.To), feature.Quantity(i, m.From))
	}
	m.Words += fmt.Sprintf(" (index %.2f)", m.Index)
}

// top is the share of values beyond the lowest cell: of a flag, those that are set.
func top(p *[cells + 1]float64) float64 { return 1 - p[0] - p[absent] }

// windowMedian is the upper edge of the cell in which half of the window's known values are.
func (d *Detector) windowMedian(i int, p *[cells + 1]float64) float32 {
	half, sum := (1-p[absent])/2, 0.0
	for c := range cells {
		if sum += p[c]; sum >= half && half > 0 {
			if c < len(d.edges[i]) {
				return d.edges[i][c]
			}
			break
		}
	}
	if n := len(d.edges[i]); n > 0 {
		return d.edges[i][n-1]
	}
	return d.median[i]
}

// movers are the hosts of the reports in the cells that have become fuller.
func (d *Detector) movers(i int, now *[feature.Dim][cells + 1]float64) []Mover {
	by, n := map[uint64]float64{}, 0.0
	for _, r := range d.rows {
		if c := r.cell[i]; now[i][c] > d.ref[i][c] {
			by[r.host]++
			n++
		}
	}
	return movers(by, n)
}

func movers(by map[uint64]float64, n float64) []Mover {
	out := make([]Mover, 0, len(by))
	for h, k := range by {
		out = append(out, Mover{h, k / max(n, 1e-9)})
	}
	slices.SortFunc(out, func(a, b Mover) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Host, b.Host)) })
	return out[:min(len(out), mostNamed)]
}

// hinkley is the test of Page and Hinkley on -ln p, with what is usual learnt
// from its first flows.
type hinkley struct {
	n        int
	mean, m2 float64
	sum, low float64
	since    int // flows since the sum was lowest
	hosts    map[uint64]float64
	causes   map[uint64]int // of the present block
	inBlock  int
}

// Score counts a flow that has ended by the least p-value that it got.
func (d *Detector) Score(p float64, host, cause uint64) *Drift {
	if !(p > 0 && p <= 1) {
		return nil
	}
	h := &d.scores
	if h.causes == nil || h.inBlock == block {
		h.causes, h.inBlock = map[uint64]int{}, 0
	}
	if h.causes[cause] >= perBlock {
		return nil
	}
	h.causes[cause]++
	h.inBlock++
	x := min(-math.Log(p), maxX)
	if h.n < warmup {
		h.n++
		delta := x - h.mean
		h.mean += delta / float64(h.n)
		h.m2 += delta * (x - h.mean)
		return nil
	}
	dev := max(math.Sqrt(h.m2/float64(h.n)), 0.1)
	z := (x - h.mean) / dev
	h.sum += z - slack
	if h.sum <= h.low {
		h.low, h.since, h.hosts = h.sum, 0, nil
		return nil
	}
	h.since++
	if h.hosts == nil {
		h.hosts = map[uint64]float64{}
	}
	if _, known := h.hosts[host]; z > 0 && (known || len(h.hosts) < maxHosts) {
		h.hosts[host] += z
	}
	if h.sum-h.low < climb {
		return nil
	}
	out := &Drift{Kind: Scores, Stat: h.sum - h.low, Limit: climb, N: h.since, Causes: len(h.causes)}
	var n float64
	for _, k := range h.hosts {
		n += k
	}
	out.Hosts = movers(h.hosts, n)
	*h = hinkley{} // what is usual is learnt anew: a change is told once
	return out
}

// maxHosts bounds the account of a climb.
const maxHosts = 1024
