package federation

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// MemoryStorage is a Storage that forgets everything with the process. Its zero value is ready.
type MemoryStorage struct {
	mu sync.Mutex
	m  map[string][]byte
}

// Load returns a copy of the value of key, or an error wrapping ErrNotFound.
func (s *MemoryStorage) Load(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.m[key]
	if !ok {
		return nil, fmt.Errorf("load %q: %w", key, ErrNotFound)
	}
	return slices.Clone(b), nil
}

// Keys lists all keys, in order.
func (s *MemoryStorage) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.m))
}

// Delete removes key; nothing there is no error.
func (s *MemoryStorage) Delete(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
	return nil
}

// Save replaces the value of key by a copy of b.
func (s *MemoryStorage) Save(key string, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string][]byte)
	}
	s.m[key] = slices.Clone(b)
	return nil
}
