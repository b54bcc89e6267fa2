package xdp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// carried are the tables that a version with other layouts takes over when
// those of the tables themselves are the same: what the site decided goes on
// without being applied anew. A table whose meaning changes gets another name.
var carried = []string{kernelMapVerdicts, kernelMapAddrs, kernelMapPrefixes, kernelMapPairs, kernelMapNevers, kernelMapRemedies}

// carry opens tables of another version that this one can use as they are.
func (p *pins) carry(spec *ebpf.CollectionSpec, of []Attach) map[string]*ebpf.Map {
	found := make(map[string]*ebpf.Map)
	for _, dir := range p.oldTables(of) {
		for _, name := range carried {
			if found[name] != nil {
				continue
			}
			m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
			if err != nil {
				continue // not there, or of a kind that cannot be used
			}
			if !fits(m, dir, spec.Maps[name]) {
				_ = m.Close()
				continue
			}
			found[name] = m
		}
	}
	return found
}

// recordPrefix begins the names of symbolic links whose text is a table's
// layout. A BPF file system holds no plain files, but it does hold these.
const recordPrefix = "layout-"

// record writes the layouts of the tables that a later version may carry over.
func (p *pins) record(spec *ebpf.CollectionSpec, undo *undoStack) error {
	for _, name := range carried {
		hash, err := mapHash(spec.Maps[name])
		if err != nil {
			return err
		}
		path := filepath.Join(p.dir, recordPrefix+name)
		if err := os.Symlink(hash, path); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("record the layout of map %s: %w", name, err)
		}
		undo.add(func() error { return os.Remove(path) })
	}
	return nil
}

// mapHash is the layout of one map, its size included.
func mapHash(m *ebpf.MapSpec) (string, error) {
	h := sha256.New()
	if err := writeLayout(h, m); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}

// fits says whether a map of another version's folder is what the spec asks
// for, to the last field: by its record, or, for those of versions that kept
// none, by the types that the kernel has of it.
func fits(m *ebpf.Map, dir string, spec *ebpf.MapSpec) bool {
	if spec == nil || spec.Compatible(m) != nil {
		return false
	}
	want, err := mapHash(spec)
	if err != nil {
		return false
	}
	if was, err := os.Readlink(filepath.Join(dir, recordPrefix+spec.Name)); err == nil {
		return was == want
	}
	h, err := m.Handle()
	if err != nil {
		return false // without type information nobody knows
	}
	defer h.Close()
	types, err := h.Spec(nil)
	return err == nil && sameType(types, spec.Key) && sameType(types, spec.Value)
}

func sameType(old *btf.Spec, now btf.Type) bool {
	if now == nil || now.TypeName() == "" {
		return false
	}
	want, err := typeText(now)
	if err != nil {
		return false
	}
	candidates, err := old.AnyTypesByName(now.TypeName())
	if err != nil {
		return false
	}
	for _, t := range candidates {
		if text, err := typeText(t); err == nil && text == want {
			return true
		}
	}
	return false
}

// holds says whether a map has any entry.
func holds[K any](m *ebpf.Map) bool {
	var k K
	return m.NextKey(nil, &k) == nil
}
