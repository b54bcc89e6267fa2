package learner

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// codecVersion of an encoded model.
const codecVersion = 1

// MaxEncoded bounds an encoded model, in bytes.
const MaxEncoded = 1 << 21

var magic = []byte("hedgerow model\n")

// wire is a model as it is stored: after the magic, in deterministic CBOR.
type wire struct {
	V       int       `cbor:"1,keyasint"`
	Schema  int       `cbor:"2,keyasint"`
	Parent  string    `cbor:"3,keyasint"`
	Normal  int       `cbor:"4,keyasint"`
	Attacks int       `cbor:"5,keyasint"`
	Seed    uint64    `cbor:"6,keyasint"`
	At      int64     `cbor:"7,keyasint"` // ns since the epoch, 0 for none
	SelfW   []float32 `cbor:"8,keyasint"`
	Mean    []float32 `cbor:"9,keyasint"`
	Inv     []float32 `cbor:"10,keyasint"`
	Trust   []float32 `cbor:"11,keyasint"`
	SelfS   []float64 `cbor:"12,keyasint"`
	AttackW []float32 `cbor:"13,keyasint"`
	AttackS []float64 `cbor:"14,keyasint"`
	Normals [][]byte  `cbor:"15,keyasint"`
	MeshW   []float32 `cbor:"16,keyasint,omitempty"` // absent where no mesh taught anything
	MeshS   []float64 `cbor:"17,keyasint,omitempty"`
}

func codec() (cbor.EncMode, cbor.DecMode, error) {
	enc, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic, IndefLength: cbor.IndefLengthForbidden}.EncMode()
	if err != nil {
		return nil, nil, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxArrayElements: 1 << 16, MaxMapPairs: 64, MaxNestedLevels: 4,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, TagsMd: cbor.TagsForbidden,
	}.DecMode()
	return enc, dec, err
}

// MarshalBinary encodes the model; equal models give equal bytes.
func (m *Model) MarshalBinary() ([]byte, error) {
	w := wire{
		V: codecVersion, Schema: m.meta.Schema, Parent: m.meta.Parent, Normal: m.meta.Normal,
		Attacks: m.meta.Attacks, Seed: m.meta.Seed,
		SelfW: m.self.net.Weights(), Mean: m.self.unit.Mean[:feature.Dim], Inv: m.self.unit.Inv[:feature.Dim], Trust: m.self.trust[:feature.Dim],
		SelfS: m.self.scale.Scores(), AttackW: m.attack.net.Weights(), AttackS: m.attack.scale.Scores(),
	}
	if m.mesh != nil {
		w.MeshW, w.MeshS = m.mesh.net.Weights(), m.mesh.scale.Scores()
	}
	if !m.meta.TrainedAt.IsZero() {
		w.At = m.meta.TrainedAt.UnixNano()
	}
	for i := range m.self.refs.v {
		b, err := m.self.refs.v[i].MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("encode model: %w", err)
		}
		w.Normals = append(w.Normals, b)
	}
	enc, _, err := codec()
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	b, err := enc.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	return append(bytes.Clone(magic), b...), nil
}

// sealed gives the model its hash.
func (m *Model) sealed() (*Model, error) {
	b, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	m.meta.Hash = hashOf(b)
	return m, nil
}

func hashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Unmarshal decodes and checks a model: its version, every size, and that
// every number is finite. What it returns is safe to score with.
func Unmarshal(b []byte) (*Model, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("decode model: %d bytes: expected at most %d", len(b), MaxEncoded)
	}
	body, ok := bytes.CutPrefix(b, magic)
	if !ok {
		return nil, errors.New("decode model: not a model")
	}
	_, dec, err := codec()
	if err != nil {
		return nil, fmt.Errorf("decode model: %w", err)
	}
	var w wire
	if err := dec.Unmarshal(body, &w); err != nil {
		return nil, fmt.Errorf("decode model: %v", err)
	}
	m, err := w.model()
	if err != nil {
		return nil, fmt.Errorf("decode model: %w", err)
	}
	m.meta.Hash = hashOf(b)
	return m, nil
}

func (w *wire) check() error {
	switch {
	case w.V != codecVersion:
		return fmt.Errorf("version %d: expected %d", w.V, codecVersion)
	case w.Schema != feature.Version:
		return fmt.Errorf("feature schema %d: expected %d: train anew", w.Schema, feature.Version)
	case w.Normal < 0 || w.Attacks < 0 || len(w.Parent) > 64:
		return errors.New("counts or parent out of range")
	case len(w.Mean) != feature.Dim || len(w.Inv) != feature.Dim || len(w.Trust) != feature.Dim:
		return fmt.Errorf("scaling: expected %d numbers each", feature.Dim)
	case len(w.Normals) < 1 || len(w.Normals) > maxRefs:
		return fmt.Errorf("%d references: expected 1 to %d", len(w.Normals), maxRefs)
	case len(w.SelfS) > calibrate.MaxScores || len(w.AttackS) > calibrate.MaxScores || len(w.MeshS) > calibrate.MaxScores:
		return fmt.Errorf("calibration scores: expected at most %d", calibrate.MaxScores)
	}
	for i := range feature.Dim {
		if !(math.Abs(float64(w.Mean[i])) <= 1) || !(w.Inv[i] > 0 && w.Inv[i] <= 1/minSpread+1) ||
			!(w.Trust[i] > 0 && w.Trust[i] <= 1/minResidual+1) {
			return fmt.Errorf("scaling of %s: out of range", feature.Name(i))
		}
	}
	return nil
}

func (w *wire) model() (*Model, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	m := &Model{meta: Meta{
		Schema: w.Schema, Parent: w.Parent, Normal: w.Normal, Attacks: w.Attacks, Seed: w.Seed,
	}}
	if w.At != 0 {
		m.meta.TrainedAt = time.Unix(0, w.At).UTC()
	}
	copy(m.self.unit.Mean[:], w.Mean)
	copy(m.self.unit.Inv[:], w.Inv)
	for i, inv := range w.Inv {
		if inv > 2/unseen {
			m.self.seen.Add(i)
		}
	}
	copy(m.self.trust[:], w.Trust)
	var err error
	if m.self.net, err = infer.New(selfShape, w.SelfW); err != nil {
		return nil, fmt.Errorf("self part: %w", err)
	}
	if m.self.scale, err = calibrate.New(w.SelfS, selfTail); err != nil {
		return nil, fmt.Errorf("self part: %w", err)
	}
	if err = m.attack.decode(w.AttackW, w.AttackS); err != nil {
		return nil, fmt.Errorf("attack part: %w", err)
	}
	if len(w.MeshW) > 0 || len(w.MeshS) > 0 {
		m.mesh = new(attackPart)
		if err = m.mesh.decode(w.MeshW, w.MeshS); err != nil {
			return nil, fmt.Errorf("mesh's part: %w", err)
		}
	}
	m.weigh()
	r := &m.self.refs
	r.v, r.z = make([]feature.Vector, len(w.Normals)), make([]wide.Row, len(w.Normals))
	for i, b := range w.Normals {
		if err := r.v[i].UnmarshalBinary(b); err != nil {
			return nil, fmt.Errorf("reference %d: %w", i, err)
		}
		m.self.standard(&r.z[i], &r.v[i])
	}
	r.sieve = newSieve(r.z)
	m.self.wholes = r.wholes()
	return m, nil
}

func (a *attackPart) decode(w []float32, scores []float64) (err error) {
	if a.net, err = infer.New(attackShape, w); err != nil {
		return err
	}
	a.scale, err = calibrate.New(scores, attackTail)
	return err
}
