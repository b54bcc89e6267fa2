package learner

import (
	"errors"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// Detector is the part that spoke.
type Detector uint8

// Detectors.
const (
	Self   Detector = iota // unlike this site's normal
	Attack                 // like a behaviour that the classifier learnt
	Recall                 // like a behaviour in Memory
)

// String is self, attack or memory.
func (d Detector) String() string {
	switch d {
	case Attack:
		return "attack"
	case Recall:
		return "memory"
	}
	return "self"
}

// Score is a model's opinion of one vector.
type Score struct {
	Self, Attack   float64 // raw: higher is stranger, or more like an attack
	PSelf, PAttack float64 // each part's p-value
	// P is valid whichever part speaks (Bonferroni, with weights): twice the smaller of
	// the two where this site confirmed attacks; while none is known it is PSelf alone.
	// What a mesh learnt has the weight meshWeight of it.
	P float64
	// Rank falls with the scores as P does, but has no floor: it orders flows whose P
	// is the same. How often a rank comes, calibrate.Track tells.
	Rank float64
	By   Detector
	// Mesh says that the part that spoke was learnt in a mesh.
	Mesh bool
}

// Meta says where a model comes from.
type Meta struct {
	Schema    int       // of feature vectors
	Hash      string    // hex SHA-256 of the encoded model
	Parent    string    // hash of the model it grew from, "" for the first
	Normal    int       // normal vectors in its training
	Attacks   int       // attack examples in its training on this site
	Seed      uint64    //
	TrainedAt time.Time // as given by the caller
	// KnowsAttacks says that an attack part was trained by anybody; one that was not
	// says nothing and costs nothing.
	KnowsAttacks bool
}

// Shapes of the two networks.
var (
	selfShape   = infer.Shape{feature.Dim, 32, 12, 32, feature.Dim}
	attackShape = infer.Shape{feature.Dim, 32, 16, 2}
)

// What is believed of the tails of the two raw scores on normal traffic. The
// self part's has held a shape of a quarter in every office of the tests; the
// log-odds of attack fall off exponentially above a wide body of many kinds.
var (
	selfTail   = calibrate.Options{Share: 0.10, MaxShape: 0.25}
	attackTail = calibrate.Options{Share: 0.03, MaxShape: 0}
)

// Model is immutable; its methods are safe for concurrent use.
type Model struct {
	meta   Meta
	self   selfPart
	attack attackPart  // what this site learnt
	mesh   *attackPart // what a mesh learnt; nil: nothing
	weight weights
}

// weights share the chance of a false alarm among the parts; their sum is 1.
type weights struct{ self, own, mesh float64 }

// meshWeight is how much of it the mesh's part has where this site learnt of attacks
// itself, and takes from that. meshAlone is how much it has where the site learnt of
// none, and takes from the self part. So that whatever a mesh says hardly an alarm is lost.
const (
	meshWeight = 0.05
	meshAlone  = 0.4
)

// weigh is called when the parts are there.
func (m *Model) weigh() {
	own, mesh := m.attack.knows(), m.mesh != nil && m.mesh.knows()
	switch w := &m.weight; {
	case own && mesh:
		*w = weights{0.5, 0.5 - meshWeight, meshWeight}
	case own:
		*w = weights{0.5, 0.5, 0}
	case mesh:
		*w = weights{1 - meshAlone, 0, meshAlone}
	default:
		*w = weights{1, 0, 0}
	}
	m.meta.KnowsAttacks = own || mesh
}

// Scratch is the working memory of one goroutine's scoring.
type Scratch struct {
	self, attack *infer.Scratch
	query        wide.Query
	e, sq        wide.Row
	x            [feature.Dim]float32
	w            [2]float32
	bounds       bounds
}

// NewScratch makes working memory for Score and Explain.
func NewScratch() *Scratch {
	return &Scratch{self: infer.NewScratch(selfShape), attack: infer.NewScratch(attackShape)}
}

// Meta tells where the model comes from.
func (m *Model) Meta() Meta { return m.meta }

// Score judges one vector. It allocates nothing. The self part of a model that
// learnt from whole flows only, as logs tell them, waits until a flow has ended.
func (m *Model) Score(v *feature.Vector, s *Scratch) Score {
	out := Score{PSelf: 1, PAttack: 1, Rank: 1}
	if !m.self.wholes || v.X[iEnded] == 1 {
		out.Self = m.self.raw(v, s)
		out.PSelf, out.Rank = m.self.scale.Both(out.Self)
	}
	if !m.meta.KnowsAttacks {
		out.P = out.PSelf
		return out
	}
	w := &m.weight
	p, rank := out.PSelf/w.self, out.Rank/w.self
	attack := 1.0
	for k, part := range [...]*attackPart{&m.attack, m.mesh} {
		share := w.own
		if k == 1 {
			share = w.mesh
		}
		if share == 0 {
			continue
		}
		raw := part.raw(v, s)
		own, ownRank := part.scale.Both(raw)
		rank = min(rank, ownRank/share)
		if own /= share; k == 0 || w.own == 0 || own < attack {
			attack, out.Attack, out.Mesh = own, raw, k == 1
		}
	}
	if attack < p {
		out.By = Attack
	} else {
		out.Mesh = false
	}
	out.PAttack = min(1, attack*(w.own+w.mesh))
	out.P, out.Rank = min(1, p, attack), min(1, rank)
	return out
}

// Floor is the smallest P that each part which this site taught can say; at an alarm
// level below it one of them could never speak.
func (m *Model) Floor() float64 {
	f := m.self.scale.Floor() / m.weight.self
	if m.weight.own > 0 {
		f = max(f, m.attack.scale.Floor()/m.weight.own)
	}
	return f
}

// attackPart is a classifier of the shared form with this site's calibration.
type attackPart struct {
	net   *infer.Net
	scale *calibrate.Scale
}

// raw is the classifier's log-odds of attack.
func (a *attackPart) raw(v *feature.Vector, s *Scratch) float64 {
	attackInput(s.x[:], v)
	out := a.net.Forward(s.x[:], s.attack)
	return float64(out[1]) - float64(out[0])
}

// knows says whether the last layer ever moved from the zeros it starts with.
func (a *attackPart) knows() bool {
	w := a.net.Weights()
	last := attackShape[len(attackShape)-2] * attackShape[len(attackShape)-1]
	last += attackShape[len(attackShape)-1]
	for _, x := range w[len(w)-last:] {
		if x != 0 {
			return true
		}
	}
	return false
}

// ErrTooFew says that there is not enough traffic to learn from.
var ErrTooFew = errors.New("too few normal vectors")
