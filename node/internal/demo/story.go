package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// step is one part of the story. It happened when run returns nil.
type step struct {
	name string
	run  func(context.Context) error
}

// teller carries the story through.
type teller struct {
	o       Options
	began   time.Time
	journal *journal
	voice   *narrator
	work    *work
	report  *Report
	hostile map[netip.Addr]bool
}

// Tell runs the whole story over sites that are up, or coming up, and reports
// what was measured. The report is there also when the story failed; the error
// then names the step that did not happen. Tell starts nothing that outlives
// it, and leaves the sites and the network to the caller.
func Tell(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	t := newTeller(o)
	t.voice.title(o)
	return t.whole(ctx, t.steps())
}

// whole carries a story through from its first step to its report.
func (t *teller) whole(ctx context.Context, steps []step) (*Report, error) {
	o := t.o
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var feeds sync.WaitGroup
	for _, s := range o.Sites {
		feeds.Go(func() {
			if err := t.journal.follow(ctx, s, t.began); err != nil {
				cancel(err) // a site is gone: no step can be trusted any more
			}
		})
	}
	err := t.tell(ctx, steps)
	t.inTheKernel(ctx)
	t.report.Took = time.Since(t.began)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		t.report.Failed = err.Error()
	}
	t.report.OK = err == nil
	cancel(nil)
	feeds.Wait()
	if t.work != nil {
		t.work.finish()
	}
	if werr := t.report.Write(o.Out, o.JSON); werr != nil && err == nil {
		err = fmt.Errorf("demo: write the report: %w", werr)
	}
	if err != nil {
		return t.report, fmt.Errorf("demo: %w", err)
	}
	return t.report, nil
}

func (o *Options) check() error {
	if o.Scenario == nil || o.Network == nil || len(o.Sites) != len(o.Scenario.Sites) {
		return errors.New("demo: a scenario, a network and one site for each of the scenario's are required")
	}
	for i, s := range o.Sites {
		if want := o.Scenario.Sites[i].Name; s.Name() != want {
			return fmt.Errorf("demo: site %d is %q: expected %q", i, s.Name(), want)
		}
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.LearnFor == 0 {
		o.LearnFor = 2 * time.Minute
	}
	return nil
}

func newTeller(o Options) *teller {
	t := &teller{o: o, began: time.Now(), hostile: make(map[netip.Addr]bool)}
	for _, a := range o.Scenario.Hostile() {
		t.hostile[a] = true
	}
	out := o.Out
	if o.JSON {
		out = io.Discard
	}
	t.voice = newNarrator(out, t.began, t.hostile, o.Verbose)
	t.journal = newJournal(t.voice.event)
	t.report = &Report{Seed: o.Scenario.Seed, Where: o.Where, Learner: o.Learner, Attacks: []string{}}
	for _, a := range o.Attacks {
		t.report.Attacks = append(t.report.Attacks, string(a))
	}
	return t
}

// tell runs the steps in order and stops at the first that did not happen.
func (t *teller) tell(ctx context.Context, steps []step) error {
	for _, s := range steps {
		at := time.Now()
		t.voice.step(s.name)
		err := s.run(ctx)
		t.report.Steps = append(t.report.Steps, StepReport{
			Name: s.name, At: at.Sub(t.began), Took: time.Since(at), OK: err == nil,
		})
		if err != nil {
			t.account()
			return fmt.Errorf("step %q: %w", s.name, err)
		}
	}
	return nil
}

func (t *teller) has(a scenario.Attack) bool { return slices.Contains(t.o.Attacks, a) }

// unseen is how many sessions of a beacon have to pass at cedar before the rounds,
// and caughtBy with which it has to be blocked at the latest after them. The table
// shows with which it was.
const (
	unseen   = 6
	caughtBy = 10
)

// steps is the story that the options ask for.
func (t *teller) steps() []step {
	out := []step{{"three sites come up and find each other", t.up}, {"the sites learn their normal", t.learn}}
	sc := t.o.Scenario
	alder, birch, cedar := sc.Site(scenario.Alder), sc.Site(scenario.Birch), sc.Site(scenario.Cedar)
	if t.has(scenario.Scan) {
		out = append(out, step{"a port scan at alder", t.catch(t.scanAt(alder, birch, cedar))})
	}
	if t.has(scenario.Brute) {
		out = append(out, step{"password guessing at birch", t.catch(t.guessAt(birch, alder, cedar))})
	}
	beacon, spurt := t.beaconAt(alder, cedar, sc.C2[0]), t.spurtAt(birch, alder)
	if !t.o.Learner {
		const why = "the learner is off, and no rule counts this"
		if t.has(scenario.Beacon) {
			out = append(out, step{"a beacon at alder goes unseen", t.miss(beacon, len(beacon.sessions), why)})
		}
		if t.has(scenario.Spurt) {
			out = append(out, step{"a spurt at birch goes unseen", t.miss(spurt, len(spurt.sessions), why)})
		}
		return append(out, t.ending()...)
	}
	if t.has(scenario.Beacon) {
		out = append(out, step{"a beacon at alder leaks through TLS", t.catch(beacon)})
	}
	if t.has(scenario.Spurt) {
		out = append(out, step{"a spurt of encrypted traffic at birch", t.catch(spurt)})
	}
	if t.has(scenario.Beacon) {
		before, after := t.beaconAt(cedar, alder, sc.C2[1]), t.beaconAt(cedar, birch, sc.C2[2])
		after.detector, after.within = "attack", caughtBy
		const why = "cedar's own normal is full of uploads like these"
		out = append(out,
			step{"the same behaviour at cedar goes unseen by its own model", t.miss(before, unseen, why)},
			step{"rounds of shared models", t.round},
			step{"the same behaviour from a new address is caught at cedar", t.catch(after)})
	}
	return append(out, t.ending()...)
}

func (t *teller) ending() []step {
	var out []step
	if len(t.o.Attacks) == 0 {
		out = append(out, step{"a minute of ordinary work and no attack", func(ctx context.Context) error {
			return pause(ctx, time.Minute)
		}})
	}
	return append(out, step{"ordinary work was left alone", t.undisturbed})
}

// up waits until every site answers and is connected to all others.
func (t *teller) up(ctx context.Context) error {
	return t.poll(ctx, 30*time.Second, func(s Site, st Status) (done bool, words string) {
		return len(st.Connected) == len(t.o.Sites)-1,
			fmt.Sprintf("up in %s mode (%s), connected to %s", st.Mode, st.Plane, strings.Join(st.Connected, " and "))
	})
}

// learn runs ordinary work until every site can judge, and turns enforcement on.
func (t *teller) learn(ctx context.Context) error {
	t.work = startWork(ctx, t.o.Scenario, t.o.Network)
	var err error
	if t.o.Learner {
		err = t.poll(ctx, t.o.LearnFor, t.learned())
	} else {
		t.voice.say("", "the learner is off: 15 s of ordinary work")
		err = pause(ctx, 15*time.Second)
	}
	if err != nil {
		return err
	}
	t.work.setRate(usual)
	for _, s := range t.o.Sites {
		if err := s.SetMode(ctx, "enforce"); err != nil {
			return fmt.Errorf("%s: switch to enforce: %w", s.Name(), err)
		}
	}
	t.voice.say("", "all sites enforce from here on")
	return pause(ctx, 4*time.Second)
}

// learned says of each site how far it is, every five seconds.
func (t *teller) learned() func(Site, Status) (bool, string) {
	told := map[string]time.Time{}
	return func(s Site, st Status) (bool, string) {
		if st.Judging {
			return true, fmt.Sprintf("can judge: model %s from %d flows of its own", short(st.Model), st.Seen)
		}
		if time.Since(told[s.Name()]) > 5*time.Second {
			told[s.Name()] = time.Now()
			words := fmt.Sprintf("has seen %d of %d flows", st.Seen, st.Needed)
			if st.Wait > 0 {
				words += fmt.Sprintf(", judges in about %.0f s", st.Wait.Seconds())
			}
			t.voice.say(s.Name(), words)
		}
		return false, fmt.Sprintf("%d of %d flows", st.Seen, st.Needed)
	}
}

// poll asks every site for its status until each is done.
func (t *teller) poll(ctx context.Context, within time.Duration, look func(Site, Status) (bool, string)) error {
	pending := slices.Clone(t.o.Sites)
	last := map[string]string{}
	deadline := time.Now().Add(within)
	for {
		pending = slices.DeleteFunc(pending, func(s Site) bool {
			st, err := s.Status(ctx)
			if err != nil {
				last[s.Name()] = err.Error()
				return false
			}
			done, words := look(s, st)
			last[s.Name()] = words
			if done {
				t.voice.say(s.Name(), words)
			}
			return done
		})
		if len(pending) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			name := pending[0].Name()
			return fmt.Errorf("%s: not within %v: %s", name, within, last[name])
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}
