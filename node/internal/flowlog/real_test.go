package flowlog

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// data is the folder of real data.
func data(t testing.TB) string {
	t.Helper()
	return realdata.Dir(t, ".")
}

// TestRealLogs: every real log is read to its end, and what is known of it by
// its own description comes out.
func TestRealLogs(t *testing.T) {
	root := data(t)
	for _, c := range []struct {
		path            string
		format          Format
		flows           int
		attacks, normal int
		refused         int
	}{
		{"stratosphere-zeek/001-zeek-scenario-malicious/labeled-conn.log", ZeekTSV, 992, 244, 9, 0},
		{"stratosphere-zeek/002-zeek-scenario-port-scanning/conn.log.gz", ZeekJSON, 4504, 0, 0, 0},
		{"stratosphere-zeek/006-zeek-scenario-ssh/conn.log", ZeekTSV, 18, 0, 0, 0},
		{"stratosphere-zeek/008-zeek-mixed/data/conn.log.labeled.gz", ZeekTSV, 5663, 4201, 1402, 0},
		{"stratosphere-zeek/010-zeek-mixed/data/conn.log.labeled.gz", ZeekTSV, 5347, 3373, 1937, 0},
		{"stratosphere-zeek/011-zeek-mixed/data/conn.log.labeled.gz", ZeekTSV, 9048, 3951, 4771, 0},
		{"slips/dataset/test9-mixed-zeek-dir/conn.log", ZeekJSON, 576, 0, 0, 0},
		{"slips/dataset/test10-mixed-zeek-dir/conn.log", ZeekTSV, 141, 0, 0, 0}, // a blank ahead of its first line
		{"slips/dataset/test2-malicious.binetflow.gz", Argus, 6751, 0, 0, 0},
		{"slips/dataset/test5-mixed.binetflow", Argus, 295, 276, 0, 1}, // tabs, and its last line has no end
		{"slips/dataset/test6-malicious.suricata.json.gz", Suricata, 3512, 0, 0, 0},
		{"westermo-2023/data/reduced/flows/output_left.csv.gz", Westermo, 5018, 3775, 1243, 0}, // 3,515 rows are not IP
		{"cicids-samples/reinesaj2/cic_ids2017_multiclass.csv.gz", CIC, 9971, 5971, 4000, 0},
		{"cicids-samples/western-oc2/cic_0.01km.csv.gz", CIC, 28301, 5641, 22660, 2}, // durations below zero
	} {
		t.Run(strings.ReplaceAll(c.path, "/", " "), func(t *testing.T) {
			r, err := Open(filepath.Join(root, c.path), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			flows := drain(t, r)
			count := map[Class]int{}
			var v feature.Vector
			for i := range flows {
				count[flows[i].Class]++
				if feature.FromRecord(&v, &flows[i].Record); v.Valid() != nil {
					t.Fatal(v.Valid())
				}
			}
			rep := r.Report()
			t.Log(strings.Join(rep.Words(), "\n"), count)
			for _, f := range rep.Faults {
				if f.Line == 0 || f.Path == "" || f.Want == "" {
					t.Errorf("a refusal that says too little: %v", f)
				}
			}
			if rep.Format != c.format || len(flows) != c.flows || count[Attack] != c.attacks || count[Normal] != c.normal || rep.RefusedLines() != c.refused {
				t.Errorf("%s: %d flows, %d attacks, %d normal, %d refused: expected %s: %d, %d, %d, %d", rep.Format, len(flows), count[Attack], count[Normal], rep.RefusedLines(), c.format, c.flows, c.attacks, c.normal, c.refused)
			}
		})
	}
}

// TestRealJoins: the logs beside conn.log tell of its flows.
func TestRealJoins(t *testing.T) {
	root := data(t)
	r, err := Open(filepath.Join(root, "stratosphere-zeek/006-zeek-scenario-ssh/conn.log"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	logins := map[Login]int{}
	for _, f := range drain(t, r) {
		logins[f.Meta.Login]++
	}
	if logins[LoginDone] == 0 || logins[LoginFailed] == 0 || r.Report().Joined["ssh"].Used != 10 {
		t.Errorf("logins %v, joined %+v: expected both kinds, on ten flows", logins, r.Report().Joined["ssh"])
	}
	r, err = Open(filepath.Join(root, "slips/dataset/test6-malicious.suricata.json.gz"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	alerted := 0
	for _, f := range drain(t, r) {
		if f.Meta.Alerts > 0 {
			alerted++
		}
	}
	t.Logf("suricata: %d flows with alerts", alerted)
	if alerted < 300 {
		t.Errorf("%d flows with alerts of 745 alerts", alerted)
	}
}

// TestRealNetFlow: nfdump's own binary form is refused with what to do.
func TestRealNetFlow(t *testing.T) {
	path := filepath.Join(data(t), "slips/dataset/test1-malicious.nfdump")
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "nfdump -r FILE -o csv") {
		t.Errorf("got %v, expected how to export it", err)
	}
}
