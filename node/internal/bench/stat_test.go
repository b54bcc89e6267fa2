//go:build linux

package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

func TestCompareIsPairedAndBounded(t *testing.T) {
	// Both double from round to round: paired, that is no doubt about the ratio.
	r := compare("x", []float64{10, 20, 40}, []float64{2, 4, 8}, 4, false)
	if math.Abs(r.Mean-5) > 1e-9 || math.Abs(r.Bound-5) > 1e-9 || !r.Met() {
		t.Errorf("%+v: expected 5 without doubt", r)
	}
	// Logarithms 0 and ln 4: mean ln 2, deviation of the mean ln 2, t of one
	// degree of freedom.
	r = compare("x", []float64{1, 4}, []float64{1, 1}, 1.5, false)
	want := math.Exp(math.Ln2 - 6.314*math.Ln2)
	if math.Abs(r.Mean-2) > 1e-9 || math.Abs(r.Bound-want) > 1e-9 || r.Met() {
		t.Errorf("%+v: expected mean 2, bound %g, not met", r, want)
	}
	if up := compare("x", []float64{1, 4}, []float64{1, 1}, 1.5, true); math.Abs(up.Bound-math.Exp(math.Ln2+6.314*math.Ln2)) > 1e-6 {
		t.Errorf("%+v: expected the bound above for a target that is a maximum", up)
	}
	if one := compare("x", []float64{3}, []float64{1}, 2, true); one.Bound != 0 || one.Met() {
		t.Errorf("%+v: one round gives no bound and meets nothing", one)
	}
}

func TestPopulationIsDistinctAndPublic(t *testing.T) {
	p := populate(5000)
	seen := map[netip.Addr]bool{}
	for _, a := range append(p.listed, p.others...) {
		if seen[a] || a.IsPrivate() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
			t.Fatalf("%s: seen %v: expected each once, and only public ones", a, seen[a])
		}
		seen[a] = true
	}
	if len(seen) != 10000 || populate(5000).listed[17] != p.listed[17] {
		t.Errorf("%d addresses: expected 10000, the same each time", len(seen))
	}
	if s := sources(p.listed, 1000); len(s) != 1000 || !seen[s[3].Addr] {
		t.Errorf("%d sources", len(s))
	}
	for _, n := range networks(500, p.others[:100]) {
		for _, a := range p.others[:100] {
			if n.Contains(a) {
				t.Fatalf("%s holds %s, which it must not", n, a)
			}
		}
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	for want, o := range map[string]Options{`row "hto"`: {Only: []string{"hto"}}, "rounds -1": {Rounds: -1}} {
		if err := o.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v: expected %q", o, err, want)
		}
	}
}

// A flood is of strangers who send as many packets as asked for, beside the
// clients' share, and never of clients.
func TestFloodsAreMixedAsAsked(t *testing.T) {
	const n = 20000
	for _, a := range []attack{{each: 1}, {share: 10, clients: 50, each: 1}, {share: 50, clients: 50, each: 2}} {
		count := map[xdpbench.Source]int{}
		legit := 0
		for _, s := range mix(rand.New(rand.NewPCG(1, 1)), n, a) {
			if s.Addr.As4()[0] == 100 {
				legit++
				continue
			}
			count[s]++
		}
		if want := n * a.share / 100; legit < want*9/10 || legit > want*11/10 {
			t.Errorf("%+v: %d packets are the clients': expected about %d", a, legit, want)
		}
		each := float64(n-legit) / float64(len(count))
		if each < 0.8*float64(a.each) || each > 1.2*float64(a.each) {
			t.Errorf("%+v: %.2f packets of each stranger: expected about %d", a, each, a.each)
		}
	}
}

// Plots are XML that ends, and name every subject.
func TestPlotsAreWhole(t *testing.T) {
	a := Series{ours, []float64{100, 110}, 105}
	b := Series{"nft <input>", []float64{600, 640}, 620}
	r := &Report{Object: "00ff", Kernel: "6.18", Rounds: 2, Rows: []Row{{
		ID: "hot", Title: "drop", Unit: "ns", Series: []Series{a, b},
		Curve: []Point{{1000, []Series{a, b}}, {1000000, []Series{a, b}}}, Axis: "sheep & goats",
		Ratios: []Ratio{compare("nft / hedgerow", b.Values, a.Values, 5, false)},
	}}}
	files, err := r.Plot(t.TempDir() + "/new/folder")
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, error %v: expected a curve and the ratios", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(text))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
		}
		if strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Inf") {
			t.Errorf("%s holds a figure that is none", f)
		}
		if strings.HasSuffix(f, "hot.svg") && !bytes.Contains(text, []byte("sheep &amp; goats")) {
			t.Errorf("%s does not say what its sizes are of", f)
		}
		if !bytes.Contains(text, []byte(ours)) || !bytes.Contains(text, []byte("nft")) {
			t.Errorf("%s: expected it to name its subjects", f)
		}
	}
	var out strings.Builder
	if err := r.Print(&out); err != nil || !strings.Contains(out.String(), "wanted at least 5: met") && !strings.Contains(out.String(), "NOT met") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// The bounds of a median are values of the sample, so many from either end that at
// most one coin in forty would lie beyond: of ten values the second and the ninth.
func TestAroundMedian(t *testing.T) {
	of := func(n int) (x []float64) {
		for i := range n {
			x = append(x, float64((i*7)%n+1)) // in any order
		}
		return x
	}
	for _, c := range []struct{ n, from, to int }{{0, 0, 0}, {1, 1, 1}, {5, 1, 5}, {6, 1, 6}, {10, 2, 9}, {100, 40, 61}, {2000, 956, 1045}} {
		if from, to := aroundMedian(of(c.n)); from != float64(c.from) || to != float64(c.to) {
			t.Errorf("of %d values: %v to %v, expected %d and %d", c.n, from, to, c.from, c.to)
		}
	}
}
