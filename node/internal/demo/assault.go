package demo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// assault is one attack as the story expects it.
type assault struct {
	attack   scenario.Attack
	site     *scenario.Site
	addr     netip.Addr // the hostile address outside
	sessions []scenario.Timed
	turns    []scenario.Timed // what it tries at other sites once it is blocked
	learned  bool             // only the learner can see it
	detector string           // which detector must have seen it; "" any that fits
	within   int              // sessions until the block at most; 0 any
	confirm  bool             // the operator confirms the alert
}

// hurry is a follow-up's patience: long enough for a lost first packet to be
// sent again, so that one drop alone does not look like a wall.
const hurry = 1300 * time.Millisecond

func (t *teller) scanAt(site *scenario.Site, others ...*scenario.Site) assault {
	sc := t.o.Scenario
	a := assault{attack: scenario.Scan, site: site, addr: sc.Scanner, sessions: sc.ScanOf(site)}
	for _, o := range others {
		turn := sc.ScanOf(o)
		a.turns = append(a.turns, hasty(turn[max(0, len(turn)-9):], 9, 30*time.Millisecond, hurry)...)
	}
	return a
}

func (t *teller) guessAt(site *scenario.Site, others ...*scenario.Site) assault {
	sc := t.o.Scenario
	a := assault{attack: scenario.Brute, site: site, addr: sc.Guesser, sessions: sc.BruteOf(site)}
	for _, o := range others {
		a.turns = append(a.turns, hasty(sc.BruteOf(o), 5, 50*time.Millisecond, hurry)...)
	}
	return a
}

// beaconAt leaks from a host of a site; afterwards a host of another site
// tries the same master.
func (t *teller) beaconAt(site, other *scenario.Site, master netip.Addr) assault {
	sc := t.o.Scenario
	return assault{
		attack: scenario.Beacon, site: site, addr: master, learned: true, confirm: true,
		sessions: sc.BeaconOf(site, site.Hosts[3].Addr, master),
		turns:    hasty(sc.BeaconOf(other, other.Hosts[3].Addr, master), 4, 50*time.Millisecond, hurry),
	}
}

// spurtAt is the one alert on which no operator has a word: what the rounds carry to
// cedar is then the knowledge of one behaviour, and the last step shows just that.
func (t *teller) spurtAt(site, other *scenario.Site) assault {
	sc := t.o.Scenario
	return assault{
		attack: scenario.Spurt, site: site, addr: sc.Sink, learned: true,
		sessions: sc.SpurtOf(site, site.Hosts[1].Addr),
		turns:    hasty(sc.SpurtOf(other, other.Hosts[1].Addr), 3, 50*time.Millisecond, hurry),
	}
}

// catch is the step in which an attack is detected, stopped, told to the mesh,
// and finds the other sites closed.
func (t *teller) catch(a assault) func(context.Context) error {
	return func(ctx context.Context) error {
		from := t.journal.mark()
		attack, end := context.WithCancel(ctx)
		results := make(chan []scenario.Result, 1)
		go func() { results <- play(attack, t.o.Network, a.sessions) }()
		c, alert, err := t.stopped(ctx, a, from)
		end()
		done := <-results
		if err != nil {
			return fmt.Errorf("%s at %s from %s: %w", a.attack, a.site.Name, a.addr, err)
		}
		c.Flows = begunBy(done, time.Unix(0, c.blockedNS))
		if a.within > 0 && c.Flows > a.within {
			return fmt.Errorf("%s at %s from %s: blocked with session %d: expected by session %d", a.attack, a.site.Name, a.addr, c.Flows, a.within)
		}
		if err := t.closed(ctx, a, c); err != nil {
			return err
		}
		t.report.Caught = append(t.report.Caught, *c)
		if !a.confirm {
			return nil
		}
		if err := t.site(a.site.Name).Confirm(ctx, alert.ID); err != nil {
			return fmt.Errorf("confirm alert %s at %s: %w", alert.ID, a.site.Name, err)
		}
		t.voice.say(a.site.Name, "the operator confirms alert "+alert.ID)
		return nil
	}
}

// stopped waits for the alert, the block, the first dropped packet, and the
// other sites' enforcement.
func (t *teller) stopped(ctx context.Context, a assault, from int) (*Caught, *event.Event, error) {
	alert, err := t.journal.wait(ctx, from, 25*time.Second, "alert", a.alerted)
	if err != nil {
		return nil, nil, err
	}
	by := alert.Alert.Detector
	if a.learned && (strings.HasPrefix(by, "rule:") || strings.HasPrefix(by, "limit:")) || a.detector != "" && by != a.detector {
		return nil, nil, fmt.Errorf("caught by %s: expected %s", by, orWords(a.detector, "the learner"))
	}
	block, err := t.journal.wait(ctx, from, 30*time.Second, "block in force", a.verdict("block"))
	if err != nil {
		return nil, nil, err
	}
	first, err := t.journal.wait(ctx, from, time.Second, "first rule in force", a.verdict("rate-limit", "suspend", "block"))
	if err != nil {
		return nil, nil, err
	}
	c := &Caught{
		Attack: string(a.attack), Site: a.site.Name, Address: a.addr.String(), Detector: by,
		FirstRule: since(first.Verdict.DetectedNS, first.Verdict.EnforcedNS),
		Blocked:   since(block.Verdict.DetectedNS, block.Verdict.EnforcedNS),
		Elsewhere: map[string]time.Duration{}, blockedNS: block.Verdict.EnforcedNS,
	}
	for _, other := range t.o.Sites {
		if other.Name() == a.site.Name {
			continue
		}
		e, err := t.journal.wait(ctx, from, 5*time.Second, "enforced at "+other.Name(), a.enforcedAt(other.Name()))
		if err != nil {
			return nil, nil, err
		}
		c.Elsewhere[other.Name()] = since(block.Verdict.EnforcedNS, e.Indicator.DoneNS)
	}
	drop, err := t.journal.wait(ctx, from, 10*time.Second, "first packet dropped", a.dropped)
	if err != nil {
		return nil, nil, err
	}
	c.FirstDrop = since(first.Verdict.DetectedNS, drop.Verdict.FirstDropNS)
	return c, alert, nil
}

// closed lets the attacker turn to the other sites, where nothing of it may
// get through.
func (t *teller) closed(ctx context.Context, a assault, c *Caught) error {
	for _, r := range play(ctx, t.o.Network, a.turns) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Tried++
		if r.Answered {
			c.Through++
		}
	}
	t.voice.say("", fmt.Sprintf("%s turns to the other sites: %d of %d connections get through", a.addr, c.Through, c.Tried))
	if c.Through > 0 {
		return fmt.Errorf("%s: %d of %d connections got through at sites that had the block", a.addr, c.Through, c.Tried)
	}
	return nil
}

// miss is the step in which an attack goes through unseen.
func (t *teller) miss(a assault, n int, why string) func(context.Context) error {
	return func(ctx context.Context) error {
		from := t.journal.mark()
		results := play(ctx, t.o.Network, a.sessions[:n])
		if err := pause(ctx, time.Second); err != nil { // what the last sessions raise is told by then
			return err
		}
		if e, _ := t.journal.find(from, a.alerted); e != nil {
			return fmt.Errorf("%s to %s was expected to go unseen, but %s raised an alert: %s",
				a.attack, a.addr, e.Alert.Detector, e.Alert.Sentence)
		}
		for _, r := range results {
			if !r.OK {
				return fmt.Errorf("%s was expected to go through, but failed: %s", a.attack, describe(r))
			}
		}
		t.voice.say(a.site.Name, fmt.Sprintf("%d sessions to %s went through unseen: %s", n, a.addr, why))
		t.report.Missed = append(t.report.Missed, Missed{
			Attack: string(a.attack), Site: a.site.Name, Address: a.addr.String(), Sessions: n, Why: why,
		})
		return nil
	}
}

func (a *assault) alerted(e *event.Event) bool {
	return e.Kind == event.KindAlert && e.Site == a.site.Name && e.Alert.Peer == a.addr.String()
}

// verdict matches a verdict that the plane confirmed.
func (a *assault) verdict(actions ...string) func(*event.Event) bool {
	return func(e *event.Event) bool {
		if e.Kind != event.KindVerdict || e.Site != a.site.Name || e.Verdict.EnforcedNS == 0 || e.Verdict.FirstDropNS != 0 {
			return false
		}
		for _, action := range actions {
			if e.Verdict.Action == action {
				return names(e.Verdict.Target, a.addr)
			}
		}
		return false
	}
}

func (a *assault) dropped(e *event.Event) bool {
	return e.Kind == event.KindVerdict && e.Site == a.site.Name && e.Verdict.FirstDropNS != 0 && names(e.Verdict.Target, a.addr)
}

func (a *assault) enforcedAt(site string) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Kind == event.KindIndicator && e.Site == site && e.Indicator.Op == "indicator" &&
			e.Indicator.Outcome == "enforced" && names(e.Indicator.Value, a.addr)
	}
}

func (t *teller) site(name string) Site {
	for _, s := range t.o.Sites {
		if s.Name() == name {
			return s
		}
	}
	return nil
}

// begunBy counts the sessions that had begun at a moment.
func begunBy(rs []scenario.Result, at time.Time) int {
	n := 0
	for _, r := range rs {
		if !r.Start.After(at) {
			n++
		}
	}
	return n
}

// since is the time between two moments in nanoseconds of the Unix epoch; 0
// when one is unknown.
func since(from, to int64) time.Duration {
	if from == 0 || to == 0 {
		return 0
	}
	return time.Duration(to - from)
}

// names says whether a target ("tcp A:p<>B:q", "A", "A:p/tcp", "A tcp/p")
// names an IPv4 address.
func names(target string, a netip.Addr) bool {
	for _, x := range addresses(target) {
		if x == a {
			return true
		}
	}
	return false
}

// addresses picks the IPv4 addresses out of a target.
func addresses(target string) []netip.Addr {
	var out []netip.Addr
	for _, word := range strings.FieldsFunc(target, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
		if a, err := netip.ParseAddr(word); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func orWords(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
