package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// WatchLists reads back at each scrape what is spared and what floods are held to.
func (m *Metrics) WatchLists(lists func() ([]dataplane.ListState, error)) error {
	return m.watch(&listCollector{lists})
}

type listCollector struct {
	lists func() ([]dataplane.ListState, error)
}

func listDescs() []figure[dataplane.ListState] {
	const g = prometheus.GaugeValue
	type s = dataplane.ListState
	return []figure[s]{
		{desc("list_intended", "Entries that a list of the plane should have.", "list"), g, func(s s) float64 { return float64(s.Intended) }},
		{desc("list_enforced", "Entries of a list that the plane's own tables hold.", "list"), g, func(s s) float64 { return float64(s.Enforced) }},
		{desc("list_differences", "Entries of a list that are missing, changed or not intended.", "list"), g, func(s s) float64 {
			return float64(len(s.Missing) + len(s.Changed) + len(s.Extra))
		}},
	}
}

// Describe implements prometheus.Collector.
func (c *listCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range listDescs() {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *listCollector) Collect(out chan<- prometheus.Metric) {
	lists, err := c.lists()
	for _, f := range listDescs() {
		if err != nil {
			out <- prometheus.NewInvalidMetric(f.desc, err)
			return
		}
		for _, l := range lists {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(l), l.List)
		}
	}
}
