package detection

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// data is the folder of real data.
func data(t *testing.T) string {
	t.Helper()
	return realdata.Dir(t, "PCAP-LABELS.csv")
}

// TestTruthOfCaptures counts the flows that reach packet 4, by their truth.
func TestTruthOfCaptures(t *testing.T) {
	dir := data(t)
	for i, want := range []struct {
		c             capture
		attack, other int
	}{{captures[4], 66, 0}, {modbus[0], 4, 617}, {modbus[1], 2, 145}, {modbus[2], 5, 360}} {
		fs, err := read(t.Context(), dir, want.c)
		if err != nil {
			t.Fatal(err)
		}
		n := [2]int{}
		for _, f := range fs {
			if len(f.vecs) != len(f.flow.Looks) || len(f.vecs) == 0 || f.flow.Looks[0].At != 0 {
				t.Fatalf("capture %d: a flow of %d looks and %d vectors", i, len(f.flow.Looks), len(f.vecs))
			}
			if f.attack {
				n[1]++
			} else {
				n[0]++
			}
		}
		if n != [2]int{want.other, want.attack} {
			t.Errorf("%s: %d harmless flows and %d of an attack: expected %d and %d", want.c.path, n[0], n[1], want.other, want.attack)
		}
	}
	cs, err := protocols(dir)
	if err != nil || len(cs) < 300 {
		t.Errorf("the companion has %d captures: %v", len(cs), err)
	}
}

// TestControlKnowsNothing: after labels were dealt out anew, what was told apart
// perfectly is not.
func TestControlKnowsNothing(t *testing.T) {
	var all []distill.Flow
	for i := range 1200 {
		l := distill.Look{P: 0.5}
		l.X[score.Duration] = int32(i * 7919 % 1000)
		if i >= 1000 {
			l.X[score.Duration], l.P = 5000, 1e-6
		}
		all = append(all, distill.Flow{Looks: []distill.Look{l}})
	}
	s, err := control(t.Context(), all, 200, distill.Options{Seed: 1, Budget: falseAlarms})
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for i := 1000; i < 1200; i++ {
		if s.Decide(0, s.Eval(0, &all[i].Looks[0].X)) != score.Pass {
			hits++
		}
	}
	if hits != 0 {
		t.Errorf("labels at random find %d of 200", hits)
	}
	if all[0].Weight != 0 || all[1100].Looks[0].P != 1e-6 {
		t.Error("the control changed the flows that it was given")
	}
}

func TestOwnOnlyHidesSurroundings(t *testing.T) {
	v := feature.Vector{Has: feature.All()}
	for i := range v.X {
		v.X[i] = 0.5
	}
	own := ownOnly(v)
	for i := range v.X {
		if hidden := !own.Known(i) && own.X[i] == 0; hidden != feature.IsContext(i) {
			t.Errorf("%s: hidden is %v", feature.Name(i), hidden)
		}
	}
}

func TestPrintSaysWhatIsMissed(t *testing.T) {
	r := Report{Captures: []Row{
		{Capture: "a/x.pcap", Class: "scan", Cells: []Cell{
			{Packets: 4, Attacks: 50, Normals: 900, Full: 1, Scorer: 0.9},
			{Packets: 8, Attacks: 50, Normals: 900, Full: 1, Scorer: 0.97},
			{Packets: 16, Attacks: 3, Normals: 900, Full: 1},
		}},
		{Capture: "a/y.pcap", Absent: "1 of its flows"},
	}, Loop: &Loop{Flows: 7, Retrained: time.Second, Distilled: 2 * time.Second}}
	var b bytes.Buffer
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NO", "yes", "too few to say", "not measured: y.pcap: 1 of its flows", "together 3s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, b.String())
		}
	}
}
