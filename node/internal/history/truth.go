package history

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/evidence"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// How sure labels of different kinds are. An operator's own confirmation weighs 1.
const (
	weightTruth = 0.9 // a file of labels that the operator gave
	weightLog   = 0.8 // the label that a log carries
	weightWhole = 0.5 // "this whole file is an attack"
	weightAlert = 0.6 // an IDS alert of severity 1; 0.4 of 2, 0.2 of the rest
	weightLogin = 0.3 // a session whose logins failed
)

// maxLabels bounds the labels of one file.
const maxLabels = 1 << 20

// Truth is what somebody says of flows, beside what the logs say themselves.
type Truth struct {
	Whole  flowlog.Class // of every flow, or Unlabelled
	flows  map[string]*mark
	packet []bool // of a capture, packet by packet
	path   string
	Labels int
	// Evidence is what the machines behind said of those who came; nil for none.
	Evidence *evidence.Index
}

// mark is one label.
type mark struct {
	line   int
	class  flowlog.Class
	family string
	used   bool
}

// ReadTruth reads what s names: the word attack or benign, a file of packets
// ("index;label"), or a table of flows: comma-separated under a header with the
// column label (0, 1, benign, attack or the attack's family) and either uid, or
// src, sport, dst, dport and proto.
func ReadTruth(s string) (t Truth, err error) {
	switch s {
	case "":
		return t, nil
	case "attack":
		return Truth{Whole: flowlog.Attack}, nil
	case "benign":
		return Truth{Whole: flowlog.Normal}, nil
	}
	f, err := os.Open(s)
	if err != nil {
		return t, fmt.Errorf("ground truth: %w (expected a file of labels, or the word attack or benign)", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return t, fmt.Errorf("ground truth %s: %w", s, err)
	}
	if !hasColumns(head) {
		p, err := intake.ReadPacketTruth(s)
		if err != nil {
			return t, fmt.Errorf("ground truth: %w, or a table with the columns uid,label or src,sport,dst,dport,proto,label", err)
		}
		return Truth{packet: p, path: s, Labels: len(p)}, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return t, fmt.Errorf("ground truth %s: %w", s, err)
	}
	return readTable(s, f)
}

func hasColumns(head string) bool {
	at := header(head)
	_, label := at["label"]
	_, uid := at["uid"]
	_, src := at["src"]
	return label && (uid || src)
}

func header(line string) map[string]int {
	at := map[string]int{}
	for i, n := range strings.Split(strings.TrimSpace(strings.TrimPrefix(line, "\ufeff")), ",") {
		at[strings.ToLower(strings.TrimSpace(n))] = i
	}
	return at
}

func readTable(path string, r io.Reader) (Truth, error) {
	t := Truth{flows: map[string]*mark{}, path: path}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<16)
	var at map[string]int
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		if at == nil {
			at = header(text)
			continue
		}
		if err := t.row(n, at, strings.Split(text, ",")); err != nil {
			return t, fmt.Errorf("ground truth %s: line %d: %w", path, n, err)
		}
		if t.Labels++; t.Labels > maxLabels {
			return t, fmt.Errorf("ground truth %s: line %d: more than %d labels", path, n, maxLabels)
		}
	}
	if err := lines.Err(); err != nil {
		return t, fmt.Errorf("ground truth %s: %w", path, err)
	}
	return t, nil
}

// row takes one label.
func (t *Truth) row(n int, at map[string]int, vals []string) error {
	get := func(name string) string {
		if i, ok := at[name]; ok && i < len(vals) {
			return strings.TrimSpace(vals[i])
		}
		return ""
	}
	m := &mark{line: n}
	switch l := strings.ToLower(get("label")); l {
	case "":
		return errors.New("field label: not set: expected 0, 1, benign, attack or a family of attacks")
	case "0", "benign", "normal":
		m.class = flowlog.Normal
	case "1", "attack", "malicious":
		m.class, m.family = flowlog.Attack, get("family")
	default:
		m.class, m.family = flowlog.Attack, strings.Clone(get("label"))
	}
	k := "u" + get("uid")
	if _, ok := at["uid"]; !ok {
		var err error
		if k, err = tuple(get); err != nil {
			return err
		}
	}
	if old := t.flows[k]; old != nil && old.class != m.class {
		return fmt.Errorf("field label: %s here and %s in line %d for the same flow: expected one of them", m.class, old.class, old.line)
	}
	t.flows[strings.Clone(k)] = m
	return nil
}

// tuple names a flow by its ends; who began does not matter.
func tuple(get func(string) string) (string, error) {
	var ends [2]netip.AddrPort
	for i, n := range [2][2]string{{"src", "sport"}, {"dst", "dport"}} {
		a, err := netip.ParseAddr(get(n[0]))
		if err != nil {
			return "", fmt.Errorf("field %s: found %.40q: expected an IP address", n[0], get(n[0]))
		}
		p, err := strconv.ParseUint(get(n[1]), 10, 16)
		if err != nil {
			return "", fmt.Errorf("field %s: found %.40q: expected a port from 0 to 65535", n[1], get(n[1]))
		}
		ends[i] = netip.AddrPortFrom(a, uint16(p))
	}
	protos := map[string]uint8{"tcp": flow.TCP, "udp": flow.UDP, "icmp": flow.ICMP, "icmpv6": flow.ICMPv6, "6": flow.TCP, "17": flow.UDP, "1": flow.ICMP}
	p, ok := protos[strings.ToLower(get("proto"))]
	if !ok {
		return "", fmt.Errorf("field proto: found %.40q: expected tcp, udp, icmp or icmpv6", get("proto"))
	}
	k, _ := flow.NewKey(ends[0], ends[1], p)
	return "k" + k.String(), nil
}

// find is the label of a flow by either name.
func (t *Truth) find(uid string, r *flow.Record) *mark {
	if len(t.flows) == 0 {
		return nil
	}
	if m := t.flows["u"+uid]; m != nil && uid != "" {
		return m
	}
	return t.flows["k"+r.Key.String()]
}

// ofLog says what is known of a log's flow: by the operator's labels first, then
// by the log's own, then by what others saw of it.
func (t *Truth) ofLog(_ string, f *flowlog.Flow, r *Report) {
	switch m := t.find(f.UID, &f.Record); {
	case m != nil:
		m.used = true
		r.Class, r.Family, r.Weight = m.class, m.family, weightTruth
		r.Contrary = f.Class != m.class && (f.Class == flowlog.Normal || f.Class == flowlog.Attack)
	case t.Whole != flowlog.Unlabelled:
		r.Class, r.Weight = t.Whole, weightWhole
	case f.Class != flowlog.Unlabelled:
		r.Class, r.Family, r.Weight = f.Class, f.Family, weightLog
	case t.saw(r):
	case f.Meta.Alerts > 0:
		r.Class, r.Family, r.Weight = flowlog.Attack, "ids: "+f.Meta.Alert, weightAlert/3
		if f.Meta.Severity == 1 || f.Meta.Severity == 2 {
			r.Weight = weightAlert - 0.2*float32(f.Meta.Severity-1)
		}
	case f.Meta.Login == flowlog.LoginFailed:
		r.Class, r.Family, r.Weight = flowlog.Attack, "failed login", weightLogin
	}
}

// saw labels a report by what the machines behind saw of its flow.
func (t *Truth) saw(r *Report) bool {
	family, w := t.Evidence.Of(r.Record)
	if w == 0 {
		return false
	}
	r.Class, r.Family, r.Weight = flowlog.Attack, family, w
	return true
}

// ReadEvidence adds logs of logins and bans.
func (t *Truth) ReadEvidence(paths []string, o evidence.Options) (reps []*evidence.Report, err error) {
	for _, p := range paths {
		if t.Evidence == nil {
			t.Evidence = &evidence.Index{}
		}
		rep, err := readEvidence(t.Evidence, p, o)
		if err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
		reps = append(reps, rep)
	}
	return reps, nil
}

func readEvidence(x *evidence.Index, path string, o evidence.Options) (rep *evidence.Report, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var r io.Reader = bufio.NewReader(f)
	if magic, _ := r.(*bufio.Reader).Peek(2); string(magic) == "\x1f\x8b" {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return x.Read(path, r, o)
}

// marks are a capture's packets that the truth calls attacks.
type marks struct {
	t   *Truth
	bad map[flow.Key][]int64
}

func (t *Truth) capture(string) *marks { return &marks{t: t, bad: map[flow.Key][]int64{}} }

// maxMarked bounds the times that are kept of one flow's attack packets.
const maxMarked = 4096

func (m *marks) packet(i int64, p intake.Packet) {
	if i >= int64(len(m.t.packet)) || !m.t.packet[i] {
		return
	}
	if k, ok := softplane.KeyOf(p.Link, p.Data); ok && len(m.bad[k]) < maxMarked {
		m.bad[k] = append(m.bad[k], p.At.UnixNano())
	}
}

// of labels a report of a capture's flow, as far as it got.
func (m *marks) of(r *Report) {
	switch k := m.t.find("", r.Record); {
	case k != nil:
		k.used = true
		r.Class, r.Family, r.Weight = k.class, k.family, weightTruth
	case m.t.Whole != flowlog.Unlabelled:
		r.Class, r.Weight = m.t.Whole, weightWhole
	case len(m.t.packet) > 0:
		r.Class, r.Weight = flowlog.Normal, weightTruth
		for _, at := range m.bad[r.Record.Key] {
			if at >= r.Record.Start && at <= r.Record.Last {
				r.Class = flowlog.Attack
			}
		}
	default:
		m.t.saw(r)
	}
}

// Unused are the labels that named no flow, the first few with their lines.
func (t *Truth) Unused() (n int, first []string) {
	var lost []*mark
	for _, m := range t.flows {
		if !m.used {
			lost = append(lost, m)
		}
	}
	slices.SortFunc(lost, func(a, b *mark) int { return a.line - b.line })
	for _, m := range lost[:min(3, len(lost))] {
		first = append(first, fmt.Sprintf("%s: line %d: names a flow that is not in the data: expected one of its flows", t.path, m.line))
	}
	return len(lost), first
}
