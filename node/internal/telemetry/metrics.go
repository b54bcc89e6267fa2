package telemetry

import (
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Metrics are a site's figures, in a registry of their own.
type Metrics struct {
	reg *prometheus.Registry

	events     *prometheus.CounterVec
	alerts     *prometheus.CounterVec
	verdicts   *prometheus.CounterVec
	indicators *prometheus.CounterVec
	models     *prometheus.CounterVec
	floods     *prometheus.GaugeVec
	enforce    prometheus.Histogram
	spread     prometheus.Histogram

	// The node sets these as things change.
	Blocks       prometheus.Gauge   // standing rules that are active
	Peers        prometheus.Gauge   // other sites connected
	Round        prometheus.Gauge   // number of the newest model round
	LearnedFlows prometheus.Gauge   // flows that taught the active model
	Judging      prometheus.Gauge   // 1 when a model judges, 0 while learning
	Scores       prometheus.Counter // times a flow was scored
	ScoreTime    prometheus.Histogram
	Refused      *prometheus.CounterVec // verdicts that a limit or the never-block list refused, by why
	Repaired     *prometheus.CounterVec // rules that were not enforced as intended, by what was wrong
}

// NewMetrics returns the figures of one site, all at zero. The site's name
// stands in build_info only: the scraper knows whom it asks.
func NewMetrics(site string) *Metrics {
	m := &Metrics{
		reg:        prometheus.NewRegistry(),
		events:     counters("events_total", "Events told, by kind.", "kind"),
		alerts:     counters("alerts_total", "Alerts raised, by detector.", "detector"),
		verdicts:   counters("verdicts_total", "Decisions made, by action and mode.", "action", "mode"),
		indicators: counters("indicators_total", "Shared indicators, by outcome.", "outcome"),
		models:     counters("models_total", "Steps in the life of models, by state.", "state"),
		floods:     gauges("flood_open", "1 while a flood meets a bound, else 0.", "bound"),
		enforce:    histogram("enforcement_delay_seconds", "Time from the deciding packet to the plane's confirmation.", fine()),
		spread:     histogram("indicator_delay_seconds", "Time from an indicator's sending at its author to its enforcement here, by the clocks of both.", coarse()),

		Blocks:       gauge("blocks", "Standing rules that are active."),
		Peers:        gauge("peers", "Other sites that are connected."),
		Round:        gauge("model_round", "Number of the newest model round that this site knows."),
		LearnedFlows: gauge("learned_flows", "Flows that taught the active model."),
		Judging:      gauge("judging", "1 when a model judges flows, 0 while the site still learns."),
		Scores:       prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hedgerow", Name: "scores_total", Help: "Times a flow was scored."}),
		ScoreTime:    histogram("score_duration_seconds", "Time to score one flow.", micro()),
		Refused:      counters("refused_verdicts_total", "Verdicts that a limit or the never-block list refused, by why.", "why"),
		Repaired:     counters("repaired_rules_total", "Rules that somebody else had changed in the plane and that were put right, by what was wrong.", "what"),
	}
	m.reg.MustRegister(m.events, m.alerts, m.verdicts, m.indicators, m.models, m.floods, m.enforce, m.spread,
		m.Blocks, m.Peers, m.Round, m.LearnedFlows, m.Judging, m.Scores, m.ScoreTime, m.Refused, m.Repaired,
		buildInfo(site), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry is where the figures are; package node may add collectors.
func (m *Metrics) Registry() *prometheus.Registry { return m.reg }

// Observe counts one event.
func (m *Metrics) Observe(e *event.Event) {
	m.events.WithLabelValues(string(e.Kind)).Inc()
	switch {
	case e.Alert != nil:
		m.alerts.WithLabelValues(detector(e.Alert.Detector)).Inc()
	case e.Verdict != nil:
		v := e.Verdict
		m.verdicts.WithLabelValues(among(v.Action, "observe", "rate-limit", "suspend", "block", "quarantine", "release"), among(v.Mode, "monitor", "enforce")).Inc()
		delay(m.enforce, v.DetectedNS, v.EnforcedNS)
	case e.Indicator != nil:
		i := e.Indicator
		m.indicators.WithLabelValues(among(i.Outcome, "sent", "enforced", "observed", "lifted", "refused")).Inc()
		if i.Outcome == "enforced" {
			delay(m.spread, i.SentNS, i.DoneNS)
		}
	case e.Flood != nil:
		open := 0.0
		if e.Flood.State == "open" {
			open = 1
		}
		m.floods.WithLabelValues(among(e.Flood.Bound, "source", "source-net", "service", "destination", "breaker", "challenge")).Set(open)
	case e.Model != nil:
		m.models.WithLabelValues(modelState(e.Model.State)).Inc()
	}
}

// among keeps a label to known words: what comes from outside must not be able
// to make new series.
func among(s string, words ...string) string {
	for _, w := range words {
		if s == w {
			return s
		}
	}
	return "other"
}

// detector keeps the names of rules, which are ours, to a sane form.
func detector(s string) string {
	name, ours := strings.CutPrefix(s, "rule:")
	if !ours {
		name, ours = strings.CutPrefix(s, "limit:")
	}
	if !ours {
		return among(s, "self", "attack", "indicator")
	}
	if len(name) == 0 || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return "other"
	}
	return s
}

// modelState keeps the steps of a model's life, and of a round, to known words.
func modelState(s string) string {
	if step, ok := strings.CutPrefix(s, "round-"); ok {
		return "round-" + among(step, "begun", "trained", "delta", "listed", "aggregated", "caught-up", "adopted", "refused", "failed")
	}
	return among(s, "trained", "candidate", "active", "refused", "retired")
}

// delay observes the time between two wall-clock times, when both are known.
// Clocks of two sites may disagree: what seems to precede its cause is 0.
func delay(h prometheus.Histogram, from, to int64) {
	if from > 0 && to > 0 {
		h.Observe(max(0, time.Duration(to-from).Seconds()))
	}
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hedgerow", Name: name, Help: help}, labels)
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "hedgerow", Name: name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "hedgerow", Name: name, Help: help})
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "hedgerow", Name: name, Help: help, Buckets: buckets})
}

func micro() []float64  { return prometheus.ExponentialBuckets(250e-9, 2, 14) } // 250 ns to 2 ms
func fine() []float64   { return prometheus.ExponentialBuckets(100e-6, 2, 16) } // 0.1 ms to 3.3 s
func coarse() []float64 { return prometheus.ExponentialBuckets(1e-3, 2, 18) }   // 1 ms to 131 s

func buildInfo(site string) prometheus.Collector {
	version := "unknown"
	if bi, ok := debug.ReadBuildInfo(); ok {
		version = bi.Main.Version
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "hedgerow", Name: "build_info", Help: "1, with the version and the site's name as labels.",
		ConstLabels: prometheus.Labels{"version": version, "site": site},
	})
	g.Set(1)
	return g
}
