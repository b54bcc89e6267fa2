package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Rounds of shared models. The first carries what one site learnt; the others
// object to what it would mistake for it in their own traffic, and that takes
// another round to reach everybody. Between two, each site's gate needs fresh
// traffic. They end when cedar, looking back with what it adopted, finds the
// beacon that it missed, and else after a few: what it missed may be too little
// for a verdict on the past.
const (
	rounds      = 4
	maxRounds   = 7 // when the site that needs the model refused so far
	betweenThem = 3 * time.Second
)

// round runs rounds of shared models until cedar has adopted what they led to.
func (t *teller) round(ctx context.Context) error {
	missed := assault{site: t.o.Scenario.Site(scenario.Cedar), addr: t.o.Scenario.C2[1]}
	r := &RoundReport{Adopted: map[string]time.Duration{}, Refused: map[string]string{}}
	t.report.Round = r
	began := time.Now()
	for r.Rounds < maxRounds {
		from := t.journal.mark()
		n, err := t.o.Sites[0].StartRound(ctx)
		if err != nil {
			return fmt.Errorf("start a round at %s: %w", t.o.Sites[0].Name(), err)
		}
		r.Rounds++
		t.voice.say(t.o.Sites[0].Name(), fmt.Sprintf("starts round %d", n))
		for _, s := range t.o.Sites {
			if err := t.outcome(ctx, s.Name(), from, n, began, r); err != nil {
				return err
			}
		}
		if _, err := t.journal.wait(ctx, from, betweenThem, "a look back", missed.alerted); err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if _, ok := r.Adopted[scenario.Cedar]; ok && r.Rounds >= rounds {
			return nil
		}
	}
	return fmt.Errorf("%s refused the models of %d rounds: %s", scenario.Cedar, r.Rounds, r.Refused[scenario.Cedar])
}

// outcome waits for what became of a round's model at one site.
func (t *teller) outcome(ctx context.Context, site string, from int, n uint64, began time.Time, r *RoundReport) error {
	e, err := t.journal.wait(ctx, from, 30*time.Second, fmt.Sprintf("round %d decided at %s", n, site), func(e *event.Event) bool {
		return e.Kind == event.KindModel && e.Site == site && e.Model.Origin == "round" && e.Model.Round >= n &&
			(e.Model.State == "active" || e.Model.State == "refused")
	})
	if err != nil {
		return err
	}
	if e.Model.State == "refused" {
		r.Refused[site] = e.Model.Why
		return nil
	}
	delete(r.Refused, site)
	r.Adopted[site], r.Hash = e.Time.Sub(began), e.Model.Hash
	return nil
}
