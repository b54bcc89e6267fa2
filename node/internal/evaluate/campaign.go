package evaluate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// perDay is how many false incidents a day each site's operator accepts.
const perDay = 10

// maxShare is the most that a gateway takes for a share of false alarms.
const maxShare = 1e-2

// Timely is how soon a way of watching found a campaign, as the share of its flows
// that were over: the median over seeds, a run that found nothing
// counting as 1.
type Timely struct {
	// Told is until something was told, Sure until enough was told for a block.
	Told float64 `json:"told"`
	Sure float64 `json:"sure"`
	// Half is the share of runs that were sure before half of the flows.
	Half float64   `json:"sure_before_half"`
	Runs []float64 `json:"sure_runs"` // every run's share until it was sure
	// ToldRuns is every run's share until something was told.
	ToldRuns []float64 `json:"told_runs"`
	By       string    `json:"by,omitempty"`
}

// CampaignRow is what became of one campaign.
type CampaignRow struct {
	Name   string `json:"name"`
	Flows  int    `json:"flows"`
	Beside int    `json:"flows_beside"` // of the same file, not the campaign's
	// Whole is the product: model and counting rules. Model has no rules, Rules no
	// model, Shuffled a model whose normal was drawn from the site's traffic and the
	// campaign's without a look at which is which, and no rules. The last two are of
	// the first seed.
	Whole    Timely  `json:"whole"`
	Model    Timely  `json:"model_alone"`
	Rules    Timely  `json:"rules_alone"`
	Shuffled Timely  `json:"shuffled"`
	Told     float64 `json:"beside_told"` // share of the flows beside that were told of
}

// Companion is what was told of the same site's normal traffic in the same time,
// without any campaign.
type Companion struct {
	Flows     int       `json:"flows"`
	Days      float64   `json:"days"`
	Incidents []int     `json:"incidents"` // of each seed
	PerDay    []float64 `json:"incidents_per_day"`
	Alarms    []int     `json:"flows_told"`
}

// Campaigns is the study of campaigns.
type Campaigns struct {
	PerDay    float64       `json:"incidents_per_day_asked"`
	Rows      []CampaignRow `json:"campaigns"`
	Companion Companion     `json:"companion"`
	Evasion   []Evasion     `json:"evasion,omitempty"`
}

// field is all that a study of campaigns reads: a site of some hosts, what they
// did first, which teaches, and then, which is watched.
type field struct {
	o              *Options
	campaigns      []dataset.Campaign
	traces         []trace // of the campaigns
	hosts          []string
	teach, watched trace
}

// teachShare is how much of the normal time teaches.
const teachShare = 0.6

// campaigns studies how soon campaigns are found.
func campaigns(ctx context.Context, o Options) (*Report, error) {
	f := &field{o: &o}
	if o.Dataset == dataset.Stratosphere {
		f.campaigns, f.hosts = dataset.Campaigns(o.Data), dataset.Hosts(o.Data)
	} else {
		f.campaigns, f.hosts = []dataset.Campaign{{Name: filepath.Base(o.Dataset), File: o.Dataset, Of: dataset.NotHarmless}}, o.Normal
	}
	if err := f.read(ctx); err != nil {
		return nil, err
	}
	rep := &Report{Dataset: o.Dataset, Quick: o.Quick, Data: &dataset.Report{Files: f.hosts}}
	rep.Split = fmt.Sprintf("the first %.0f %% of the time of %d hosts' normal traffic teach, the rest is watched, with the campaign of another host in it", 100*teachShare, len(f.hosts))
	for _, c := range f.campaigns {
		rep.Data.Files = append(rep.Data.Files, c.File)
	}
	s := &sightings{f: f, rows: make([]sighting, len(f.campaigns))}
	for k := range o.Seeds {
		rep.Seeds = append(rep.Seeds, o.Seed+uint64(k))
		if err := s.seed(ctx, o.Seed+uint64(k)); err != nil {
			return nil, err
		}
	}
	rep.Campaigns = s.report()
	return rep, nil
}

// read reads campaigns and hosts. The hosts' days begin at once.
func (f *field) read(ctx context.Context) error {
	for i := range f.campaigns {
		f.o.Progress("reading " + f.campaigns[i].File)
		t, err := readCampaign(ctx, &f.campaigns[i])
		if err != nil {
			return err
		}
		f.traces = append(f.traces, t)
	}
	var site trace
	for _, h := range f.hosts {
		f.o.Progress("reading " + h)
		t, err := readNormal(ctx, h)
		if err != nil {
			return err
		}
		if len(site) > 0 {
			t = t.shift(site.begin() - t.begin())
		}
		site = append(site, t...)
	}
	slices.SortStableFunc(site, byTime)
	cut := site.begin() + int64(teachShare*float64(site.end()-site.begin()))
	at, _ := slices.BinarySearchFunc(site, cut, func(x report, cut int64) int { return cmp.Compare(x.rec.Last, cut) })
	if f.teach, f.watched = site[:at], site[at:]; at == 0 || at == len(site) {
		return errors.New("the normal traffic has too few flows to part")
	}
	return nil
}

// perDay is how many reports come in a day.
func (t trace) perDay() float64 {
	return float64(len(t)) / max(float64(t.end()-t.begin())/float64(24*time.Hour), 1e-6)
}

// sightings gathers the outcomes of all seeds.
type sightings struct {
	f         *field
	rows      []sighting
	companion Companion
	evasion   evasions
}

type sighting struct {
	flows, beside, besideTold int
	by                        [4][]outcome // whole, model, rules, shuffled
}

// seed trains on what came first, and watches the rest.
func (s *sightings) seed(ctx context.Context, seed uint64) error {
	f := s.f
	f.o.Progress(fmt.Sprintf("seed %d: training", seed))
	normal, err := f.teach.learnt(f.teach.settle(), func(*report) bool { return true })
	if err != nil {
		return err
	}
	model, err := train(ctx, seed, normal)
	if err != nil {
		return fmt.Errorf("what %d reports of normal traffic teach: %w", len(normal), err)
	}
	g := gateway{model: model, rules: true, share: min(perDay/f.teach.perDay(), maxShare)}
	alone, err := g.watch(f.teach, f.watched)
	if err != nil {
		return err
	}
	c := &s.companion
	c.Flows, c.Days, c.Incidents = alone.flows, alone.days, append(c.Incidents, alone.incidents)
	c.PerDay, c.Alarms = append(c.PerDay, float64(alone.incidents)/max(alone.days, 1e-6)), append(c.Alarms, alone.alarms)
	rng := rand.New(rand.NewPCG(seed, 0xca))
	for i := range f.campaigns {
		f.o.Progress(fmt.Sprintf("seed %d: %s", seed, f.campaigns[i].Name))
		if err := s.campaign(ctx, i, f.watched.at(0.1+0.4*rng.Float64(), f.traces[i]), g, normal, seed); err != nil {
			return fmt.Errorf("%s: %w", f.campaigns[i].Name, err)
		}
	}
	if f.o.Evasion {
		return s.evade(seed, g)
	}
	return nil
}

func train(ctx context.Context, seed uint64, vecs []feature.Vector) (*learner.Model, error) {
	return learner.Train(ctx, learner.Config{Seed: seed}, nil, vecs, nil)
}

// blind is a model of as many vectors as normal, drawn from those of normal and of
// the campaign without a look at which is which.
func (s *sightings) blind(ctx context.Context, t trace, normal []feature.Vector, seed uint64) (*learner.Model, error) {
	attack, err := slices.Concat(s.f.teach, t).learnt(s.f.teach.settle(), func(x *report) bool { return x.attack })
	if err != nil {
		return nil, err
	}
	pool := slices.Concat(normal, attack)
	rng := rand.New(rand.NewPCG(seed, 0x5f))
	rng.Shuffle(len(pool), func(a, b int) { pool[a], pool[b] = pool[b], pool[a] })
	return train(ctx, seed, pool[:len(normal)])
}

// campaign watches traffic with a campaign in it, in four ways; the two that no
// seed changes much, rules alone and the blind model, with the first seed only.
func (s *sightings) campaign(ctx context.Context, i int, t trace, g gateway, normal []feature.Vector, seed uint64) error {
	x := &s.rows[i]
	ways := []gateway{g, {g.model, false, g.share}}
	if len(x.by[0]) == 0 {
		m, err := s.blind(ctx, t, normal, seed)
		if err != nil {
			return err
		}
		ways = append(ways, gateway{nil, true, g.share}, gateway{m, false, g.share})
	}
	for k, way := range ways {
		o, err := way.watch(s.f.teach, t)
		if err != nil {
			return err
		}
		x.by[k] = append(x.by[k], *o)
		if k == 0 {
			x.flows, x.beside = o.attacks, o.besideFlows
			x.besideTold += o.besideTold
		}
	}
	return nil
}

// timely sums up the runs of one way.
func timely(runs []outcome) (t Timely) {
	by := map[string]int{}
	for _, o := range runs {
		t.ToldRuns = append(t.ToldRuns, portion(o.told, o.attacks))
		t.Runs = append(t.Runs, portion(o.sure, o.attacks))
		if t.Runs[len(t.Runs)-1] < 0.5 {
			t.Half += 1 / float64(len(runs))
		}
		if by[o.by]++; o.by != "" && by[o.by] >= by[t.By] {
			t.By = o.by
		}
	}
	t.Told, t.Sure = median(t.ToldRuns), median(t.Runs)
	return t
}

// portion is the share of a campaign's flows that were over, 1 if it was never found.
func portion(at, of int) float64 {
	if at < 0 || of == 0 {
		return 1
	}
	return float64(at) / float64(of)
}

func (s *sightings) report() *Campaigns {
	out := &Campaigns{PerDay: perDay, Companion: s.companion}
	var names []string
	for _, c := range s.f.campaigns {
		names = append(names, c.Name)
	}
	out.Evasion = s.evasion.report(names)
	for i := range s.rows {
		x := &s.rows[i]
		out.Rows = append(out.Rows, CampaignRow{
			Name: s.f.campaigns[i].Name, Flows: x.flows, Beside: x.beside,
			Whole: timely(x.by[0]), Model: timely(x.by[1]), Rules: timely(x.by[2]), Shuffled: timely(x.by[3]),
			Told: float64(x.besideTold) / float64(max(1, x.beside*len(x.by[0]))),
		})
	}
	return out
}
