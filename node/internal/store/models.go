package store

import (
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Model is a model's description; its weights are read by Store.Model.
type Model struct {
	event.Model
	Stored  time.Time `json:"stored"`            // when it was put here first
	Bytes   int       `json:"bytes"`             // size of the weights
	Dropped bool      `json:"dropped,omitempty"` // the weights went, the lineage stays
	Slots   []string  `json:"-"`                 // where it is in use now
}

// PutModel keeps a model under m.Hash: its weights first, then its
// description, so that a description never stands without weights.
func (s *Store) PutModel(m event.Model, weights []byte) error {
	if err := checkName("model hash", m.Hash); err != nil {
		return err
	}
	if err := s.save("m/"+m.Hash, classModel, weights); err != nil {
		return err
	}
	return s.describe(Model{Model: m, Stored: s.opt.Now().UTC(), Bytes: len(weights)})
}

// UpdateModel replaces the description of a model that is here: a gate's
// verdict, a retirement.
func (s *Store) UpdateModel(m event.Model) error {
	old, err := s.description(m.Hash)
	if err != nil {
		return fmt.Errorf("update model %s: %w", m.Hash, err)
	}
	old.Model = m
	return s.describe(old)
}

func (s *Store) describe(m Model) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("store: model %s: not JSON: %v", m.Hash, err)
	}
	return s.submit(&request{class: classModel, ops: []op{{named(pModel, m.Hash), text}}})
}

func (s *Store) description(hash string) (Model, error) {
	b, err := s.get(named(pModel, hash))
	if err != nil {
		return Model{}, err
	}
	if b == nil {
		return Model{}, ErrNotFound
	}
	var m Model
	if err := json.Unmarshal(b, &m); err != nil {
		return Model{}, fmt.Errorf("%w: a model's description is unreadable", ErrDamaged)
	}
	return m, nil
}

// Model returns a model and its weights; weights are nil when they were
// dropped, ErrNotFound when the model was never here.
func (s *Store) Model(hash string) (Model, []byte, error) {
	m, err := s.description(hash)
	if err != nil {
		return Model{}, nil, fmt.Errorf("model %s: %w", hash, err)
	}
	if m.Slots, err = s.slotsOf(hash); err != nil {
		return Model{}, nil, fmt.Errorf("model %s: %w", hash, err)
	}
	if m.Dropped {
		return m, nil, nil
	}
	b, err := s.load("m/" + hash)
	if err != nil {
		return Model{}, nil, fmt.Errorf("model %s: weights: %w", hash, err)
	}
	return m, b, nil
}

// Models returns every model, the oldest first.
func (s *Store) Models() ([]Model, error) {
	used, err := s.Slots()
	if err != nil {
		return nil, err
	}
	var list []Model
	err = s.each(pModel, func(hash string, v []byte) error {
		var m Model
		if err := json.Unmarshal(v, &m); err != nil {
			return fmt.Errorf("%w: a model's description is unreadable", ErrDamaged)
		}
		for slot, h := range used {
			if h == hash {
				m.Slots = append(m.Slots, slot)
			}
		}
		sort.Strings(m.Slots)
		list = append(list, m)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Stored.Before(list[j].Stored) })
	return list, nil
}

// SetActive puts a stored model to use in a slot ("self", "attack",
// "champion": the caller names them); an empty hash clears the slot.
func (s *Store) SetActive(slot, hash string) error {
	if err := checkName("slot", slot); err != nil {
		return err
	}
	change := op{key: named(pSlot, slot)}
	if hash != "" {
		m, err := s.description(hash)
		if err != nil {
			return fmt.Errorf("use model %s as %s: %w", hash, slot, err)
		}
		if m.Dropped {
			return fmt.Errorf("use model %s as %s: its weights were dropped: %w", hash, slot, ErrNotFound)
		}
		change.value = []byte(hash)
	}
	return s.submit(&request{class: classModel, ops: []op{change}})
}

// Active returns the hash of the model in a slot, or ErrNotFound.
func (s *Store) Active(slot string) (string, error) {
	b, err := s.get(named(pSlot, slot))
	if err != nil {
		return "", err
	}
	if b == nil {
		return "", fmt.Errorf("slot %s: %w", slot, ErrNotFound)
	}
	return string(b), nil
}

// Slots returns the model's hash for each slot in use.
func (s *Store) Slots() (map[string]string, error) {
	used := map[string]string{}
	err := s.each(pSlot, func(slot string, v []byte) error { used[slot] = string(v); return nil })
	if err != nil {
		return nil, fmt.Errorf("slots: %w", err)
	}
	return used, nil
}

func (s *Store) slotsOf(hash string) ([]string, error) {
	used, err := s.Slots()
	if err != nil {
		return nil, err
	}
	var list []string
	for slot, h := range used {
		if h == hash {
			list = append(list, slot)
		}
	}
	sort.Strings(list)
	return list, nil
}

// dropWeights lets the weights of old models go, and keeps their lineage.
func (s *Store) dropWeights() error {
	list, err := s.Models()
	if err != nil {
		return err
	}
	kept := 0
	for i := len(list) - 1; i >= 0; i-- {
		m := list[i]
		if m.Dropped || len(m.Slots) > 0 {
			continue
		}
		if kept++; kept <= s.opt.KeepModels {
			continue
		}
		m.Dropped = true
		if err := s.describe(m); err != nil {
			return err
		}
		if err := s.replace("m/"+m.Hash, classModel, nil); err != nil {
			return err
		}
	}
	return nil
}
