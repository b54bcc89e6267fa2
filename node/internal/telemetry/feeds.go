package telemetry

import "github.com/prometheus/client_golang/prometheus"

// FeedFigures are the site's blocklists at a scrape. With Err the scrape fails
// rather than show old figures.
type FeedFigures struct {
	Intended, Enforced, Bytes uint64
	Protected                 int
	Feeds                     []FeedFigure
	Err                       error
}

// FeedFigure is one blocklist.
type FeedFigure struct {
	Name                      string
	Entries, Refused, Skipped int
	Hits                      uint64
	Age                       float64 // seconds since the last good look
	Failing                   bool
}

// WatchFeeds reads the blocklists at each scrape.
func (m *Metrics) WatchFeeds(figures func() FeedFigures) error {
	return m.watch(&feedCollector{figures})
}

type feedCollector struct{ figures func() FeedFigures }

func setDescs() []figure[FeedFigures] {
	const g = prometheus.GaugeValue
	type s = FeedFigures
	return []figure[s]{
		{desc("feed_set_intended", "Entries of all blocklists together that should be enforced."), g, func(s s) float64 { return float64(s.Intended) }},
		{desc("feed_set_enforced", "Entries of blocklists that the plane holds."), g, func(s s) float64 { return float64(s.Enforced) }},
		{desc("feed_set_bytes", "Memory of the plane's tables for blocklists."), g, func(s s) float64 { return float64(s.Bytes) }},
		{desc("feed_protected_networks", "Networks that no blocklist may block."), g, func(s s) float64 { return float64(s.Protected) }},
	}
}

func feedDescs() []figure[FeedFigure] {
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	type s = FeedFigure
	return []figure[s]{
		{desc("feed_entries", "Networks of a blocklist that are in the set.", "feed"), g, func(s s) float64 { return float64(s.Entries) }},
		{desc("feed_refused", "Lines of a blocklist that were refused.", "feed"), g, func(s s) float64 { return float64(s.Refused) }},
		{desc("feed_skipped", "Lines of a blocklist that hold no address to block.", "feed"), g, func(s s) float64 { return float64(s.Skipped) }},
		{desc("feed_hits_total", "Packets that matched entries of a blocklist.", "feed"), c, func(s s) float64 { return float64(s.Hits) }},
		{desc("feed_age_seconds", "Time since a blocklist was last read or found unchanged.", "feed"), g, func(s s) float64 { return s.Age }},
		{desc("feed_failing", "1 when the last look at a blocklist failed.", "feed"), g, func(s s) float64 {
			if s.Failing {
				return 1
			}
			return 0
		}},
	}
}

// Describe implements prometheus.Collector.
func (c *feedCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range setDescs() {
		out <- f.desc
	}
	for _, f := range feedDescs() {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *feedCollector) Collect(out chan<- prometheus.Metric) {
	s := c.figures()
	set := setDescs()
	if s.Err != nil {
		out <- prometheus.NewInvalidMetric(set[0].desc, s.Err)
		return
	}
	for _, f := range set {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(s))
	}
	for _, f := range feedDescs() {
		for _, x := range s.Feeds {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(x), x.Name)
		}
	}
}
