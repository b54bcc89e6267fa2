package feed

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
)

// realData is the folder of real feeds.
func realData(t testing.TB) string {
	t.Helper()
	return filepath.Join(realdata.Dir(t, "ioc"), "ioc")
}

func whole(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if b, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func readFile(t testing.TB, path string, o Options) *List {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Read(f, o, nil)
	if closed := f.Close(); closed != nil {
		t.Error(closed)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return l
}

// The counts are those that the collection's README gives for each score, and
// each level's own file.
func TestRealIpsum(t *testing.T) {
	dir := filepath.Join(realData(t), "ipsum")
	for i, want := range []int{120430, 30773, 14217, 5354, 1413, 318, 70, 23} {
		l := readFile(t, filepath.Join(dir, "ipsum.txt.gz"), Options{MinScore: float64(i + 1)})
		if l.Format != Plain || l.Len() != want || l.Counts[BelowScore] != 120430-want || l.Counts.Of(Refused) != 0 {
			t.Errorf("score %d: %d entries of %d, %v", i+1, l.Len(), want, l.Counts)
		}
		level := filepath.Join(dir, "levels", fmt.Sprintf("%d.txt", i+1))
		if i < 2 {
			level += ".gz"
		}
		if l := readFile(t, level, Options{}); l.Len() != want {
			t.Errorf("%s: %d entries of %d", level, l.Len(), want)
		}
	}
}

// An expression finds addresses and networks at the beginning of lines.
func TestRealPlainLists(t *testing.T) {
	dir := realData(t)
	paths, err := filepath.Glob(filepath.Join(dir, "c2-tracker", "data", "*.txt"))
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d lists, %v", len(paths), err)
	}
	paths = append(paths, filepath.Join(dir, "maltrail", "mass_scanner.txt.gz"), filepath.Join(dir, "maltrail", "mass_scanner_cidr.txt"))
	twin := regexp.MustCompile(`(?m)^[ \t]*(\d+\.\d+\.\d+\.\d+(?:/\d+)?|[0-9a-f]*:[0-9a-f:]*:[0-9a-f]*(?:/\d+)?)(?:[ \t#\r]|$)`)
	for _, path := range paths {
		want := map[string]bool{}
		for _, m := range twin.FindAllStringSubmatch(string(whole(t, path)), -1) {
			if a, err := netip.ParseAddr(m[1]); err == nil {
				want[netip.PrefixFrom(a, a.BitLen()).String()] = true
			} else {
				want[netip.MustParsePrefix(m[1]).Masked().String()] = true
			}
		}
		l := readFile(t, path, Options{})
		l.Each(func(p netip.Prefix, line int, _ time.Time) {
			if !want[p.String()] {
				t.Errorf("%s:%d: %v is not there", path, line, p)
			}
		})
		if l.Len() != len(want) {
			t.Errorf("%s: %d entries, the expression finds %d (%v)", path, l.Len(), len(want), l.Counts)
		}
		if strings.HasSuffix(path, "all.txt") && l.Len() != 2347 {
			t.Errorf("%s: %d entries, the README says 2,347", path, l.Len())
		}
	}
}

func jsonFiles(t testing.TB, dirs ...string) (paths []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(p, ".json") || strings.HasSuffix(p, ".json.gz") {
				paths = append(paths, p)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// Another decoder reads each bundle as a whole, and an expression finds the
// addresses of those patterns in which nothing but OR occurs.
func TestRealBundles(t *testing.T) {
	dir := realData(t)
	address := regexp.MustCompile(`ipv[46]-addr:value = '([^']*)'`)
	more := regexp.MustCompile(` (AND|FOLLOWEDBY|NOT|REPEATS|WITHIN) `)
	bundles, indicators, taken := 0, 0, 0
	for _, path := range jsonFiles(t, filepath.Join(dir, "misp-stix"), filepath.Join(dir, "stix-elevator"), filepath.Join(dir, "stix2-json-schemas")) {
		var b struct {
			Type    string
			Objects []struct {
				Type, Pattern, PatternType string
				Revoked                    bool
			}
		}
		raw := whole(t, path)
		if json.Unmarshal(raw, &b) != nil || b.Type != "bundle" {
			continue
		}
		bundles++
		want := map[string]bool{}
		for _, o := range b.Objects {
			if o.Type != "indicator" {
				continue
			}
			indicators++
			if more.MatchString(o.Pattern) || o.Revoked {
				continue
			}
			for _, m := range address.FindAllStringSubmatch(o.Pattern, -1) {
				if p := parseToken([]byte(m[1])); p.taken() {
					want[p.one.prefix(p.family).String()] = true
				}
			}
		}
		got := map[string]bool{}
		l, err := Read(bytes.NewReader(raw), Options{}, func(n Note) {
			if n.Kind == Malformed {
				t.Logf("%s:%d: %s %s", filepath.Base(path), n.Line, n.Value, n.Detail)
			}
		})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		taken += l.Taken
		l.Each(func(p netip.Prefix, line int, _ time.Time) {
			got[p.String()] = true
			if text := lineOf(raw, line); !strings.Contains(text, "{") {
				t.Errorf("%s: %v is said to be on line %d, %q", path, p, line, text)
			}
			if !bytes.Contains(raw, []byte(p.Addr().String())) {
				t.Errorf("%s: %v is not in the file", path, p)
			}
		})
		for p := range want {
			if !got[p] {
				t.Errorf("%s: %s is missing", path, p)
			}
		}
	}
	if bundles != 156 || indicators != 2353 || taken < 1000 {
		t.Errorf("%d bundles with %d indicators, %d addresses taken; expected 156 and 2353", bundles, indicators, taken)
	}
}

func lineOf(b []byte, n int) string {
	lines := bytes.SplitN(b, []byte{'\n'}, n+1)
	if n < 1 || n > len(lines) {
		return ""
	}
	return string(lines[n-1])
}

var warnedLists map[string]*List // read once: nobody changes them

// warnings reads all warning lists and returns them by folder.
func warnings(t testing.TB) map[string]*List {
	t.Helper()
	if warnedLists != nil {
		return warnedLists
	}
	lists := map[string]*List{}
	for _, path := range jsonFiles(t, filepath.Join(realData(t), "misp-warninglists", "lists")) {
		lists[filepath.Base(filepath.Dir(path))] = readFile(t, path, Options{Warning: true})
	}
	warnedLists = lists
	return lists
}

func TestRealWarningLists(t *testing.T) {
	lists := warnings(t)
	if len(lists) != 136 {
		t.Errorf("%d lists, the README says 136", len(lists))
	}
	cidrs, v6s := map[netip.Prefix]bool{}, 0
	twin := map[netip.Prefix]bool{}
	for _, path := range jsonFiles(t, filepath.Join(realData(t), "misp-warninglists", "lists")) {
		var w struct {
			Type string
			List []any
		}
		if err := json.Unmarshal(whole(t, path), &w); err != nil {
			t.Fatal(err)
		}
		if w.Type != "cidr" {
			continue
		}
		for _, v := range w.List {
			if p, err := netip.ParsePrefix(v.(string)); err == nil {
				twin[p.Masked()] = true
			} else if a, err := netip.ParseAddr(v.(string)); err == nil {
				twin[netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())] = true
			}
		}
		lists[filepath.Base(filepath.Dir(path))].Each(func(p netip.Prefix, _ int, _ time.Time) { cidrs[p] = true })
	}
	for p := range twin {
		if !cidrs[p] {
			t.Errorf("%v is missing", p)
		}
		if p.Addr().Is6() {
			v6s++
		}
	}
	if len(cidrs) != len(twin) {
		t.Errorf("%d networks, the other decoder finds %d", len(cidrs), len(twin))
	}
	t.Logf("%d networks of warning lists, %d of them IPv6", len(twin), v6s)
}

// The README counts 50,303 of ipsum's addresses inside some warned network.
func TestRealGuard(t *testing.T) {
	var g Guard
	for name, l := range warnings(t) {
		g.Warn(name, l)
	}
	g.Seal()
	l := readFile(t, filepath.Join(realData(t), "ipsum", "ipsum.txt.gz"), Options{})
	s, err := Build(t0, []Source{{"ipsum", l, t0.Add(time.Hour)}}, &g, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Parts[0]
	if p.Counts[Warned] != 50303 || p.Kept+p.Counts[Warned] != p.Given || p.Given != 120430 {
		t.Errorf("%+v: the README says that 50,303 of 120,430 are warned of", p)
	}
}

// million is a list of random addresses and networks of all of IPv4 and IPv6.
func million(n int) string {
	r := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	b.Grow(20 * n)
	for i := range n {
		x := r.Uint32()
		switch {
		case i%10 == 0:
			fmt.Fprintf(&b, "%s\n", netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(x>>24)%223 + 1, byte(x >> 16), byte(x >> 8), byte(x)}), 20+r.IntN(12)).Masked())
		case i%20 == 1:
			fmt.Fprintf(&b, "2a%02x:%x::%x\n", x&63, x>>16, x>>8&255)
		default:
			fmt.Fprintf(&b, "%d.%d.%d.%d\n", byte(x>>24)%223+1, byte(x>>16), byte(x>>8), byte(x))
		}
	}
	return b.String()
}

// processor reports the processor time of a benchmark, which says more than the
// clock on a machine that does other things too.
func processor(b *testing.B) (report func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op") }
}

func BenchmarkImport(b *testing.B) {
	dir := realData(b)
	var warned strings.Builder
	for _, l := range warnings(b) {
		l.Each(func(p netip.Prefix, _ int, _ time.Time) { fmt.Fprintln(&warned, p) })
	}
	var guard Guard
	guard.ProtectSpecial()
	for name, l := range warnings(b) {
		guard.Warn(name, l)
	}
	guard.Seal()
	var special Guard
	special.ProtectSpecial()
	special.Seal()
	ipsum := string(whole(b, filepath.Join(dir, "ipsum", "ipsum.txt.gz")))
	for _, c := range []struct {
		name  string
		texts []string
		g     *Guard
	}{
		{"ipsum", []string{ipsum}, &special},
		{"ipsum-guarded", []string{ipsum}, &guard},
		{"ipsum-and-warning-lists", []string{ipsum, warned.String()}, &special},
		{"million", []string{million(1_000_000)}, &special},
		{"million-guarded", []string{million(1_000_000)}, &guard},
	} {
		var lists []*List
		b.Run(c.name+"/twin", func(b *testing.B) { // what one would write at first, without comments, guard or lines
			defer processor(b)()
			for b.Loop() {
				nets := map[netip.Prefix]bool{}
				for _, text := range c.texts {
					for line := range strings.Lines(text) {
						word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
						if a, err := netip.ParseAddr(word); err == nil {
							nets[netip.PrefixFrom(a, a.BitLen())] = true
						} else if p, err := netip.ParsePrefix(word); err == nil {
							nets[p.Masked()] = true
						}
					}
				}
				all := slices.Collect(maps.Keys(nets))
				slices.SortFunc(all, netip.Prefix.Compare)
				if len(all) < 100_000 {
					b.Fatal(len(all))
				}
			}
		})
		b.Run(c.name+"/read", func(b *testing.B) {
			b.ReportAllocs()
			defer processor(b)()
			for b.Loop() {
				lists = lists[:0]
				for _, text := range c.texts {
					l, err := Read(strings.NewReader(text), Options{}, nil)
					if err != nil {
						b.Fatal(err)
					}
					lists = append(lists, l)
				}
			}
		})
		var sources []Source
		given := 0
		for i, l := range lists {
			sources = append(sources, Source{fmt.Sprint("f", i), l, t0.Add(time.Hour)})
			given += l.Len()
		}
		b.Run(c.name+"/merge", func(b *testing.B) {
			b.ReportAllocs()
			defer processor(b)()
			var s *Set
			for b.Loop() {
				var err error
				if s, err = Build(t0, sources, c.g, Limits{}, nil); err != nil {
					b.Fatal(err)
				}
			}
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(given), "networks")
			b.ReportMetric(float64(s.Len()), "entries")
			b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-live")
		})
	}
}
