package detection

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// capture is one that is labelled.
type capture struct {
	path, class string
	labels      string // a file beside it, "" when all of it is an attack
}

// captures are those whose flows have a truth: attacks throughout, or packet by
// packet.
var captures = []capture{
	{"pcap-lab-annie520143/DDos/DDos.pcapng", "HTTP flood", ""},
	{"pcap-lab-annie520143/openvas/openvas.pcapng", "vulnerability scan", ""},
	{"pcap-lab-annie520143/sqlmap/sqlmap.pcapng", "SQL injection", ""},
	{"pcap-lab-annie520143/nmap/nmap.pcapng", "port scan", ""},
	{"slips/dataset/test19-malicious-ssh/malicious-ssh-bruteforce.pcap", "SSH guessing", ""},
	{"slips/dataset/test-cc/test-cc-capture-1.pcap", "beacon, 2 s", ""},
	{"slips/dataset/test-cc/test-cc-capture-2.pcap", "beacon, 2 to 3 s", ""},
	{"ddos-stopddos/amp.UDP.bacnet.IOT.37810.pcapng", "amplification", ""},
	{"ddos-stopddos/amp.UDP.snmp.src161.pcapng", "amplification", ""},
	{"ddos-stopddos/pkt.TCP.synflood.spoofed.pcap", "SYN flood, forged", ""},
}

// modbus are captures of one network whose packets are labelled: what is harmless
// there is the companion, and each is judged by what the other two taught.
var modbus = []capture{
	{"modbus-lemay/characterization_modbus_6RTU_with_operate.pcap", "scan of a plant", "characterization_modbus_6RTU_with_operate_labeled.csv"},
	{"modbus-lemay/CnC_uploading_exe_modbus_6RTU_with_operate.pcap", "upload to a plant", "CnC_uploading_exe_modbus_6RTU_with_operate_labeled.csv"},
	{"modbus-lemay/moving_two_files_modbus_6RTU.pcap", "files moved in a plant", "moving_two_files_modbus_6RTU_labeled.csv"},
}

const companion = "nDPI's samples of protocols"

// seen is a flow of a capture that reached packet 4.
type seen struct {
	file   string
	attack bool
	flow   distill.Flow
	vecs   []feature.Vector // of each look
}

// read gives a capture's flows that reached packet 4, in the order of their beginning.
func read(ctx context.Context, dir string, c capture) (out []*seen, err error) {
	words := "attack"
	switch {
	case c.class == "":
		words = "benign"
	case c.labels != "":
		words = filepath.Join(dir, filepath.Dir(c.path), c.labels)
	}
	truth, err := history.ReadTruth(words)
	if err := errors.Join(err, truth.Strict()); err != nil {
		return nil, err
	}
	by := map[uint64]*seen{}
	// Captures are short: a host is familiar once it was seen at all.
	_, err = history.Read(ctx, filepath.Join(dir, c.path), history.Options{Settle: time.Second, Truth: truth}, func(r *history.Report) {
		f := by[r.Record.ID]
		if r.Final {
			if f != nil {
				f.attack = r.Class == flowlog.Attack
			}
			return
		}
		x, at, ok := score.FromRecord(r.Record)
		if !ok || r.Record.OnlyResets() {
			return
		}
		if f == nil {
			f = &seen{file: c.path}
			by[r.Record.ID] = f
			out = append(out, f)
		}
		if len(f.flow.Looks) < score.Milestones {
			f.flow.Looks = append(f.flow.Looks, distill.Look{At: at, X: x, P: 1})
			f.vecs = append(f.vecs, *r.V)
		}
	})
	return out, err
}

// protocols are the companion's captures: every one of nDPI's that is labelled as a
// sample of a protocol, and none left out for what is in it.
func protocols(dir string) (out []capture, err error) {
	f, err := os.Open(filepath.Join(dir, "PCAP-LABELS.csv"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	for _, r := range rows {
		if ok, _ := filepath.Match("pcap-ndpi-tests/pcap/*", r[0]); ok && len(r) > 3 && r[3] == "protocol" {
			out = append(out, capture{path: r[0]})
		}
	}
	slices.SortFunc(out, func(a, b capture) int {
		if a.path < b.path {
			return -1
		}
		return 1
	})
	return out, nil
}

// normals are the companion's flows: those of every second capture teach.
func normals(ctx context.Context, dir string) (teach, test []*seen, err error) {
	cs, err := protocols(dir)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for _, c := range cs {
		fs, err := read(ctx, dir, c)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil || len(fs) == 0 {
			continue // not of IP, or without a flow that reaches packet 4
		}
		if n++; n%2 == 1 {
			teach = append(teach, fs...)
		} else {
			test = append(test, fs...)
		}
	}
	return teach, test, nil
}
