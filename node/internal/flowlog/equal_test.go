package flowlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

// zeekOf writes a record as Zeek would have: each value by Zeek's documentation
// of conn.log.
func zeekOf(r *flow.Record) map[string]any {
	proto := flow.ProtoName(r.Key.Proto)
	src, dst := r.Initiator(), r.Responder()
	m := map[string]any{
		"ts": json.Number(fmt.Sprintf("%d.%06d", r.Start/1e9, r.Start%1e9/1e3)), "uid": fmt.Sprintf("C%x", r.ID),
		"id.orig_h": src.Addr().String(), "id.orig_p": src.Port(), "id.resp_h": dst.Addr().String(), "id.resp_p": dst.Port(), "proto": proto,
		"orig_pkts": r.Dir[0].Packets, "resp_pkts": r.Dir[1].Packets, "orig_ip_bytes": r.Dir[0].Bytes, "resp_ip_bytes": r.Dir[1].Bytes, "missed_bytes": 0,
	}
	if r.Packets() > 1 {
		m["duration"] = json.Number(fmt.Sprintf("%d.%06d", (r.Last-r.Start)/1e9, (r.Last-r.Start)%1e9/1e3))
		m["orig_bytes"], m["resp_bytes"] = r.Dir[0].Payload, r.Dir[1].Payload
	}
	history, state := "", "OTH"
	if r.Key.Proto == flow.TCP {
		history, state = zeekTCP(r)
	}
	m["conn_state"] = state
	if history != "" {
		m["history"] = history
	}
	if s := map[flow.Hint]string{flow.HintTLS: "ssl", flow.HintSSH: "ssh", flow.HintHTTP: "http"}[r.Hint]; s != "" {
		m["service"] = s
	}
	return m
}

func zeekTCP(r *flow.Record) (history, state string) {
	mark := func(is bool, s string) {
		if is {
			history += s
		}
	}
	o, a := &r.Dir[0], &r.Dir[1]
	mark(o.SYN > 0, "S")
	mark(a.SYN > 0, "h")
	mark(o.Packets > 1 && a.SYN > 0, "A")
	mark(o.Payload > 0, "D")
	mark(a.Payload > 0, "ad")
	mark(o.FIN > 0, "F")
	mark(a.FIN > 0, "f")
	mark(o.RST > 0, "R")
	mark(a.RST > 0, "r")
	switch {
	case o.FIN > 0 && a.FIN > 0:
		return history, "SF"
	case a.RST > 0 && a.SYN == 0:
		return history, "REJ"
	case o.RST > 0:
		return history, "RSTO"
	case a.RST > 0:
		return history, "RSTR"
	case a.Packets == 0:
		return history, "S0"
	}
	return history, "S1"
}

// zeekJSON and zeekTSV write logs of records, TSV with its columns in any order.
func zeekJSON(recs []flow.Record) []byte {
	var b bytes.Buffer
	for i := range recs {
		line, _ := json.Marshal(zeekOf(&recs[i])) // numbers and words
		b.Write(append(line, '\n'))
	}
	return b.Bytes()
}

func zeekTSV(recs []flow.Record, names []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#fields\t%s\n", strings.Join(names, "\t"))
	for i := range recs {
		m := zeekOf(&recs[i])
		var vals []string
		for _, n := range names {
			v := "-"
			if x, ok := m[n]; ok {
				v = fmt.Sprint(x)
			}
			vals = append(vals, v)
		}
		fmt.Fprintln(&b, strings.Join(vals, "\t"))
	}
	return []byte(b.String() + "#close\t2026-03-02-09-00-00\n")
}

var zeekNames = strings.Fields("ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state missed_bytes history orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes")

// readAll reads a whole log from memory.
func readAll(t testing.TB, name string, b []byte, o Options) ([]Flow, *Report) {
	t.Helper()
	src, err := lines.New(name, bytes.NewReader(b), MaxLine)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newReader(src, o)
	if err != nil {
		t.Fatal(err)
	}
	return drain(t, r), r.Report()
}

func drain(t testing.TB, r *Reader) (out []Flow) {
	t.Helper()
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *f)
	}
}

// sameFeatures holds the features of imported flows against those of the plane's
// records: both orders are of ends. What the log's tool gives must be there
// exactly when it is in the plane's, and equal; the rest must be absent.
func sameFeatures(t *testing.T, recs []flow.Record, flows []Flow, tolerance float64) (compared int) {
	t.Helper()
	if len(flows) != len(recs) {
		t.Fatalf("%d flows of %d", len(flows), len(recs))
	}
	ours, theirs := newContext(t), newContext(t)
	var a, b feature.Vector
	for i := range recs {
		own, other := &recs[i], &flows[i].Record
		if own.Key != other.Key || own.InitB != other.InitB {
			t.Fatalf("flow %d: %v from %v, expected %v from %v", i, other.Key, other.Initiator(), own.Key, own.Initiator())
		}
		ours.Update(own, true)
		ours.Vector(&a, own)
		theirs.Update(other, true)
		theirs.Vector(&b, other)
		given := feature.Given(other.Lacks)
		for k := range feature.Dim {
			switch {
			case !given.Has(k):
				if b.Known(k) {
					t.Errorf("flow %d: %s is %v, and the log does not tell it", i, feature.Name(k), b.X[k])
				}
			case a.Known(k) != b.Known(k):
				t.Errorf("flow %d (%v): %s known in the capture %v, in the log %v", i, own.Key, feature.Name(k), a.Known(k), b.Known(k))
			case math.Abs(float64(a.X[k]-b.X[k])) > tolerance:
				t.Errorf("flow %d (%v): %s is %v (%s), in the capture %v (%s)", i, own.Key, feature.Name(k), b.X[k], feature.Describe(k, &b), a.X[k], feature.Describe(k, &a))
			default:
				if a.Known(k) {
					compared++
				}
			}
		}
	}
	return compared
}

func newContext(t *testing.T) *feature.Context {
	t.Helper()
	c, err := feature.NewContext(feature.ContextOptions{Settle: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestZeekEqualsCapture: the same traffic as a capture through the software plane
// and as conn.log, TSV in two orders and JSON, has equal features where Zeek
// tells them, those of the surroundings included.
func TestZeekEqualsCapture(t *testing.T) {
	recs := planeRecords(t, officeFile(t))
	if len(recs) < 140 {
		t.Fatalf("%d flows", len(recs))
	}
	backward := append([]string(nil), zeekNames...)
	for i, j := 0, len(backward)-1; i < j; i, j = i+1, j-1 {
		backward[i], backward[j] = backward[j], backward[i]
	}
	for name, b := range map[string][]byte{"tsv": zeekTSV(recs, zeekNames), "tsv backward": zeekTSV(recs, backward), "json": zeekJSON(recs)} {
		t.Run(name, func(t *testing.T) {
			flows, rep := readAll(t, "conn.log", b, Options{})
			if rep.RefusedLines() != 0 {
				t.Fatalf("%v", rep.Words())
			}
			n := sameFeatures(t, recs, flows, 1e-6)
			t.Logf("%d flows, %d features compared, %.1f of %d for each", len(recs), n, float64(n)/float64(len(recs)), feature.Dim)
			if n < 30*len(recs) {
				t.Errorf("only %d features compared", n)
			}
		})
	}
}
