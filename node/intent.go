package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

const (
	// repairEvery is how often what is enforced is compared with what is intended.
	repairEvery = 10 * time.Second
	// blur is how far an expiry may be off, and how close to its end a rule is no
	// longer compared: the kernel and the site do not look at one clock.
	blur = 2 * time.Second
)

// mismatch is what is wrong with the rules that a plane enforces.
type mismatch struct {
	intended, enforced int
	missing, changed   []dataplane.Rule // as intended
	extra              []dataplane.Rule // as enforced
}

// compare tells enforced rules from intended ones.
func compare(intended []dataplane.Rule, enforced []dataplane.Hit, now time.Time) mismatch {
	var d mismatch
	want := make(map[dataplane.Target]dataplane.Rule, len(intended))
	for _, r := range intended {
		if r.Expires.Sub(now) > blur {
			want[r.Target] = r
		}
	}
	d.intended = len(want)
	seen := make(map[dataplane.Target]bool, len(want))
	for _, h := range enforced {
		r, known := want[h.Rule.Target]
		switch {
		case !known && h.Rule.Expires.Sub(now) <= blur:
			continue
		case !known && !slices.ContainsFunc(intended, func(x dataplane.Rule) bool { return x.Target == h.Rule.Target }):
			d.extra = append(d.extra, h.Rule)
		case known && differs(r, h.Rule):
			d.changed = append(d.changed, r)
		}
		d.enforced++
		seen[h.Rule.Target] = true
	}
	for t, r := range want {
		if !seen[t] {
			d.missing = append(d.missing, r)
		}
	}
	return d
}

func differs(want, got dataplane.Rule) bool {
	return want.Action != got.Action || want.Reason != got.Reason || want.Rate != got.Rate ||
		want.Expires.Sub(got.Expires).Abs() > blur
}

// mismatch reads back what is enforced. The caller holds n.mu, so that nothing
// is decided in between.
func (n *Node) mismatch() (mismatch, error) {
	hits, err := n.o.Plane.Rules()
	if err != nil {
		return mismatch{}, err
	}
	now := n.now()
	intended := n.machine.Intended(now)
	for t, r := range n.inherited {
		if r.Expires.After(now) {
			intended = append(intended, r)
		} else {
			delete(n.inherited, t)
		}
	}
	return compare(intended, hits, now), nil
}

// inherit keeps the suspensions that an earlier process left in the plane: they
// are not written down, and end by themselves.
func (n *Node) inherit() error {
	hits, err := n.o.Plane.Rules()
	if err != nil {
		return fmt.Errorf("node: plane: %v", err)
	}
	n.inherited = map[dataplane.Target]dataplane.Rule{}
	for _, h := range hits {
		if h.Rule.Target.IsFlow() {
			n.inherited[h.Rule.Target] = h.Rule
		}
	}
	return nil
}

// repair puts right what somebody else changed in the plane, and tells.
func (n *Node) repair() {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, err := n.mismatch()
	if err != nil {
		n.log.Error("what is enforced was not read back", telemetry.KeyErr, err)
		return
	}
	n.repairLists()
	if len(d.missing)+len(d.extra)+len(d.changed) == 0 {
		return
	}
	// The mode is set anew because with it go the switches of all tables.
	fails := []error{n.o.Plane.SetMode(n.machine.Mode())}
	for _, r := range append(d.missing, d.changed...) {
		fails = append(fails, n.o.Plane.Apply(r))
	}
	for _, r := range d.extra {
		fails = append(fails, n.o.Plane.Remove(r.Target))
	}
	failed, why := 0, error(nil)
	for _, err := range fails {
		if err != nil {
			failed, why = failed+1, err
		}
	}
	n.log.Warn("somebody else changed what is enforced: put right", "missing", len(d.missing), "changed", len(d.changed),
		"extra", len(d.extra), "failed", failed, telemetry.KeyErr, why)
	if n.o.Metrics != nil {
		n.o.Metrics.Repaired.WithLabelValues("missing").Add(float64(len(d.missing)))
		n.o.Metrics.Repaired.WithLabelValues("changed").Add(float64(len(d.changed)))
		n.o.Metrics.Repaired.WithLabelValues("extra").Add(float64(len(d.extra)))
	}
}

// lists are what the plane should spare and hold floods to. The caller holds n.mu.
func (n *Node) lists() (dataplane.Lists, error) {
	never, err := n.spared()
	return dataplane.Lists{Never: never, Remediation: n.o.Policy.Remediation, Flood: n.o.Flood}, err
}

// audit reads the plane's lists back; nothing from a plane that cannot. The caller
// holds n.mu.
func (n *Node) audit() ([]dataplane.ListState, error) {
	p, ok := n.o.Plane.(dataplane.Auditor)
	if !ok {
		return nil, nil
	}
	want, err := n.lists()
	if err != nil {
		return nil, err
	}
	return p.Audit(want)
}

// Lists are what is spared and what floods are held to, intended against enforced.
func (n *Node) Lists() ([]dataplane.ListState, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.audit()
}

// repairLists puts right what is spared and what floods are held to, and whether
// DNS answers are shown, which cannot be read back. The caller holds n.mu.
func (n *Node) repairLists() {
	fails := []error{n.watchNames()}
	found, err := n.audit()
	wrong := slices.DeleteFunc(found, func(s dataplane.ListState) bool { return s.Fits() })
	_, reads := n.o.Plane.(dataplane.Auditor)
	if err != nil || len(wrong) > 0 || !reads {
		fails = append(fails, err, n.setNever(), n.o.Plane.SetRemediation(n.o.Policy.Remediation), n.setFlood(&n.o.Flood))
	}
	for _, s := range wrong {
		n.log.Warn("somebody else changed a list of the packet path: put right", "list", s.List,
			"missing", s.Missing, "changed", s.Changed, "extra", s.Extra)
		if n.o.Metrics != nil {
			n.o.Metrics.Repaired.WithLabelValues("list").Inc()
		}
	}
	if err := errors.Join(fails...); err != nil {
		n.log.Error("lists of the plane were not put right", telemetry.KeyErr, err)
	}
}

// repairer compares and repairs until ctx ends.
func (n *Node) repairer(ctx context.Context) error {
	regularly(ctx, repairEvery, n.repair)
	return nil
}

// regularly calls f at each tick until ctx ends.
func regularly(ctx context.Context, tick time.Duration, f func()) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}

// Verify says whether what is intended is enforced, and nothing else.
func (n *Node) Verify(context.Context) (api.Difference, error) {
	n.mu.Lock()
	d, err := n.mismatch()
	lists, errLists := n.audit()
	n.mu.Unlock()
	if err := errors.Join(err, errLists); err != nil {
		return api.Difference{}, err
	}
	return api.Difference{
		Intended: d.intended, Enforced: d.enforced, Lists: lists,
		Missing: ruleWords(d.missing), Extra: ruleWords(d.extra), Changed: ruleWords(d.changed),
	}, nil
}

func ruleWords(rs []dataplane.Rule) []string {
	out := make([]string, 0, len(rs))
	for _, r := range rs {
		out = append(out, r.Action.String()+" of "+r.Target.String())
	}
	slices.Sort(out)
	return out
}

// Order is a rule that the operator asks for by hand.
func (n *Node) Order(_ context.Context, o api.Order) error {
	switch {
	case strings.HasPrefix(o.Target, fingerprintPrefix):
		return n.shareFingerprint(o)
	case strings.HasPrefix(o.Target, behaviourPrefix):
		return n.shareBehaviour(o)
	}
	t, err := enforce.ParseTarget(o.Target)
	if err != nil && o.Share && looksLikeDomain(o.Target) {
		return n.shareDomain(o)
	}
	if err != nil {
		return forAPI(err)
	}
	a, err := enforce.ParseAction(o.Action)
	if err != nil {
		return forAPI(err)
	}
	order := enforce.Order{
		Target: t, Action: a, For: time.Duration(o.Seconds * float64(time.Second)), Rate: o.Rate, Reason: o.Reason, Share: o.Share,
	}
	if o.Share {
		if err := n.mayShare(&order); err != nil {
			return forAPI(err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fx, err := n.machine.Order(n.now(), order)
	if err != nil {
		return forAPI(err)
	}
	n.act(fx)
	return nil
}

// SetSystem replaces what the machine itself says: the never-block entries that
// follow from it and its own addresses. The operator's and the configured
// entries stay. What now stands against an own address is lifted.
func (n *Node) SetSystem(never []dataplane.Never, own []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(never, n.o.Never) && slices.Equal(own, n.o.Own) {
		return nil
	}
	oldNever, oldOwn := n.o.Never, n.o.Own
	n.o.Never, n.o.Own = never, own
	if err := n.setNever(); err != nil {
		n.o.Never, n.o.Own = oldNever, oldOwn
		return fmt.Errorf("never-block list of the system: %v: the old one stays", err)
	}
	n.act(n.machine.LiftIf(n.now(), n.notOwn))
	came, went := changes(oldNever, never)
	n.log.Info("never-block list follows the system", "came", came, "went", went)
	return nil
}

// changes are the entries that only the one or the other list has, in words.
func changes(before, after []dataplane.Never) (came, went []string) {
	for _, e := range after {
		if !slices.Contains(before, e) {
			came = append(came, neverWords(e))
		}
	}
	for _, e := range before {
		if !slices.Contains(after, e) {
			went = append(went, neverWords(e))
		}
	}
	return came, went
}

// inside says whether an address is on the protected side.
func (n *Node) inside(a netip.Addr) bool {
	if len(n.o.Inside) == 0 {
		return a.IsPrivate()
	}
	return slices.ContainsFunc(n.o.Inside, func(p netip.Prefix) bool { return p.Contains(a) })
}
