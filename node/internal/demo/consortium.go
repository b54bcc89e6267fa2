package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Gateway is a site of a consortium.
type Gateway interface {
	Site
	// Weights says what the word of each other organisation weighs here, as far as
	// it is connected.
	Weights(ctx context.Context) (map[string]float64, error)
}

// ConsortiumOptions of the consortium's story. In Options, Sites are Gateways.
type ConsortiumOptions struct {
	Options
	// Lie publishes a claim of the lying organisation, on evidence that it says it has.
	Lie func(ctx context.Context, value string) error
	// Teach lets the organisations make models together while one poisons its part.
	Teach func(ctx context.Context, say func(who, words string)) (*Lesson, error)
}

// Lesson is what came of making models together. Shares are of 0 to 1.
type Lesson struct {
	Rounds   uint64         `json:"rounds"`   // final at every honest organisation
	Alone    []LessonResult `json:"alone"`    // each honest organisation's own model
	Together []LessonResult `json:"together"` // the round's model, for the same
	Mean     LessonResult   `json:"mean"`     // the control: the same updates under a plain mean
	// MeanRefused is why an honest organisation's gate turns the control's model down;
	// "" when it would take it.
	MeanRefused string `json:"mean_refused"`
	Adopted     int    `json:"adopted"` // honest organisations whose gate took the round's model
}

// LessonResult is a model's worth on attacks and ordinary flows that nobody trained on.
type LessonResult struct {
	Name        string  `json:"name"`
	Detected    float64 `json:"detected"`
	FalseAlarms float64 `json:"false_alarms"`
}

// ConsortiumReport is what came of the liars, and what each honest site gained.
type ConsortiumReport struct {
	Checks []Check            `json:"checks"`
	Gains  []Gain             `json:"gains"`
	Weight map[string]float64 `json:"weight_of_the_liar"` // at each honest site, at the end
	Lesson *Lesson            `json:"lesson,omitempty"`
}

// Check is one line of the verdict.
type Check struct {
	What  string `json:"what"`
	Found string `json:"found"`
	OK    bool   `json:"ok"`
}

// Gain is what the mesh gave one site.
type Gain struct {
	Site    string `json:"site"`
	Blocked int    `json:"blocked_before_first_contact"` // attackers
	Alone   int    `json:"through_before_the_words"`     // of their connections that were tried
	Through int    `json:"through_after_the_words"`
	Tried   int    `json:"tried"`
}

// TellConsortium runs the story of seven organisations of which one lies about
// indicators and one about models. It is otherwise as Tell.
func TellConsortium(ctx context.Context, o ConsortiumOptions) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Lie == nil || o.Teach == nil {
		return nil, errors.New("demo: a consortium's story needs somebody who lies and rounds of models")
	}
	t := &consortiumTeller{teller: newTeller(o.Options), o: o, at: make(map[string]*Gain)}
	for _, s := range o.Sites {
		g, ok := s.(Gateway)
		if !ok {
			return nil, fmt.Errorf("demo: site %s cannot tell what others' words weigh", s.Name())
		}
		t.gates = append(t.gates, g)
	}
	t.report.Consortium = &ConsortiumReport{Weight: make(map[string]float64)}
	fmt.Fprintf(t.voice.out, "Hedgerow demo, seed %d: seven organisations, %s\n%s lies about indicators, %s poisons what it teaches\n",
		o.Scenario.Seed, o.Where, scenario.Liar, scenario.Poisoner)
	return t.whole(ctx, t.chapters())
}

type consortiumTeller struct {
	*teller
	o     ConsortiumOptions
	gates []Gateway
	at    map[string]*Gain
}

// attacked is how many organisations meet an attacker before the rest; as many as
// it takes to believe them.
const attacked = 3

func (t *consortiumTeller) chapters() []step {
	sc := t.teller.o.Scenario
	again := *sc // the same attack from another address
	again.Guesser = sc.Scanner
	return []step{
		{"seven organisations come up and find each other", t.meet},
		{scenario.Liar + " lies: an innocent server, and one that nobody may block", t.lies},
		{"before anybody spoke: who guesses passwords gets through", t.control(sc)},
		{"password guessing at three organisations", t.shared(sc)},
		{"the same from another address, at the same three", t.shared(&again)},
		{"models made together, while " + scenario.Poisoner + " poisons its part", t.teach},
		{"ordinary work was left alone", t.end},
	}
}

// meet waits until every gateway is connected with all other organisations, and lets
// ordinary work begin.
func (t *consortiumTeller) meet(ctx context.Context) error {
	for _, g := range t.gates {
		err := t.eventually(ctx, g.Name()+" is connected with all others", func() (bool, error) {
			w, err := g.Weights(ctx)
			return len(w) == len(t.gates), err // all but itself, and the one without a gateway
		})
		if err != nil {
			return err
		}
		if err := g.SetMode(ctx, "enforce"); err != nil {
			return fmt.Errorf("%s: switch to enforce: %w", g.Name(), err)
		}
	}
	t.voice.say("", "all know each other, count, and enforce")
	t.work = startWork(ctx, t.teller.o.Scenario, t.teller.o.Network)
	t.work.setRate(few)
	return pause(ctx, 3*time.Second)
}

// few is the pace of people's sessions at one site, per second: there are many
// sites, and nobody learns from them.
const few = 6

// eventually asks until something holds.
func (t *consortiumTeller) eventually(ctx context.Context, what string, done func() (bool, error)) error {
	deadline := time.Now().Add(time.Minute)
	for {
		ok, err := done()
		if ok && err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s: did not happen within a minute", what), err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// check notes a line of the verdict.
func (t *consortiumTeller) check(ok bool, what, found string, args ...any) {
	c := Check{what, fmt.Sprintf(found, args...), ok}
	t.report.Consortium.Checks = append(t.report.Consortium.Checks, c)
	t.voice.say("", what+": "+c.Found)
}

// rootServer is a.root-servers.net, which the product lets nobody block.
const rootServer = "198.41.0.4"

// lies has the liar accuse a server that everybody uses, and the root of all names.
func (t *consortiumTeller) lies(ctx context.Context) error {
	innocent := t.teller.o.Scenario.Web[0].String()
	from := t.journal.mark()
	for _, value := range []string{innocent, rootServer} {
		if err := t.o.Lie(ctx, value); err != nil {
			return fmt.Errorf("%s: lie about %s: %w", scenario.Liar, value, err)
		}
	}
	reason := ""
	for _, g := range t.gates {
		if _, err := t.journal.wait(ctx, from, time.Minute, g.Name()+" hears of "+innocent, outcome(g, innocent, "observed")); err != nil {
			return err
		}
		e, err := t.journal.wait(ctx, from, time.Minute, g.Name()+" refuses "+rootServer, outcome(g, rootServer, "refused"))
		if err != nil {
			return err
		}
		reason, _, _ = strings.Cut(e.Indicator.Why, ":")
		w, err := g.Weights(ctx)
		if err != nil {
			return err
		}
		t.report.Consortium.Weight[g.Name()] = w[scenario.Liar]
	}
	most := 0.0
	for _, w := range t.report.Consortium.Weight {
		most = max(most, w)
	}
	believed := t.journal.count(from, func(e *event.Event) bool {
		return e.Kind == event.KindIndicator && e.Indicator.Value == innocent && e.Indicator.Outcome == "enforced"
	})
	t.check(believed == 0, scenario.Liar+"'s word against a busy web server", "watched at all %d gateways, acted on at %d", len(t.gates), believed)
	t.check(reason != "", scenario.Liar+"'s word against a root name server", "refused at every gateway: %s", reason)
	t.check(most < middle, "what its word weighs after that", "at most %.2f; it was %.2f", most, middle)
	return nil
}

// middle is where an organisation stands that has done nothing yet.
const middle = 0.5

// outcome matches what became of a value at a gateway.
func outcome(g Gateway, value, became string) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Kind == event.KindIndicator && e.Site == g.Name() && e.Indicator.Value == value && e.Indicator.Outcome == became
	}
}

// rest are the sites that are not attacked first.
func (t *consortiumTeller) rest() []*scenario.Site { return t.teller.o.Scenario.Sites[attacked:] }

func (t *consortiumTeller) gain(site string) *Gain {
	if t.at[site] == nil {
		t.at[site] = &Gain{Site: site}
	}
	return t.at[site]
}

// tries are a guesser's first sessions at a site.
func tries(sc *scenario.Scenario, s *scenario.Site) []scenario.Timed {
	return hasty(sc.BruteOf(s), 3, 50*time.Millisecond, hurry)
}

// control is what gets through at the rest as long as nobody has spoken.
func (t *consortiumTeller) control(sc *scenario.Scenario) func(context.Context) error {
	return func(ctx context.Context) error {
		tried, through := 0, 0
		for _, s := range t.rest() {
			for _, r := range play(ctx, t.teller.o.Network, tries(sc, s)) {
				tried++
				if r.Answered {
					t.gain(s.Name).Alone++
					through++
				}
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		t.check(through == tried, "the control: connections of an attacker before anybody spoke", "%d of %d get through", through, tried)
		return nil
	}
}

// shared is an attack at some organisations, whose words close the others before the
// attacker comes there.
func (t *consortiumTeller) shared(sc *scenario.Scenario) func(context.Context) error {
	return func(ctx context.Context) error {
		from, who := t.journal.mark(), sc.Guesser
		attack, end := context.WithCancel(ctx)
		defer end()
		var at sync.WaitGroup
		var all []assault
		for _, s := range sc.Sites[:attacked] {
			a := assault{attack: scenario.Brute, site: s, addr: who, sessions: sc.BruteOf(s)}
			all = append(all, a)
			at.Go(func() { play(attack, t.teller.o.Network, a.sessions) })
		}
		err := t.spread(ctx, all, from)
		end()
		at.Wait()
		if err != nil {
			return fmt.Errorf("password guessing from %s: %w", who, err)
		}
		return t.arrive(ctx, sc)
	}
}

// spread waits until those who are attacked block, and the rest does by their words.
func (t *consortiumTeller) spread(ctx context.Context, all []assault, from int) error {
	for _, a := range all {
		if _, err := t.journal.wait(ctx, from, time.Minute, a.site.Name+" blocks", a.verdict("block")); err != nil {
			return err
		}
	}
	for _, s := range t.rest() {
		a := assault{site: s, addr: all[0].addr}
		if _, err := t.journal.wait(ctx, from, time.Minute, s.Name+" blocks what three organisations say", a.verdict("block")); err != nil {
			return err
		}
		t.gain(s.Name).Blocked++
	}
	return nil
}

// arrive lets the attacker come to the rest.
func (t *consortiumTeller) arrive(ctx context.Context, sc *scenario.Scenario) error {
	tried, through := 0, 0
	for _, s := range t.rest() {
		g := t.gain(s.Name)
		for _, r := range play(ctx, t.teller.o.Network, tries(sc, s)) {
			tried, g.Tried = tried+1, g.Tried+1
			if r.Answered {
				through++
				g.Through++
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t.check(through == 0, fmt.Sprintf("%s comes to the other three organisations", sc.Guesser), "%d of %d connections get through", through, tried)
	return nil
}

// teach has models made together, and holds them against each one's own and against
// the control.
func (t *consortiumTeller) teach(ctx context.Context) error {
	l, err := t.o.Teach(ctx, t.voice.say)
	if err != nil {
		return err
	}
	t.report.Consortium.Lesson = l
	gained := 0
	for i := range l.Alone {
		if l.Together[i].Detected > l.Alone[i].Detected && l.Together[i].FalseAlarms <= l.Alone[i].FalseAlarms+0.02 {
			gained++
		}
	}
	t.check(gained == len(l.Alone) && l.Adopted == len(l.Alone), "models made together, one of seven poisoning",
		"%d of %d honest organisations detect more than alone, and their gates took it", min(gained, l.Adopted), len(l.Alone))
	t.check(l.MeanRefused != "", "the control: the same updates under a plain mean", "%s", orWords(l.MeanRefused, "its model would have been taken"))
	return nil
}

// end looks at ordinary work and at the verdict as a whole.
func (t *consortiumTeller) end(ctx context.Context) error {
	for _, s := range t.rest() {
		t.report.Consortium.Gains = append(t.report.Consortium.Gains, *t.gain(s.Name))
	}
	if err := t.undisturbed(ctx); err != nil {
		return err
	}
	for _, c := range t.report.Consortium.Checks {
		if !c.OK {
			return fmt.Errorf("%s: %s", c.What, c.Found)
		}
	}
	return nil
}

func (r *ConsortiumReport) table(b *strings.Builder) {
	b.WriteString("\n")
	w := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	for _, c := range r.Checks {
		mark := "✓"
		if !c.OK {
			mark = "✗"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, c.What, c.Found)
	}
	if len(r.Gains) > 0 {
		fmt.Fprintln(w, "\norganisation\tattackers blocked before they came\tconnections through, before the words\tafter them")
		for _, g := range r.Gains {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d of %d\n", g.Site, g.Blocked, g.Alone, g.Through, g.Tried)
		}
	}
	if l := r.Lesson; l != nil {
		fmt.Fprintf(w, "\norganisation\tdetects alone\twith the models of %d rounds\tfalse alarms alone\twith them\n", l.Rounds)
		for i, a := range l.Alone {
			g := l.Together[i]
			fmt.Fprintf(w, "%s\t%.0f %%\t%.0f %%\t%.1f %%\t%.1f %%\n", a.Name, 100*a.Detected, 100*g.Detected, 100*a.FalseAlarms, 100*g.FalseAlarms)
		}
		fmt.Fprintf(w, "under a plain mean\t\t%.0f %%\t\t%.1f %%\n", 100*l.Mean.Detected, 100*l.Mean.FalseAlarms)
	}
	_ = w.Flush() // a strings.Builder takes everything
}
