package history

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

var start = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// made writes a conn.log of n flows, one every four seconds; every tenth is
// labelled an attack if labels says so.
func made(t *testing.T, name string, n int, labels bool) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(8, uint64(n)))
	var b strings.Builder
	for i := range n {
		at := start.Add(time.Duration(i) * 4 * time.Second)
		label := ""
		size, host := 400+rng.IntN(300), rng.IntN(12)
		if labels {
			label = `,"label":"Benign"`
			if i%10 == 9 {
				label, size, host = `,"label":"Malicious","detailedlabel":"Upload"`, 90000+rng.IntN(9000), 3
			}
		}
		fmt.Fprintf(&b, `{"ts":%d.%06d,"uid":"C%d","id.orig_h":"10.0.0.%d","id.orig_p":%d,"id.resp_h":"198.51.100.%d","id.resp_p":443,"proto":"tcp","service":"ssl","duration":%.3f,"orig_bytes":%d,"resp_bytes":%d,"conn_state":"SF","missed_bytes":0,"history":"ShADadFf","orig_pkts":%d,"orig_ip_bytes":%d,"resp_pkts":%d,"resp_ip_bytes":%d%s}`+"\n",
			at.Unix(), rng.IntN(1e6), i, 10+host, 30000+i, 1+rng.IntN(5), 0.2+rng.Float64(), size, 2*size, 6+size/1000, size+60*(6+size/1000), 6+size/500, 2*size+60*(6+size/500), label)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func learn(t *testing.T, o LearnOptions, files ...string) *Lesson {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = start.Add(30 * 24 * time.Hour)
	}
	o.Settle = time.Minute
	l, err := Learn(t.Context(), files, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLesson: labelled attacks become examples of their family, normal traffic a
// sample, and what came before the site was known teaches no normal.
func TestLesson(t *testing.T) {
	l := learn(t, LearnOptions{}, made(t, "conn.log", 2000, true))
	if l.Classes["attack"] != 200 || l.Classes["normal"] != 1800 || len(l.Attacks) != 200 || l.Weights["Upload"] != 200 {
		t.Fatalf("%v, %v", l.Classes, l.Weights)
	}
	if l.Normals.Len() != 1800-l.Cold || l.Cold == 0 || l.Cold > 100 {
		t.Errorf("%d normal reports teach, %d came too early", l.Normals.Len(), l.Cold)
	}
	if x := l.Attacks[0]; x.Weight != weightLog || x.V.Valid() != nil || x.Source == "" {
		t.Errorf("example %+v", x)
	}
	if l.Windows["bad"] != 0 || l.Windows["good"] != 2 {
		t.Errorf("windows %v", l.Windows)
	}
}

// TestWaitingTime: what is younger than the waiting time teaches no normal; the
// labelled attacks in it teach.
func TestWaitingTime(t *testing.T) {
	path := made(t, "conn.log", 2000, true)
	end := start.Add(2000 * 4 * time.Second)
	l := learn(t, LearnOptions{Now: end.Add(time.Minute), Wait: 24 * time.Hour}, path)
	if l.Normals.Len() != 0 || l.Young != 1800 || len(l.Attacks) != 200 {
		t.Errorf("%d normal, %d young, %d attacks: expected 0, 1800, 200", l.Normals.Len(), l.Young, len(l.Attacks))
	}
	half := learn(t, LearnOptions{Now: end, Wait: 4000 * time.Second}, path)
	if half.Young < 850 || half.Young > 950 || half.Normals.Len() < 800 {
		t.Errorf("%d young, %d teach: expected about half each", half.Young, half.Normals.Len())
	}
}

// TestTheSameFileTwice: the second reading is a bad window, and nothing is learnt
// from it.
func TestTheSameFileTwice(t *testing.T) {
	path := made(t, "conn.log", 1500, false)
	once, twice := learn(t, LearnOptions{}, path), learn(t, LearnOptions{}, path, path)
	if twice.Windows["bad"] == 0 || twice.Normals.Len() != once.Normals.Len() || len(twice.Bad) == 0 || !strings.Contains(twice.Bad[0].Words(), "were there before") {
		t.Errorf("windows %v, %d normal reports, once %d: %v", twice.Windows, twice.Normals.Len(), once.Normals.Len(), twice.Words())
	}
}

// TestTruthTable: the operator's labels count before the log's own; those that
// name no flow, and those that the log contradicts, are told with their lines.
func TestTruthTable(t *testing.T) {
	path := made(t, "conn.log", 300, true)
	table := filepath.Join(t.TempDir(), "labels.csv")
	text := "uid,label,family\nC3,attack,probe\nC9,benign,\nCnone,attack,\n"
	if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	truth, err := ReadTruth(table)
	if err != nil || truth.Labels != 3 {
		t.Fatal(truth.Labels, err)
	}
	l := learn(t, LearnOptions{Options: Options{Truth: truth}}, path)
	words := strings.Join(l.Words(), "\n")
	if l.Contrary != 2 || l.Unused != 1 || !strings.Contains(words, "labels.csv: line 4: names a flow that is not in the data") {
		t.Errorf("%d contrary, %d unused: %s", l.Contrary, l.Unused, words)
	}
	if l.Weights["probe"] != 1 || l.Classes["attack"] != 30 {
		t.Errorf("%v %v", l.Weights, l.Classes)
	}
	for bad, want := range map[string]string{
		"uid,label\nC1,\n":                  "line 2: field label: not set",
		"uid,label\nC1,attack\nC1,benign\n": "line 3: field label: normal here and attack in line 2",
		"src,sport,dst,dport,proto,label\n10.0.0.300,1,10.0.0.2,2,tcp,1\n": "line 2: field src: found \"10.0.0.300\": expected an IP address",
		"src,sport,dst,dport,proto,label\n10.0.0.1,1,10.0.0.2,2,ipx,1\n":   "line 2: field proto",
		"src,sport,dst,dport,proto,label\n10.0.0.1,99999,10.0.0.2,2,6,1\n": "line 2: field sport",
	} {
		if err := os.WriteFile(table, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTruth(table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, expected %q", bad, err, want)
		}
	}
	if _, err := ReadTruth(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing file is no truth")
	}
}

func tableOf(path, text string) (Truth, error) {
	l, err := lines.New(path, strings.NewReader(text), maxLabelLine)
	if err != nil {
		return Truth{}, err
	}
	return readTable(l)
}

// TestTupleNamesBothWays: a flow is found by its ends, whoever stands first.
func TestTupleNamesBothWays(t *testing.T) {
	truth, err := tableOf("t", "src,sport,dst,dport,proto,label\n198.51.100.2,443,10.0.0.7,4000,tcp,scan\n")
	if err != nil {
		t.Fatal(err)
	}
	log := `{"ts":1,"id.orig_h":"10.0.0.7","id.orig_p":4000,"id.resp_h":"198.51.100.2","id.resp_p":443,"proto":"tcp","orig_pkts":1,"resp_pkts":1,"orig_ip_bytes":60,"resp_ip_bytes":60}`
	path := filepath.Join(t.TempDir(), "conn.log")
	if err := os.WriteFile(path, []byte(log+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := 0
	if _, err := Read(t.Context(), path, Options{Truth: truth}, func(r *Report) {
		if seen++; r.Class != flowlog.Attack || r.Family != "scan" {
			t.Errorf("%s %q", r.Class, r.Family)
		}
	}); err != nil || seen != 1 {
		t.Error(seen, err)
	}
}

// TestRealHistory learns from real labelled logs and captures where they are.
func TestRealHistory(t *testing.T) {
	root := realdata.Dir(t, ".")
	l := learn(t, LearnOptions{}, filepath.Join(root, "stratosphere-zeek/008-zeek-mixed/data/conn.log.labeled.gz"),
		filepath.Join(root, "slips/dataset/test19-malicious-ssh/malicious-ssh-bruteforce.pcap"))
	t.Log(strings.Join(l.Words(), "\n"))
	if l.Classes["attack"] != 4201 || l.Weights["External-Attack-to-Device"] != perFamily || l.Normals.Len() < 1000 || l.Files[1].Packets != 1178 {
		t.Errorf("%v %v, %d normal reports", l.Classes, l.Weights, l.Normals.Len())
	}
}

func FuzzTruthTable(f *testing.F) {
	f.Add("uid,label\nC1,attack\n")
	f.Add("src,sport,dst,dport,proto,label,family\n10.0.0.1,1,fe80::1,2,udp,0,x\n")
	f.Fuzz(func(t *testing.T, text string) {
		truth, err := tableOf("fuzz", text)
		if err == nil && len(truth.flows) > truth.Labels {
			t.Fatalf("%d flows of %d labels", len(truth.flows), truth.Labels)
		}
	})
}
