package distill

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// Limits of a Memory.
const (
	// MaxMemory is the largest one, in flows.
	MaxMemory = 1 << 18
	// memoryShare is the largest share of a memory that one cause may hold.
	memoryShare = 0.05
	// maxMarked is how many confirmed flows are kept; the oldest goes first.
	maxMarked = 2048
	// FlowBytes is what one remembered flow costs at most: five looks and 88 bytes.
	FlowBytes = score.Milestones*lookBytes + 88
	lookBytes = 4*score.Dim + 8
)

// Tag says whose a flow is, as hashes, and what it belongs to.
type Tag struct {
	Flow     uint64 // equal for all reports of a flow
	Cause    uint64 // who did what where
	Peer     uint64 // the outside end
	Incident string // that the flow is held against, "" for none
}

type kept struct {
	Tag
	at    int64 // of the first look
	looks []Look
}

type marked struct {
	incident string
	flow     Flow
}

// Memory holds a bounded, fair sample of recent flows as the plane showed them,
// with what the teacher said of each, and the flows that somebody confirmed. A
// flow's looks stay together. When it is full, a new flow replaces a random one, so
// that old ones fade; no cause holds more than a twentieth. Equal calls with an equal
// seed give equal contents. It is for one goroutine.
type Memory struct {
	size   int
	seed   uint64
	added  uint64
	flows  []kept
	at     map[uint64]int // place of a flow
	causes map[uint64]int
	marked []marked
}

// NewMemory holds up to size flows, 16 to MaxMemory; what is beyond is clamped.
// Memory is taken as flows come.
func NewMemory(size int, seed uint64) *Memory {
	return &Memory{size: min(max(size, 16), MaxMemory), seed: seed, at: map[uint64]int{}, causes: map[uint64]int{}}
}

// Len is how many flows it holds, and how many confirmed ones.
func (m *Memory) Len() (flows, confirmed int) { return len(m.flows), len(m.marked) }

// Add takes a look at a flow, at a time in nanoseconds.
func (m *Memory) Add(now int64, t Tag, l *Look) {
	i, known := m.at[t.Flow]
	if !known {
		if i = m.place(now, &t); i < 0 {
			return
		}
	}
	k := &m.flows[i]
	if t.Incident != "" {
		k.Incident = t.Incident
	}
	if n := len(k.looks); n < score.Milestones && (n == 0 || k.looks[n-1].At < l.At) {
		k.looks = append(k.looks, *l)
	}
}

// place makes room for a new flow; below 0 there is none for its cause.
func (m *Memory) place(now int64, t *Tag) int {
	if m.causes[t.Cause] >= max(1, int(memoryShare*float64(m.size))) {
		return -1
	}
	m.added++
	i := len(m.flows)
	if i < m.size {
		m.flows = append(m.flows, kept{})
	} else {
		i = rand.New(rand.NewPCG(m.seed, m.added)).IntN(m.size)
		m.leave(&m.flows[i])
	}
	m.flows[i] = kept{Tag: *t, at: now}
	m.at[t.Flow] = i
	m.causes[t.Cause]++
	return i
}

func (m *Memory) leave(k *kept) {
	delete(m.at, k.Flow)
	if m.causes[k.Cause]--; m.causes[k.Cause] <= 0 {
		delete(m.causes, k.Cause)
	}
}

// Indict says that a flow is held against an incident.
func (m *Memory) Indict(flow uint64, incident string) {
	if i, known := m.at[flow]; known {
		m.flows[i].Incident = incident
	}
}

// Confirm says that the flows of an incident were an attack, by somebody whose word
// weighs so much. All else of the peer is forgotten: it may not teach what is normal.
func (m *Memory) Confirm(incident string, peer uint64, weight float32) (flows int) {
	m.Withdraw(incident)
	m.remove(func(k *kept) bool {
		if k.Incident != incident || incident == "" {
			return k.Peer == peer && peer != 0
		}
		m.marked = append(m.marked, marked{incident, Flow{Looks: k.looks, Weight: weight}})
		flows++
		return true
	})
	m.marked = slices.Delete(m.marked, 0, max(0, len(m.marked)-maxMarked))
	return flows
}

// Dismiss says that the flows of an incident were normal.
func (m *Memory) Dismiss(incident string) {
	m.Withdraw(incident)
	for i := range m.flows {
		if m.flows[i].Incident == incident {
			m.flows[i].Incident = ""
		}
	}
}

// Withdraw takes back that an incident was an attack.
func (m *Memory) Withdraw(incident string) {
	m.marked = slices.DeleteFunc(m.marked, func(x marked) bool { return x.incident == incident })
}

func (m *Memory) remove(bad func(*kept) bool) {
	kept := m.flows[:0]
	for i := range m.flows {
		if bad(&m.flows[i]) {
			m.leave(&m.flows[i])
			continue
		}
		m.at[m.flows[i].Flow] = len(kept)
		kept = append(kept, m.flows[i])
	}
	clear(m.flows[len(kept):])
	m.flows = kept
}

// Lesson is what a scorer may be distilled from: flows that began before a time and
// belong to no incident, oldest first, and the confirmed ones. Looks are shared with
// the memory and must not be changed.
func (m *Memory) Lesson(before int64) (normal, attacks []Flow) {
	var order []int
	for i := range m.flows {
		if k := &m.flows[i]; k.Incident == "" && k.at < before && len(k.looks) > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(m.flows[a].at, m.flows[b].at), cmp.Compare(m.flows[a].Flow, m.flows[b].Flow))
	})
	normal = make([]Flow, len(order))
	for n, i := range order {
		normal[n] = Flow{Looks: slices.Clip(m.flows[i].looks)}
	}
	for i := range m.marked {
		attacks = append(attacks, m.marked[i].flow)
	}
	return normal, attacks
}
