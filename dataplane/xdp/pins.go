package xdp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Names of pinned links.
const (
	pinXDP = "link_xdp"
	pinTCX = "link_tcx"
)

// abiVersion is raised when maps with equal layouts change their meaning.
const abiVersion = 1

// pins is where an interface's links and maps are kept:
//
//	DIR/<interface>/link_xdp, link_tcx
//	DIR/<interface>/v<ABI hash>/<map>
//
// The links are outside of the versioned folder, so that one link serves all
// versions and enforcement has no gap.
type pins struct {
	base string // DIR/<interface>; "": nothing is pinned
	dir  string // folder of this version's maps
}

// escape makes an interface name fit for a BPF file system, where dots are
// reserved.
func escape(name string) string {
	return strings.NewReplacer("%", "%25", ".", "%2E").Replace(name)
}

// findPins checks that dir lies in a BPF file system. It creates nothing.
func findPins(dir, iface string) (pins, error) {
	if dir == "" {
		return pins{}, nil
	}
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		ok, err := isBPFFS(at)
		if errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
			continue
		}
		if err != nil {
			return pins{}, fmt.Errorf("pin folder %s: %w", dir, err)
		}
		if !ok {
			return pins{}, fmt.Errorf("pin folder %s: %w: not in a BPF file system: mount one with \"mount -t bpf bpf /sys/fs/bpf\"", dir, dataplane.ErrUnsupported)
		}
		return pins{base: filepath.Join(dir, escape(iface))}, nil
	}
}

func isBPFFS(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, err
	}
	return st.Type == unix.BPF_FS_MAGIC, nil
}

// bulkTypes are the layouts of inner maps, which name only their sizes.
var bulkTypes = []string{"bulk_head", "bulk_cell", "bulk_cell6"}

// abiHash tells apart layouts of maps, their sizes included.
func abiHash(spec *ebpf.CollectionSpec) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "abi %d\n", abiVersion)
	var gf btf.GoFormatter
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		if strings.HasPrefix(name, ".") {
			continue
		}
		fmt.Fprintln(h, name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
		if m.InnerMap != nil {
			fmt.Fprintln(h, m.InnerMap.KeySize, m.InnerMap.ValueSize, m.InnerMap.Flags)
		}
		for _, t := range []btf.Type{m.Key, m.Value} {
			if t == nil {
				continue
			}
			text, err := gf.TypeDeclaration("layout", t)
			if err != nil {
				return "", fmt.Errorf("layout of map %s: %w", name, err)
			}
			fmt.Fprintln(h, text)
		}
	}
	for _, name := range bulkTypes {
		var t *btf.Struct
		if err := spec.Types.TypeByName(name, &t); err != nil {
			return "", fmt.Errorf("layout of %s: %w", name, err)
		}
		text, err := gf.TypeDeclaration("layout", t)
		if err != nil {
			return "", fmt.Errorf("layout of %s: %w", name, err)
		}
		fmt.Fprintln(h, text)
	}
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}

// loadMaps opens this version's maps, where there are any.
func (p *pins) loadMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	if p.base == "" {
		return nil, nil
	}
	hash, err := abiHash(spec)
	if err != nil {
		return nil, err
	}
	p.dir = filepath.Join(p.base, "v"+hash)
	found := make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue // constants of the program, made anew each time
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeMaps(found)
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
		found[name] = m
	}
	return found, nil
}

// pinMaps pins those maps that were not pinned before.
func (p *pins) pinMaps(all, before map[string]*ebpf.Map, undo *undoStack) error {
	if p.base == "" {
		return nil
	}
	if err := p.makeDir(undo); err != nil {
		return err
	}
	for name, m := range all {
		if before[name] != nil {
			continue
		}
		path := filepath.Join(p.dir, name)
		if err := m.Pin(path); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
		undo.add(func() error { return os.Remove(path) })
	}
	return nil
}

// makeDir makes the folder and its parents; those that it made can be undone.
func (p *pins) makeDir(undo *undoStack) error {
	var missing []string
	for at := p.dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		missing = append(missing, at)
	}
	for _, dir := range slices.Backward(missing) {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make pin folder: %w", err)
		}
		undo.add(func() error { return os.Remove(dir) })
	}
	return nil
}

// loadLink opens a pinned link; nil when there is none.
func (p *pins) loadLink(name string) (link.Link, *link.Info, error) {
	if p.base == "" {
		return nil, nil, nil
	}
	l, err := link.LoadPinnedLink(filepath.Join(p.base, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open pinned link %s: %w", name, err)
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, nil, fmt.Errorf("read pinned link %s: %w", name, err)
	}
	return l, info, nil
}

// pinLink pins a new link in place of a stale one.
func (p *pins) pinLink(l link.Link, name string, undo *undoStack) error {
	if p.base == "" {
		return nil
	}
	path := filepath.Join(p.base, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale link %s: %w", name, err)
	}
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin link %s: %w", name, err)
	}
	undo.add(l.Unpin)
	return nil
}

// removeOld removes maps of other versions once nothing uses them.
func (p *pins) removeOld(log *slog.Logger) {
	if p.base == "" {
		return
	}
	entries, err := os.ReadDir(p.base)
	if err != nil {
		log.Warn("reading pin folder", "error", err)
		return
	}
	for _, e := range entries {
		path := filepath.Join(p.base, e.Name())
		if !e.IsDir() || path == p.dir {
			continue
		}
		log.Warn("tables of another version are removed, their rules must be applied again", "folder", path)
		if err := os.RemoveAll(path); err != nil {
			log.Warn("removing pins of another version", "error", err)
		}
	}
}

// remove ends what is pinned for the interface.
func (p *pins) remove() error {
	if p.base == "" {
		return nil
	}
	return os.RemoveAll(p.base)
}

// DetachPinned ends enforcement of everything that is pinned under a folder,
// without a running plane: links are cut, pins removed. A folder that does not
// exist is no error.
func DetachPinned(pinDir string) error {
	if ok, err := isBPFFS(pinDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("detach: pin folder %s: %w", pinDir, err)
	} else if !ok {
		return fmt.Errorf("detach: pin folder %s: not in a BPF file system", pinDir)
	}
	entries, err := os.ReadDir(pinDir)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	var errs []error
	for _, e := range entries {
		p := pins{base: filepath.Join(pinDir, e.Name())}
		if !p.holdsPlane() {
			continue // somebody else's
		}
		errs = append(errs, p.cut(pinXDP), p.cut(pinTCX), p.remove())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

func (p *pins) holdsPlane() bool {
	entries, err := os.ReadDir(p.base)
	if err != nil || len(entries) == 0 {
		return false
	}
	for _, e := range entries {
		n := e.Name()
		if n != pinXDP && n != pinTCX && !(e.IsDir() && strings.HasPrefix(n, "v")) {
			return false
		}
	}
	return true
}

// cut breaks a pinned link also where another process holds it.
func (p *pins) cut(name string) error {
	l, _, err := p.loadLink(name)
	if err != nil || l == nil {
		return err
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) {
		return fmt.Errorf("cut %s: %w", name, err)
	}
	return nil
}
