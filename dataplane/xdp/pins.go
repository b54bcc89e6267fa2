package xdp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

// Programs are pinned beside their links: only so can a process without
// CAP_SYS_ADMIN put an earlier one back when a takeover fails.
var programPins = map[string]string{pinXDP: "prog_xdp", pinTCX: "prog_tcx"}

// tablesPrefix begins the folders of tables. With the hash behind it the name
// is longer than any interface's may be.
const tablesPrefix = "tables-v"

// abiVersion is raised when maps with equal layouts change their meaning.
const abiVersion = 2

// pins is where links and tables are kept:
//
//	DIR/<interface>/link_xdp, link_tcx
//	DIR/tables-v<ABI hash>/<map>
//
// The links are outside of the versioned folder, so that one link serves all
// versions and enforcement has no gap. Versions of before had one set of tables
// for each interface, under DIR/<interface>/v<ABI hash>.
type pins struct {
	base string // DIR; "": nothing is pinned
	dir  string // folder of this version's tables
	lock *os.File
	made []string // folders that did not exist before
}

// linkPins is where one interface's links are kept.
type linkPins struct{ dir string } // "": nothing is pinned

func (p *pins) links(iface string) linkPins {
	if p.base == "" {
		return linkPins{}
	}
	return linkPins{filepath.Join(p.base, escape(iface))}
}

// escape makes an interface name fit for a BPF file system, where dots are
// reserved.
func escape(name string) string {
	return strings.NewReplacer("%", "%25", ".", "%2E").Replace(name)
}

func unescape(name string) string {
	return strings.NewReplacer("%25", "%", "%2E", ".").Replace(name)
}

// findPins checks that dir lies in a BPF file system. It creates nothing.
func findPins(dir string) (pins, error) {
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
		return pins{base: filepath.Clean(dir)}, nil
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
	if tcx := spec.Programs[kernelProgHedgerowTcx]; tcx != nil && tcx.AttachType == ebpf.AttachNone {
		fmt.Fprintln(h, "clsact") // an array of programs takes those of one kind only
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := writeLayout(h, m); err != nil {
			return "", err
		}
	}
	for _, name := range bulkTypes {
		var t *btf.Struct
		if err := spec.Types.TypeByName(name, &t); err != nil {
			return "", fmt.Errorf("layout of %s: %w", name, err)
		}
		text, err := typeText(t)
		if err != nil {
			return "", fmt.Errorf("layout of %s: %w", name, err)
		}
		fmt.Fprintln(h, text)
	}
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}

func writeLayout(w io.Writer, m *ebpf.MapSpec) error {
	_, _ = fmt.Fprintln(w, m.Name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags) // a hash takes all
	if m.InnerMap != nil {
		_, _ = fmt.Fprintln(w, m.InnerMap.KeySize, m.InnerMap.ValueSize, m.InnerMap.Flags)
	}
	for _, t := range []btf.Type{m.Key, m.Value} {
		text, err := typeText(t)
		if err != nil {
			return fmt.Errorf("layout of map %s: %w", m.Name, err)
		}
		if text != "" {
			_, _ = fmt.Fprintln(w, text)
		}
	}
	return nil
}

// typeText is a type in words, "" when it is not known.
func typeText(t btf.Type) (string, error) {
	if t == nil {
		return "", nil
	}
	var gf btf.GoFormatter
	return gf.TypeDeclaration("layout", t)
}

// loadMaps opens this version's tables, where there are any.
func (p *pins) loadMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	if p.base == "" {
		return nil, nil
	}
	hash, err := abiHash(spec)
	if err != nil {
		return nil, err
	}
	p.dir = filepath.Join(p.base, tablesPrefix+hash)
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

// pinMaps pins those maps that were not pinned in this version's folder before.
func (p *pins) pinMaps(spec *ebpf.CollectionSpec, all map[string]*ebpf.Map, before map[string]bool, undo *undoStack) error {
	if p.base == "" {
		return nil
	}
	if err := makeDir(p.dir, undo); err != nil {
		return err
	}
	for name, m := range all {
		if before[name] {
			continue
		}
		path := filepath.Join(p.dir, name)
		if err := pinCopy(m, path); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
		undo.add(func() error { return os.Remove(path) })
	}
	return p.record(spec, undo)
}

// pinCopy pins a map that may be pinned elsewhere as well, where it stays.
func pinCopy(m *ebpf.Map, path string) error {
	c, err := m.Clone()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

// makeDir makes a folder and its parents; those that it made can be undone.
func makeDir(dir string, undo *undoStack) error {
	var missing []string
	for at := dir; ; at = filepath.Dir(at) {
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

// load opens a pinned link; nil when there is none.
func (p linkPins) load(name string) (link.Link, *link.Info, error) {
	if p.dir == "" {
		return nil, nil, nil
	}
	l, err := link.LoadPinnedLink(filepath.Join(p.dir, name), nil)
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

// pin pins a new link and its program in place of stale ones.
func (p linkPins) pin(l link.Link, prog *ebpf.Program, name string, undo *undoStack) error {
	if p.dir == "" {
		return nil
	}
	if err := makeDir(p.dir, undo); err != nil {
		return err
	}
	path := filepath.Join(p.dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale link %s: %w", name, err)
	}
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin link %s: %w", name, err)
	}
	undo.add(l.Unpin)
	return p.pinProgram(prog, name, undo)
}

// program opens the program of a pinned link.
func (p linkPins) program(link string, id ebpf.ProgramID) (*ebpf.Program, error) {
	if prog, err := ebpf.LoadPinnedProgram(filepath.Join(p.dir, programPins[link]), nil); err == nil {
		if info, err := prog.Info(); err == nil {
			if got, ok := info.ID(); ok && got == id {
				return prog, nil
			}
		}
		_ = prog.Close() // of a takeover that went no further
	}
	return ebpf.NewProgramFromID(id)
}

// pinProgram pins the program of a link in place of an earlier one.
func (p linkPins) pinProgram(prog *ebpf.Program, link string, undo *undoStack) error {
	if p.dir == "" {
		return nil
	}
	path := filepath.Join(p.dir, programPins[link])
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove earlier program %s: %w", programPins[link], err)
	}
	c, err := prog.Clone()
	if err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	defer c.Close()
	if err := c.Pin(path); err != nil {
		return fmt.Errorf("pin program %s: %w", programPins[link], err)
	}
	undo.add(func() error { return os.Remove(path) })
	return nil
}

// remove ends what is pinned for the interface.
func (p linkPins) remove() error {
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// cut breaks a pinned link also where another process holds it.
func (p linkPins) cut(name string) error {
	l, _, err := p.load(name)
	if err != nil || l == nil {
		return err
	}
	defer l.Close()
	if err := cutLink(l); err != nil {
		return fmt.Errorf("cut %s: %w", name, err)
	}
	return nil
}

// detach ends what is pinned for an interface, a filter without a link included.
func (p linkPins) detach() error {
	errs := []error{p.cut(pinXDP), p.cut(pinTCX)}
	if iface, err := findInterface(unescape(filepath.Base(p.dir))); err == nil {
		errs = append(errs, clsact{index: iface.Index}.detach())
		if p.groWasOn() {
			errs = append(errs, p.restoreGRO(iface.Name))
		}
	}
	return errors.Join(append(errs, p.remove())...)
}

// ours says whether the folder holds what a plane pins for an interface, and
// nothing else.
func (p linkPins) ours() bool {
	entries, err := os.ReadDir(p.dir)
	if err != nil || len(entries) == 0 {
		return false
	}
	for _, e := range entries {
		n := e.Name()
		if n != pinXDP && n != pinTCX && n != pinGRO && n != programPins[pinXDP] && n != programPins[pinTCX] && !(e.IsDir() && strings.HasPrefix(n, "v")) {
			return false
		}
	}
	return true
}

// removeOld removes tables of other versions once nothing uses them, and cuts
// the links of interfaces that are no longer asked for.
func (p *pins) removeOld(keep []Attach, log *slog.Logger) {
	if p.base == "" {
		return
	}
	for _, dir := range p.oldTables(keep) {
		if err := os.RemoveAll(dir); err != nil {
			log.Warn("removing tables of another version", "error", err)
		}
	}
	for _, e := range readDir(p.base) {
		l := linkPins{filepath.Join(p.base, e.Name())}
		asked := slices.ContainsFunc(keep, func(a Attach) bool { return escape(a.Interface) == e.Name() })
		if asked || !e.IsDir() || strings.HasPrefix(e.Name(), tablesPrefix) || !l.ours() {
			continue
		}
		log.Warn("an interface is no longer configured, it is detached", "interface", unescape(e.Name()))
		if err := l.detach(); err != nil {
			log.Warn("detaching an interface that is no longer configured", "error", err)
		}
	}
}

func readDir(dir string) []os.DirEntry {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is not there, or gone meanwhile
	}
	return entries
}

// oldTables are the folders of tables of other versions, the one of the first
// interface's own before those of others.
func (p *pins) oldTables(of []Attach) []string {
	var dirs []string
	for _, e := range readDir(p.base) {
		if path := filepath.Join(p.base, e.Name()); e.IsDir() && strings.HasPrefix(e.Name(), tablesPrefix) && path != p.dir {
			dirs = append(dirs, path)
		}
	}
	for _, a := range of {
		l := p.links(a.Interface)
		for _, e := range readDir(l.dir) {
			if e.IsDir() && strings.HasPrefix(e.Name(), "v") {
				dirs = append(dirs, filepath.Join(l.dir, e.Name()))
			}
		}
	}
	return dirs
}

// DetachPinned ends enforcement of everything that is pinned under a folder,
// without a running plane: links are cut, pins removed. A folder that does not
// exist is no error; one that a running daemon holds is.
func DetachPinned(pinDir string) error {
	if ok, err := isBPFFS(pinDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("detach: pin folder %s: %w", pinDir, err)
	} else if !ok {
		return fmt.Errorf("detach: pin folder %s: not in a BPF file system", pinDir)
	}
	p := pins{base: filepath.Clean(pinDir)}
	if err := p.acquire(); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer p.release()
	var errs []error
	for _, e := range readDir(p.base) {
		l := linkPins{filepath.Join(p.base, e.Name())}
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), tablesPrefix):
			errs = append(errs, os.RemoveAll(l.dir))
		case l.ours():
			errs = append(errs, l.detach())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}
