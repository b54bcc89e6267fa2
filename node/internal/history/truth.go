package history

import (
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
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
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
	// Refused are lines of the file that could not be used, the first of them in
	// words with file, line and field. The others count.
	Refused int
	Faults  []string
	// Evidence is what the machines behind said of those who came; nil for none.
	Evidence *evidence.Index
}

// mark is one label. Of a flow that two lines label otherwise there is none to use.
type mark struct {
	line     int
	class    flowlog.Class
	family   string
	used     bool
	disputed bool
}

// A file of labels of which more than a hundredth, and more than a few, cannot be
// used is not what it was taken for.
const (
	fewRefused  = 20
	toldRefused = 3
)

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
	l, err := lines.Open(s, maxLabelLine)
	if err != nil {
		return t, fmt.Errorf("ground truth: %w (expected a file of labels, or the word attack or benign)", err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	head, _, _ := strings.Cut(string(l.Head()), "\n")
	if !hasColumns(head) {
		p, err := intake.ReadPacketTruth(s)
		if err != nil {
			return t, fmt.Errorf("ground truth: %w, or a table with the columns uid,label or src,sport,dst,dport,proto,label", err)
		}
		return Truth{packet: p, path: s, Labels: len(p)}, nil
	}
	return readTable(l)
}

// maxLabelLine is the longest line of a file of labels, in bytes.
const maxLabelLine = 64 << 10

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

// readTable reads a table of labels. What cannot be used is left out and named, unless
// it is so much that nothing else can be believed.
func readTable(l *lines.Reader) (Truth, error) {
	t := Truth{flows: map[string]*mark{}, path: l.Path()}
	var at map[string]int
	for {
		b, whole, long, err := l.Next()
		if errors.Is(err, io.EOF) {
			return t, t.judge()
		}
		if err != nil {
			return t, fmt.Errorf("ground truth %s: after line %d: %w", t.path, l.N(), err)
		}
		switch text := strings.TrimSpace(string(b)); {
		case text == "":
		case long:
			t.refuse(l.N(), fmt.Errorf("expected at most %d bytes", maxLabelLine))
		case at == nil:
			at = header(text)
		case !whole:
			t.refuse(l.N(), errors.New("expected "+lines.WantEnd))
		case t.Labels >= maxLabels:
			return t, fmt.Errorf("ground truth %s: line %d: more than %d labels", t.path, l.N(), maxLabels)
		default:
			if err := t.row(l.N(), at, strings.Split(text, ",")); err != nil {
				t.refuse(l.N(), err)
				continue
			}
			t.Labels++
		}
	}
}

func (t *Truth) refuse(line int, why error) {
	if t.Refused++; len(t.Faults) < toldRefused {
		t.Faults = append(t.Faults, fmt.Sprintf("%s: line %d: %v", t.path, line, why))
	}
}

// judge says whether what is left can be believed.
func (t *Truth) judge() error {
	left := 0
	for _, m := range t.flows {
		if !m.disputed {
			left++
		}
	}
	if t.Refused > 0 && (left == 0 || t.Refused > fewRefused && t.Refused*100 > t.Refused+t.Labels) {
		return fmt.Errorf("ground truth %s: %d of %d labels cannot be used, first: %s", t.path, t.Refused, t.Refused+t.Labels, t.Faults[0])
	}
	return nil
}

// Strict is an error where a label was left out.
func (t *Truth) Strict() error {
	if t.Refused == 0 {
		return nil
	}
	return fmt.Errorf("ground truth %s: %d labels cannot be used, first: %s", t.path, t.Refused, t.Faults[0])
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
	if old := t.flows[k]; old != nil && (old.disputed || old.class != m.class) {
		old.disputed = true
		return fmt.Errorf("field label: %s here and %s in line %d for the same flow: expected one of them, neither is used", m.class, old.class, old.line)
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
	m := t.flows["u"+uid]
	if m == nil || uid == "" {
		m = t.flows["k"+r.Key.String()]
	}
	if m != nil && m.disputed {
		return nil
	}
	return m
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
	return x.Read(path, f, o)
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
		if !m.used && !m.disputed {
			lost = append(lost, m)
		}
	}
	slices.SortFunc(lost, func(a, b *mark) int { return a.line - b.line })
	for _, m := range lost[:min(3, len(lost))] {
		first = append(first, fmt.Sprintf("%s: line %d: names a flow that is not in the data: expected one of its flows", t.path, m.line))
	}
	return len(lost), first
}
