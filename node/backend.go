package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

var (
	errInvalid  = api.ErrInvalid
	errNotFound = api.ErrNotFound

	_ api.Backend = (*Node)(nil)
)

// translate turns the store's "not found" into the one that federation tests for.
func translate(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return federation.ErrNotFound
	}
	return err
}

// forAPI turns an error of the machine into one that the control socket names
// correctly.
func forAPI(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, enforce.ErrUnknown), errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%v: %w", err, errNotFound)
	}
	return fmt.Errorf("%v: %w", err, errInvalid)
}

// Status is the site at a glance.
func (n *Node) Status(context.Context) (api.Status, error) {
	st, err := n.o.Plane.Stats()
	if err != nil {
		return api.Status{}, err
	}
	n.mu.Lock()
	mode, panicked, open := n.machine.Mode(), n.machine.Panicked(), n.machine.Open()
	blocks, settled, alpha := len(n.machine.Standing()), n.sensor.Settled(), n.machine.Alpha()
	drifted := n.drifts.last
	kernel, alone := n.pupil.view(), n.alone(n.now())
	report := n.truth.account.Report(n.now(), n.askedFor())
	lists, err := n.audit()
	waiting, floods := n.reloadWarnings(), n.floods.open(n.now(), &n.o.Flood)
	n.mu.Unlock()
	if err != nil {
		return api.Status{}, err
	}
	p := n.learn.progress(settled)
	s := api.Status{
		Site: n.o.Site, Version: n.o.Version, Started: n.started, Uptime: n.now().Sub(n.started),
		Mode: mode.String(), Panic: panicked, Open: open, Blocks: blocks, Warnings: n.o.Warnings, Floods: floods, Lists: lists,
		Plane: api.PlaneStatus{Attach: st.AttachMode, Interface: n.o.Interface, Away: n.o.Away, Stats: st},
		Learning: api.Learning{
			Enabled: p.enabled, Seen: p.seen, Needed: p.needed, Judging: p.judging, WaitS: p.wait.Seconds(),
			Model: p.model, Shared: p.shared, TrainedAt: p.trainedAt, Alpha: alpha, Words: n.learn.words(&p), Budget: report, Drift: drifted, Quality: n.learn.quality(), Kernel: kernel, Alone: alone,
		},
	}
	s.Learning.Benefit, s.Learning.BenefitWords = n.benefit()
	s.Privacy = n.discreet.view()
	fs, err := n.feeds.view()
	if err != nil {
		return api.Status{}, err
	}
	s.Feeds = fs.FeedsSummary
	s.Warnings = slices.Concat(s.Warnings, waiting, fs.Warnings())
	ss := n.o.Store.Stats()
	s.Store = api.StoreStatus{Dir: n.o.Store.Dir(), Bytes: ss.DiskBytes, Events: int64(ss.Events), Flows: int64(ss.Flows)}
	if ss.Missing.Any() {
		s.Warnings = append(s.Warnings, ss.Missing.String())
	}
	s.Mesh.ID = string(n.o.Key.ID())
	if n.member != nil {
		ms := n.member.Status()
		s.Mesh.Enabled, s.Mesh.Preset, s.Mesh.Round, s.Mesh.Adopted = true, ms.Preset, ms.Round, p.adopted
		for _, x := range n.member.Peers() {
			if x.Info.Connected {
				s.Mesh.Connected = append(s.Mesh.Connected, x.Site)
			}
		}
		s.Mesh.Counted, s.Mesh.Height = ms.Counted, ms.Height
		if ms.Fork != "" {
			s.Warnings = append(s.Warnings, ms.Fork+": no model of rounds is adopted here (`hedgerow federation resume` goes on, once the members' chains were compared)")
		}
		for _, p := range n.o.Mesh.Transport.Peers() {
			if p.Organisation != "" && p.Connected {
				s.Mesh.Connected = append(s.Mesh.Connected, p.Organisation+"/"+p.Name)
			}
		}
		if n.o.Mesh.Addrs != nil {
			s.Mesh.Addrs = n.o.Mesh.Addrs()
		}
	}
	return s, nil
}

// Events lists records, the newest first.
func (n *Node) Events(ctx context.Context, q api.Query) ([]*event.Event, error) {
	n.settle(ctx)
	es, err := n.o.Store.Events(store.Query{Kinds: q.Kinds, Since: q.Since, Limit: q.Limit, Reverse: true})
	if es == nil {
		es = []*event.Event{}
	}
	return es, err
}

// Follow streams records; the channel closes when ctx ends, and early when the
// reader was so slow that records were lost to it.
func (n *Node) Follow(ctx context.Context, q api.Query) (<-chan *event.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	in := n.o.Store.Follow(ctx, q.Kinds, q.Since)
	out := make(chan *event.Event)
	go func() {
		defer close(out)
		defer cancel()
		for t := range in {
			if t.Lost > 0 {
				return
			}
			if t.Event == nil {
				continue
			}
			select {
			case out <- t.Event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// Explain gathers everything that is known of an alert, incident or blocked target.
func (n *Node) Explain(ctx context.Context, id string) (*api.Explanation, error) {
	n.settle(ctx)
	incident, target, reason := n.resolve(id)
	listing := n.listed(id)
	undo := ""
	if incident == "" && target == "" && listing != nil {
		target, reason, undo = listing.Address, listing.Sentence, "hedgerow allow "+listing.Address
	}
	if e := n.flood(id); e != nil {
		return &api.Explanation{ID: e.ID, Sentence: e.Flood.Sentence, Alerts: []*event.Event{}, Chain: []*event.Event{}, Flood: e}, nil
	}
	if incident == "" && target == "" {
		return nil, fmt.Errorf("no alert, incident, flood or block is called %q: `hedgerow alerts` and `hedgerow blocks` list them: %w", id, errNotFound)
	}
	es, err := n.o.Store.Events(store.Query{
		Kinds: []event.Kind{event.KindAlert, event.KindIncident, event.KindVerdict, event.KindBlock, event.KindIndicator},
		Limit: 20000, Reverse: true,
	})
	if err != nil {
		return nil, err
	}
	sort.SliceStable(es, func(i, j int) bool { return es[i].Time.Before(es[j].Time) })
	x := &api.Explanation{ID: id, Sentence: reason, Alerts: []*event.Event{}, Chain: []*event.Event{}, Feeds: listing}
	for _, e := range es {
		n.gather(x, e, incident, target)
	}
	switch {
	case x.Incident != nil:
		x.Sentence = x.Incident.Incident.Cause + ": " + x.Incident.Incident.Sentence
		x.Undo = "hedgerow dismiss " + incident
	case undo != "":
		x.Undo = undo
	case target != "":
		x.Undo = fmt.Sprintf("hedgerow unblock '%s'", target)
	}
	return x, nil
}

// resolve finds the incident, or the blocked target with its reason, that an id
// names.
func (n *Node) resolve(id string) (incident, target, reason string) {
	n.mu.Lock()
	incident = n.machine.IncidentOf(id)
	standing := n.machine.Standing()
	n.mu.Unlock()
	if incident != "" {
		return incident, "", ""
	}
	if name := nameOf(id); name != "" {
		for _, b := range standing {
			if b.Target == name {
				return b.Incident, b.Target, b.Target + ": " + b.Reason
			}
		}
	}
	e, err := n.o.Store.Event(id)
	if err != nil {
		return "", "", ""
	}
	switch {
	case e.Alert != nil:
		return e.Alert.Incident, "", ""
	case e.Incident != nil:
		return e.ID, "", ""
	case e.Block != nil:
		return e.Block.Incident, e.Block.Target, e.Block.Target + ": " + e.Block.Reason
	case e.Verdict != nil:
		return e.Verdict.Incident, e.Verdict.Target, e.Verdict.Target + ": " + e.Verdict.Sentence
	}
	return "", "", ""
}

func (n *Node) gather(x *api.Explanation, e *event.Event, incident, target string) {
	switch {
	case e.Alert != nil && incident != "" && e.Alert.Incident == incident:
		if len(x.Alerts) < 20 {
			x.Alerts = append(x.Alerts, e)
		}
	case e.Incident != nil && incident != "" && e.ID == incident:
		x.Incident = e
	case e.Verdict != nil && (incident != "" && e.Verdict.Incident == incident || target != "" && e.Verdict.Target == target),
		e.Block != nil && (incident != "" && e.Block.Incident == incident || target != "" && (e.Block.Target == target || e.Block.Domain == target)):
		x.Chain = append(x.Chain, e)
	case e.Indicator != nil && target != "" && sameTarget(e.Indicator.Value, target):
		x.Chain = append(x.Chain, e)
	}
}

func sameTarget(value, target string) bool {
	t, err := enforce.ParseTarget(value)
	return err == nil && t.String() == target
}

// Label confirms or dismisses.
func (n *Node) Label(_ context.Context, id string, attack bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var fx []enforce.Effect
	var err error
	if attack {
		fx, err = n.machine.Confirm(n.now(), id)
	} else {
		fx, err = n.machine.Dismiss(n.now(), id)
	}
	if err != nil {
		return forAPI(err)
	}
	n.act(fx)
	state := "confirmed"
	if !attack {
		state = "dismissed"
	}
	for _, a := range n.machine.AlertsOf(id) {
		n.outbox.put(job{label: &labelJob{a, store.Label{State: state, By: "operator", At: n.now()}}})
	}
	return nil
}

// Blocks lists standing rules beside what the plane itself says.
func (n *Node) Blocks(context.Context) ([]api.Block, error) {
	hits, err := n.o.Plane.Rules()
	if err != nil {
		return nil, err
	}
	by := map[string]dataplane.Hit{}
	for _, h := range hits {
		by[h.Rule.Target.String()] = h
	}
	n.mu.Lock()
	standing, watching := n.machine.Standing(), n.watching
	n.mu.Unlock()
	out := make([]api.Block, 0, len(standing))
	domains := map[string]int{} // where in out they are
	for _, b := range standing {
		if _, err := enforce.ParseTarget(b.Target); err != nil {
			domains[b.Target] = len(out)
			out = append(out, api.Block{Block: b, Enforced: watching})
			continue
		}
		h, ok := by[b.Target]
		b.Hits = h.Packets
		if i, known := domains[b.Domain]; known {
			out[i].Hits += h.Packets
		}
		out = append(out, api.Block{Block: b, Enforced: ok})
	}
	return out, nil
}

// Block is the operator's own.
func (n *Node) Block(ctx context.Context, target string, d time.Duration, reason string) error {
	t, err := enforce.ParseTarget(target)
	if err != nil && looksLikeDomain(target) {
		return n.blockDomain(ctx, target, d, reason)
	}
	if err != nil {
		return forAPI(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fx, err := n.machine.Block(n.now(), t, d, reason)
	if err != nil {
		return forAPI(err)
	}
	n.act(fx)
	return nil
}

// Unblock undoes whatever blocks a target.
func (n *Node) Unblock(_ context.Context, target string) error {
	if isMark(target) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.forgetMark(target)
		return nil
	}
	t, err := enforce.ParseTarget(target)
	if err != nil && looksLikeDomain(target) {
		return n.unblockDomain(target)
	}
	if err != nil {
		return forAPI(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fx, err := n.machine.Unblock(n.now(), t)
	if err != nil {
		return forAPI(err)
	}
	n.act(fx)
	return nil
}

// SetMode switches between monitor and enforce.
func (n *Node) SetMode(_ context.Context, mode string) error {
	m := dataplane.Monitor
	switch mode {
	case "monitor":
	case "enforce":
		m = dataplane.Enforce
	default:
		return fmt.Errorf("mode %q: expected monitor or enforce: %w", mode, errInvalid)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.o.Plane.SetMode(m); err != nil {
		return forAPI(err)
	}
	n.act(n.machine.SetMode(n.now(), m))
	n.outbox.put(job{save: &kv{keyMode, []byte(mode)}})
	return nil
}

// Stop ends the daemon.
func (n *Node) Stop(_ context.Context, remove bool) error {
	if n.o.Stop == nil {
		return fmt.Errorf("this site is not stopped by command: %w", errInvalid)
	}
	n.o.Stop(remove)
	return nil
}

// Panic lifts every learned and shared verdict, or ends that state.
func (n *Node) Panic(_ context.Context, on bool) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fx := n.machine.Panic(n.now(), on)
	lifted := 0
	for _, f := range fx {
		if f.Remove != nil {
			lifted++
		}
	}
	n.act(fx)
	state := "off"
	if on {
		state = "on"
		n.pupil.lift()
	} else {
		n.pupil.poke()
	}
	n.outbox.put(job{save: &kv{keyPanic, []byte(state)}})
	return lifted, nil
}

const (
	keyMode  = "node/mode"
	keyPanic = "node/panic"
)

// Allow changes the operator's never-block list and returns all of it, the
// system's own entries included. An empty entry only lists.
func (n *Node) Allow(_ context.Context, entry string, remove bool) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if entry != "" {
		if _, err := config.ParseNever(entry); err != nil {
			return nil, fmt.Errorf("%v: %w", err, errInvalid)
		}
		list := make([]string, 0, len(n.allowed)+1)
		for _, a := range n.allowed {
			if a != entry {
				list = append(list, a)
			}
		}
		if !remove {
			list = append(list, entry)
		} else if len(list) == len(n.allowed) {
			return nil, fmt.Errorf("%q is not on the operator's list: %w", entry, errNotFound)
		}
		old := n.allowed
		n.allowed = list
		if err := n.setNever(); err != nil {
			n.allowed = old
			return nil, fmt.Errorf("%v: %w", err, errInvalid)
		}
		b, _ := json.Marshal(list) // strings
		n.outbox.put(job{save: &kv{keyAllowed, b}})
	}
	out := append([]string(nil), n.allowed...)
	for _, e := range n.o.Spared {
		out = append(out, neverWords(e)+"  (configuration)")
	}
	for _, e := range n.o.Never {
		out = append(out, neverWords(e)+"  (system)")
	}
	return out, nil
}

func neverWords(e dataplane.Never) string {
	s := e.Prefix.String()
	if e.Prefix.IsSingleIP() {
		s = e.Prefix.Addr().String()
	}
	if e.Proto != 0 || e.Port != 0 {
		s += " " + strings.TrimPrefix(dataplane.Target{Prefix: e.Prefix, Port: e.Port, Proto: e.Proto}.String(), e.Prefix.Addr().String()+":")
	}
	return s
}

func (n *Node) loadAllowed() error {
	b, err := n.o.Store.Load(keyAllowed)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, &n.allowed)
}

// spared is the whole never-block list: the system's, the configuration's and the
// operator's.
func (n *Node) spared() ([]dataplane.Never, error) {
	all := slices.Concat(n.o.Never, n.o.Spared)
	for _, a := range n.allowed {
		e, err := config.ParseNever(a)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// setNever hands the never-block list to the plane and the guard.
func (n *Node) setNever() error {
	all, err := n.spared()
	if err != nil {
		return err
	}
	if err := n.guard.SetNever(all); err != nil {
		return err
	}
	if err := n.o.Plane.SetNever(all); err != nil {
		return err
	}
	n.feeds.protect(all, n.o.Own)
	n.spareFromOthers(all)
	return nil
}

// Peers lists the other sites: our organisation's, and those of a consortium.
func (n *Node) Peers(context.Context) ([]api.Peer, error) {
	out := []api.Peer{}
	if n.member == nil {
		return out, nil
	}
	for _, p := range n.member.Peers() {
		x := apiPeer(p.Info)
		x.Name, x.ID, x.LastHeard = p.Site, string(p.ID), p.LastSeen
		x.Words = fmt.Sprintf("model of round %d, %d messages refused", p.Round, p.Refused)
		if !p.LastSeen.IsZero() {
			x.Words += fmt.Sprintf(", last heard %s ago", n.now().Sub(p.LastSeen).Round(time.Second))
		}
		out = append(out, lastWords(x, p.Info))
	}
	weighs := n.member.Standings()
	for _, p := range n.o.Mesh.Transport.Peers() {
		if p.Organisation != "" {
			x := apiPeer(p)
			x.Words = "of " + p.Organisation
			if w, ok := weighs[p.Organisation]; ok {
				x.Weight = w
				x.Words += fmt.Sprintf(", whose word weighs %.2f", w)
			}
			out = append(out, lastWords(x, p))
		}
	}
	return out, nil
}

func apiPeer(p federation.PeerInfo) api.Peer {
	return api.Peer{
		Name: p.Name, ID: string(p.ID), Connected: p.Connected, LatencyMS: float64(p.RTT) / 1e6,
		Organisation: p.Organisation, Standing: cmp.Or(p.Standing, "own organisation"), Score: p.Score, Relayed: p.Relayed,
	}
}

// lastWords adds why a site is not there.
func lastWords(x api.Peer, p federation.PeerInfo) api.Peer {
	if !p.Connected && p.Why != "" {
		x.Words += "; " + p.Why
	}
	return x
}
