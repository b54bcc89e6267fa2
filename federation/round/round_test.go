package round

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/internal/agenda"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the traces of testdata anew; read the diff")

// TestScripts plays testdata/*.txt: commands up to a line "----", then the
// trace that they must give.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { script(t, f) })
	}
}

func script(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	commands, want, _ := strings.Cut(string(b), "----\n")
	var w *testnet
	var trace strings.Builder
	for line := range strings.Lines(commands) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if f[0] == "sites" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			w = newNet(t, n, 1)
			w.trace = &trace
			continue
		}
		play(t, w, &trace, f)
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(commands+"----\n"+trace.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if trace.String() != want {
		t.Errorf("trace:\n%s\nexpected:\n%s", trace.String(), want)
	}
}

func play(t *testing.T, w *testnet, trace *strings.Builder, f []string) {
	t.Helper()
	var who []int
	for _, a := range f[1:] {
		if len(a) == 1 && a[0] >= 'a' && int(a[0]-'a') < len(w.nodes) {
			who = append(who, int(a[0]-'a'))
		}
	}
	switch f[0] {
	case "start":
		w.start(who[0])
	case "kill":
		w.kill(who[0])
	case "boot":
		w.boot(who[0])
	case "mute":
		w.nodes[who[0]].mute = true
	case "unmute":
		w.nodes[who[0]].mute = false
	case "cut":
		w.partition(who)
	case "heal":
		clear(w.cut)
	case "run", "slow":
		d, err := time.ParseDuration(f[len(f)-1])
		if err != nil {
			t.Fatal(err)
		}
		if f[0] == "slow" {
			w.nodes[who[0]].slow = d
			return
		}
		w.Run(d)
	case "heads":
		_, _ = fmt.Fprintf(trace, "heads: %s\n", w.heads())
	default:
		t.Fatalf("unknown command %q", f)
	}
}

// TestLiveSitesEndOnOneModel plays random loss, delay, partitions, crashes and
// silent proposers, then a quiet end: all live sites must be on one model, and
// nobody has ever signed two deltas or two lists for one place.
func TestLiveSitesEndOnOneModel(t *testing.T) {
	runs := 60
	if testing.Short() {
		runs = 15
	}
	progressed := 0
	for seed := range uint64(runs) {
		w := chaos(t, seed)
		if !w.one() {
			t.Fatalf("seed %d: %s", seed, w.heads())
		}
		if w.nodes[0].m.Head().Round > 0 || w.nodes[1].m.Head().Round > 0 {
			progressed++
		}
		for _, nd := range w.nodes {
			checkAdopts(t, seed, nd)
		}
	}
	if progressed < runs*9/10 {
		t.Errorf("only %d of %d runs made a model", progressed, runs)
	}
}

func chaos(t *testing.T, seed uint64) *testnet {
	w := newNet(t, 2+int(seed%5), seed)
	r := w.rng
	w.delay = func() time.Duration { return time.Duration(1+r.IntN(300)) * time.Millisecond }
	for range 12 {
		i := r.IntN(len(w.nodes))
		switch r.IntN(6) {
		case 0:
			w.loss = 0.6 * r.Float64()
		case 1:
			w.partition([]int{i, r.IntN(len(w.nodes))})
		case 2:
			w.kill(i)
		case 3:
			if w.nodes[i].down {
				w.boot(i)
			}
		case 4:
			w.nodes[i].mute = !w.nodes[i].mute
		case 5:
			clear(w.cut)
		}
		if s := r.IntN(len(w.nodes)); !w.nodes[s].down {
			w.start(s)
		}
		w.Run(time.Duration(r.IntN(20000)) * time.Millisecond)
	}
	for i, nd := range w.nodes { // the quiet end
		nd.mute = false
		if nd.down && r.IntN(2) == 0 {
			w.boot(i)
		}
	}
	clear(w.cut)
	w.loss = 0.1
	for range 20 {
		w.Run(30 * time.Second)
		if w.one() {
			break
		}
	}
	return w
}

// checkAdopts demands that models only get better in the one order.
func checkAdopts(t *testing.T, seed uint64, nd *testnode) {
	t.Helper()
	for i := 1; i < len(nd.adopts); i++ {
		a, b := nd.adopts[i-1], nd.adopts[i]
		if nd.life == 1 && !better(b.state(), a.state()) { // never restarted
			t.Errorf("seed %d: %s went from %d.%d to %d.%d", seed, nd.name, a.Round, a.View, b.Round, b.View)
		}
	}
}

// TestRoundsOnTheClock begins rounds by time alone.
func TestRoundsOnTheClock(t *testing.T) {
	w := newNet(t, 3, 1)
	for i, nd := range w.nodes {
		cfg := w.config(i)
		cfg.Every = time.Minute
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		nd.m, nd.alarm = m, agenda.Alarm{}
		nd.life++
		w.tick(i)
	}
	w.Run(10*time.Minute + 30*time.Second)
	if r := w.nodes[0].m.Head().Round; r < 9 || r > 10 || !w.one() {
		t.Fatalf("after 10 min of one round a minute: %s", w.heads())
	}
}

func TestSoloMakesItsOwnRounds(t *testing.T) {
	w := newNet(t, 1, 1)
	for range 3 {
		w.start(0)
		w.Run(5 * time.Second)
	}
	if r := w.nodes[0].m.Head().Round; r != 3 {
		t.Fatalf("round %d, expected 3", r)
	}
}

func TestRefusals(t *testing.T) {
	w := newNet(t, 3, 1)
	w.nodes[2].slow = time.Hour
	w.start(0)
	w.Run(2 * time.Second) // a and b hold two deltas, c trains
	a, b := w.nodes[0], w.nodes[1]
	head := a.m.Head()
	b.seq = 1000
	sealed := func(nd *testnode, p wire.Payload) *wire.Message {
		nd.seq++
		m, err := wire.Seal(nd.key, nd.seq, w.Now, p)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	some := wire.Hash{1}
	stranger := &testnode{key: mustKey(t, 99)}
	for name, c := range map[string]struct {
		msg  *wire.Message
		want wire.Reason
	}{
		"another round":  {sealed(b, &wire.Offer{Round: 7, Base: head.Hash, Delta: some, Size: 9}), wire.WrongRound},
		"another base":   {sealed(b, &wire.Offer{Round: 1, Base: some, Delta: some, Size: 9}), wire.WrongBase},
		"second offer":   {sealed(b, &wire.Offer{Round: 1, Base: head.Hash, Delta: some, Size: 9}), wire.Equivocation},
		"unasked delta":  {sealed(b, &wire.Delta{Round: 1, Base: head.Hash, Schema: "test/1", Params: []float32{1, 2, 3}}), wire.NotFound},
		"another schema": {sealed(b, &wire.Delta{Round: 1, Base: head.Hash, Schema: "test/2", Params: []float32{1, 2, 3}}), wire.WrongSchema},
		"another length": {sealed(b, &wire.Delta{Round: 1, Base: head.Hash, Schema: "test/1", Params: []float32{1, 2}}), wire.WrongLength},
		"not its turn":   {sealed(b, &wire.List{Round: 1, View: 1, Base: head.Hash, Deltas: []wire.Hash{{1}, {2}}}), wire.NotProposer},
		"too few deltas": {sealed(b, &wire.List{Round: 1, View: 0, Base: head.Hash, Deltas: []wire.Hash{{1}}}), wire.WrongLength},
		"far ahead":      {sealed(b, &wire.State{Round: maxAhead + 1, Hash: some}), wire.WrongRound},
		"a stranger":     {sealed(stranger, &wire.Begin{Round: 1, Base: head.Hash}), wire.NotMember},
		"an indicator":   {sealed(b, &wire.Withdrawal{ID: strings.Repeat("a", 32)}), wire.WrongTopic},
		"begun twice":    {sealed(b, &wire.Begin{Round: 1, Base: head.Hash}), wire.Duplicate},
	} {
		if err := a.m.Step(w.Now, c.msg); err == nil || wire.ReasonOf(err) != c.want {
			t.Errorf("%s: %v, expected %s", name, err, c.want)
		}
	}
	if err := a.m.Fetched(w.Now, some, make([]float32, 3)); wire.ReasonOf(err) != wire.NotFound {
		t.Errorf("unasked model: %v", err)
	}
	if got := a.m.Head().state(); got != head.state() {
		t.Errorf("refused messages moved the head to %+v", got)
	}
}

func mustKey(t *testing.T, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(strings.NewReader(strings.Repeat(string(rune(n)), 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestEquivocatingProposer: two lists in one view. Sites may compute different
// models, and end on the one with the lower hash.
func TestEquivocatingProposer(t *testing.T) {
	w := newNet(t, 4, 1)
	for i := range w.nodes {
		w.nodes[i].mute = true // nobody lists by itself
	}
	w.start(0)
	w.Run(3 * time.Second)
	p := w.nodes[1] // (round 1 + view 0) mod 4
	hs := p.m.open.hashes()
	if len(hs) != 4 {
		t.Fatalf("%d deltas, expected 4", len(hs))
	}
	one := &wire.List{Round: 1, Base: p.m.Head().Hash, Deltas: hs[:3]}
	two := &wire.List{Round: 1, Base: p.m.Head().Hash, Deltas: hs[1:]}
	for i, l := range []*wire.List{one, one, two, two} {
		p.seq++
		msg, err := wire.Seal(p.key, p.seq, w.Now, l)
		if err != nil {
			t.Fatal(err)
		}
		w.deliver(i, msg)
	}
	if w.one() {
		t.Fatal("the lists made one model: the test shows nothing")
	}
	w.Run(time.Minute)
	if !w.one() {
		t.Fatalf("after a minute: %s", w.heads())
	}
}

func TestRestoreRefuses(t *testing.T) {
	w := newNet(t, 1, 1)
	w.start(0)
	w.Run(5 * time.Second)
	good := w.nodes[0].disk
	for name, b := range map[string][]byte{"empty": nil, "cut": good[:len(good)/2], "foreign": []byte("hello")} {
		m, err := New(w.config(0))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Restore(b, w.Now); !errors.Is(err, ErrSnapshot) || m.Head().Round != 0 {
			t.Errorf("%s: %v at round %d, expected ErrSnapshot at genesis", name, err, m.Head().Round)
		}
	}
	cfg := w.config(0)
	cfg.Schema = "test/2"
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(good, w.Now); !errors.Is(err, ErrSnapshot) {
		t.Errorf("another schema: %v", err)
	}
}

func FuzzRestore(f *testing.F) {
	cfg := Config{Self: "x", Sites: []identity.ID{"x"}, Schema: "test/1", Init: make([]float32, 3)}
	m, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	b, err := m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = m.Restore(b, epoch) // refused or not, the head must fit
		if h := m.Head(); h.Hash != wire.ModelHash("test/1", h.Params) || len(h.Params) != 3 {
			t.Fatalf("restored a head that does not fit: %+v", h)
		}
	})
}
