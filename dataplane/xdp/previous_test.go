package xdp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"embed"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// The version before this one: its object, and the layouts as it wrote them down
// itself. `just keep-object` renews both when a version is released.
const (
	previousObject = "testdata/previous.o.gz"
	previousRecord = "testdata/previous.txt"
	keepObject     = "HEDGEROW_KEEP_OBJECT" // the object to keep
)

//go:embed testdata/*.gz testdata/*.txt
var earlierVersions embed.FS

func packedSpec(t *testing.T, path string) *ebpf.CollectionSpec {
	t.Helper()
	f, err := earlierVersions.Open(path)
	check(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	check(t, err)
	b, err := io.ReadAll(z)
	check(t, err)
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
	check(t, err)
	return spec
}

// layouts are what a version writes down of its tables: the hash of all, and
// those of the tables that a later version may carry over.
func layouts(t *testing.T, spec *ebpf.CollectionSpec) map[string]string {
	t.Helper()
	all, err := abiHash(spec)
	check(t, err)
	out := map[string]string{"abi": all}
	for _, name := range carried {
		out[name], err = mapHash(spec.Maps[name])
		check(t, err)
	}
	return out
}

// Keeps an object as that of the version before, when it is told to.
func TestKeepObject(t *testing.T) {
	path := os.Getenv(keepObject)
	if path == "" {
		t.Skip(keepObject + " names no object to keep")
	}
	b, err := os.ReadFile(path)
	check(t, err)
	var packed, text bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	check(t, err)
	_, err = z.Write(b)
	check(t, err)
	check(t, z.Close())
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
	check(t, err)
	has := layouts(t, spec)
	for _, name := range slices.Sorted(maps.Keys(has)) {
		fmt.Fprintln(&text, name, has[name])
	}
	check(t, os.WriteFile(previousObject, packed.Bytes(), 0o644)) // as git keeps it
	check(t, os.WriteFile(previousRecord, text.Bytes(), 0o644))   // as git keeps it
}

func recorded(t *testing.T) map[string]string {
	t.Helper()
	f, err := earlierVersions.Open(previousRecord)
	check(t, err)
	defer f.Close()
	out := make(map[string]string)
	for s := bufio.NewScanner(f); s.Scan(); {
		name, hash, _ := strings.Cut(s.Text(), " ")
		out[name] = hash
	}
	return out
}

// What an earlier version wrote down of its layouts must still be what is made of
// them: otherwise this version would take tables that it can use for another's.
func TestLayoutsAreNamedAsBefore(t *testing.T) {
	got, want := layouts(t, packedSpec(t, previousObject)), recorded(t)
	if len(want) != len(carried)+1 || !maps.Equal(got, want) {
		t.Errorf("layouts of the version before: %v: it wrote down %v: if names are meant to change, raise abiVersion and run just keep-object", got, want)
	}
}

// fieldsOf fills a value of a type by the names of its fields, as another version's
// Go code would.
func fieldsOf(t *testing.T, typ btf.Type, fields map[string]uint64) []byte {
	t.Helper()
	size, err := btf.Sizeof(typ)
	check(t, err)
	b := make([]byte, size)
	for path, v := range fields {
		at, typ := uint32(0), btf.UnderlyingType(typ)
		for name := range strings.SplitSeq(path, ".") {
			s, ok := typ.(*btf.Struct)
			i := -1
			if ok {
				i = slices.IndexFunc(s.Members, func(m btf.Member) bool { return m.Name == name })
			}
			if i < 0 {
				t.Fatalf("that version's %s has no field %s", typ.TypeName(), path)
			}
			at += s.Members[i].Offset.Bytes()
			typ = btf.UnderlyingType(s.Members[i].Type)
		}
		size, err := btf.Sizeof(typ)
		check(t, err)
		var le [8]byte
		binary.LittleEndian.PutUint64(le[:], v)
		copy(b[at:int(at)+size], le[:])
	}
	return b
}

// version is what one version left behind: its programs at work, its tables pinned.
type version struct {
	seed []byte // of its flow table
	hash string
}

// enter brings a version in as its daemon did: tables in a folder of their hash, with
// their layouts beside them, links and programs under the interface. It blocks the
// peer and suspends one flow.
func (l *lab) enter(t *testing.T, spec *ebpf.CollectionSpec, wrote map[string]string, suspended flow.Key) version {
	t.Helper()
	check(t, spec.Variables["xdp_hook"].Set(uint8(dataplane.ToInside)))
	check(t, spec.Variables["tcx_hook"].Set(uint8(dataplane.FromInside)))
	check(t, spec.Variables["role"].Set(kernelRoles[Host]))
	coll, err := ebpf.NewCollection(spec)
	check(t, err)
	defer coll.Close()
	v := version{hash: wrote["abi"], seed: make([]byte, spec.Maps["flow_seed"].ValueSize)}
	_, _ = rand.Read(v.seed)
	fill := func(name string, b []byte) { check(t, coll.Maps[name].Put(uint32(0), b)) }
	fill("flow_seed", v.seed)
	fill("rule_marks", bytes.Repeat([]byte{0xff}, int(spec.Maps["rule_marks"].ValueSize)))
	fill("settings", fieldsOf(t, spec.Maps["settings"].Value, map[string]uint64{"mode": 1, "event_rate": 1000, "addr_rules": 1, "flow_rules": 1}))
	until := uint64(bootNow())/1000 + uint64(time.Hour/time.Microsecond)
	a := toKernel(peerAddr)
	addrs, verdicts := spec.Maps["addrs"], spec.Maps["verdicts"]
	check(t, coll.Maps["addrs"].Put(fieldsOf(t, addrs.Key, map[string]uint64{"addr.hi": a.Hi, "addr.lo": a.Lo}),
		fieldsOf(t, addrs.Value, map[string]uint64{"word": word(dataplane.Block, until), "reason": 7})))
	k := flowKey(suspended)
	check(t, coll.Maps["verdicts"].Put(fieldsOf(t, verdicts.Key, map[string]uint64{"a.hi": k.A.Hi, "a.lo": k.A.Lo, "b.hi": k.B.Hi, "b.lo": k.B.Lo,
		"aport": uint64(k.Aport), "bport": uint64(k.Bport), "proto": uint64(k.Proto)}),
		fieldsOf(t, verdicts.Value, map[string]uint64{"word": word(dataplane.Suspend, until), "reason": 8})))
	l.pinVersion(t, coll, wrote)
	return v
}

func (l *lab) pinVersion(t *testing.T, coll *ebpf.Collection, wrote map[string]string) {
	t.Helper()
	links, tables := filepath.Join(l.pins, hostIface), filepath.Join(l.pins, tablesPrefix+wrote["abi"])
	check(t, os.MkdirAll(links, 0o700))
	check(t, os.MkdirAll(tables, 0o700))
	for name, m := range coll.Maps {
		if !strings.HasPrefix(name, "scratch") && !strings.HasPrefix(name, ".") {
			check(t, m.Pin(filepath.Join(tables, name)))
		}
	}
	for _, name := range carried {
		check(t, os.Symlink(wrote[name], filepath.Join(tables, recordPrefix+name)))
	}
	l.hookVersion(t, coll, links)
	check(t, coll.Programs["hedgerow_xdp"].Pin(filepath.Join(links, programPins[pinXDP])))
	check(t, coll.Programs["hedgerow_tcx"].Pin(filepath.Join(links, programPins[pinTCX])))
}

// needTCX skips where another version's programs cannot be hooked as they were.
func needTCX(t *testing.T) {
	t.Helper()
	needKernel(t)
	if !since(t, 6, 6) {
		t.Skip("this kernel has no TCX, which the earlier versions' egress programs are for")
	}
}

// hookVersion hooks the programs of another version, whose links stay.
func (l *lab) hookVersion(t *testing.T, coll *ebpf.Collection, links string) {
	t.Helper()
	l.in(t, l.host, func() {
		index := mustLink(t, hostIface).Attrs().Index
		x, err := link.AttachXDP(link.XDPOptions{Program: coll.Programs["hedgerow_xdp"], Interface: index, Flags: link.XDPDriverMode})
		check(t, err)
		defer x.Close()
		check(t, x.Pin(filepath.Join(links, pinXDP)))
		e, err := link.AttachTCX(link.TCXOptions{Program: coll.Programs["hedgerow_tcx"], Interface: index, Attach: ebpf.AttachTCXEgress})
		check(t, err)
		defer e.Close()
		check(t, e.Pin(filepath.Join(links, pinTCX)))
	})
}

// The version before this one is replaced while a blocked sender sends, and so is one
// of the same layouts: nothing passes, and what a table holds whose layout is the
// same is there after it.
func TestUpgradeFromTheVersionBefore(t *testing.T) {
	needTCX(t)
	for _, same := range []bool{false, true} {
		t.Run(fmt.Sprintf("same layouts %v", same), func(t *testing.T) {
			l := newLab(t)
			o := l.options(dataplane.Enforce).withDefaults()
			now, err := makeSpec(o, variant{role: Host})
			check(t, err)
			spec, wrote := now.Copy(), layouts(t, now)
			if !same {
				spec, wrote = packedSpec(t, previousObject), recorded(t)
			}
			held := keyOf(peerEnd(9000), hostEnd(9000), flow.UDP)
			was := l.enter(t, spec, wrote, held)
			l.upgrade(t, o, held, was, layouts(t, now), wrote)
		})
	}
}

// upgrade takes over from a version that wrote down its layouts so.
func (l *lab) upgrade(t *testing.T, o Options, held flow.Key, was version, now, wrote map[string]string) {
	t.Helper()
	arrived, sent := l.barrage(t)
	eventually(t, "traffic under the version before", func() bool { return sent.Load() > 200 })
	if n := arrived.Load(); n != 0 {
		t.Fatalf("%d blocked datagrams arrived under the version before", n)
	}
	var p *Plane
	var err error
	l.in(t, l.host, func() { p, err = Load(o) })
	check(t, err)
	t.Cleanup(func() { p.Close() })
	if p.Supersedes() == (now["abi"] == was.hash) {
		t.Errorf("replaces another version's: %v, with layouts %s after %s", p.Supersedes(), now["abi"], was.hash)
	}
	l.expectCarried(t, p, held, now, wrote)
	seed := make([]byte, len(was.seed))
	if now["abi"] == was.hash {
		if check(t, p.objs.FlowSeed.Lookup(uint32(0), &seed)); !bytes.Equal(seed, was.seed) {
			t.Error("the seed of the flow table is another: nothing in the table would be found")
		}
	}
	check(t, p.Apply(blockPeer(time.Hour)))
	before := sent.Load()
	l.in(t, l.host, func() { check(t, p.Attach()) })
	eventually(t, "traffic under this version", func() bool { return sent.Load() > before+500 })
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d of %d blocked datagrams arrived over the upgrade", n, sent.Load())
	}
	if left := readDir(l.pins); len(left) != 2 {
		t.Errorf("pinned: %v: expected one folder of links and one of tables", left)
	}
	t.Logf("%d datagrams sent over the upgrade", sent.Load())
	// That they were dropped by the rule, not lost elsewhere, shows without it.
	check(t, p.Remove(dataplane.Peer(peerAddr), dataplane.Target{Flow: held}))
	eventually(t, "datagrams after removal", func() bool { return arrived.Load() > 0 })
}

// expectCarried compares the rules of a plane with those of tables whose layouts are
// what they were.
func (l *lab) expectCarried(t *testing.T, p *Plane, held flow.Key, now, wrote map[string]string) {
	t.Helper()
	want := map[uint32]bool{}
	if now["addrs"] == wrote["addrs"] {
		want[7] = true
	}
	if now["verdicts"] == wrote["verdicts"] {
		want[8] = true
	}
	rules, err := p.Rules()
	check(t, err)
	got := map[uint32]bool{}
	for _, r := range rules {
		got[r.Rule.Reason] = r.Rule.Reason == 7 && r.Rule.Target == dataplane.Peer(peerAddr) || r.Rule.Reason == 8 && r.Rule.Target.Flow == held
	}
	if !maps.Equal(got, want) {
		t.Errorf("carried over: %+v: expected those of reasons %v", rules, want)
	}
}
