package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// WatchPlane reads the packet path's totals at each scrape.
func (m *Metrics) WatchPlane(stats func() (dataplane.Stats, error)) error {
	return m.watch(&planeCollector{stats: stats, descs: planeDescs()})
}

// WatchStore reads the state's figures at each scrape.
func (m *Metrics) WatchStore(stats func() store.Stats) error {
	return m.watch(&storeCollector{stats: stats, descs: storeDescs()})
}

func (m *Metrics) watch(c prometheus.Collector) error {
	if err := m.reg.Register(c); err != nil {
		return fmt.Errorf("metrics: register: %v", err)
	}
	return nil
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hedgerow_"+name, help, labels, nil)
}

// figure is one series that a collector reads out of S.
type figure[S any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(S) float64
}

func planeDescs() []figure[dataplane.Stats] {
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	type s = dataplane.Stats
	return []figure[s]{
		{desc("packets_total", "Packets seen."), c, func(s s) float64 { return float64(s.Packets) }},
		{desc("packet_bytes_total", "IP bytes seen."), c, func(s s) float64 { return float64(s.Bytes) }},
		{desc("dropped_packets_total", "Packets really dropped."), c, func(s s) float64 { return float64(s.Dropped) }},
		{desc("would_drop_packets_total", "Packets that monitor mode let pass."), c, func(s s) float64 { return float64(s.WouldDrop) }},
		{desc("never_block_packets_total", "Drops that the never-block list averted."), c, func(s s) float64 { return float64(s.NeverSaved) }},
		{desc("fragment_packets_total", "Later fragments, which belong to no flow."), c, func(s s) float64 { return float64(s.NotAccountedFrag) }},
		{desc("flows", "Flows in the table."), g, func(s s) float64 { return float64(s.Flows) }},
		{desc("flows_total", "Flows seen."), c, func(s s) float64 { return float64(s.FlowsTotal) }},
		{desc("evicted_flows_total", "Flows that the table let go for want of room."), c, func(s s) float64 { return float64(s.FlowsEvicted) }},
		{desc("untracked_packets_total", "Packets that no flow counted, for want of room in the table."), c, func(s s) float64 { return float64(s.FlowsUntracked) }},
		{desc("lost_plane_events_total", "Events of the plane lost to a full ring or over budget."), c, func(s s) float64 { return float64(s.EventsLost) }},
		{desc("lost_dns_answers_total", "DNS answers that were not shown to the site: ring full or over budget."), c, func(s s) float64 { return float64(s.AnswersLost) }},
		{desc("lost_hellos_total", "Packets with what TLS clients say first that were not read: ring full or over budget."), c, func(s s) float64 { return float64(s.HellosLost) }},
		{desc("flood_untracked_packets_total", "Packets that passed without a flow while the breaker was open."), c, func(s s) float64 { return float64(s.Flood.Untracked) }},
		{desc("flood_breaker_dropped_packets_total", "Packets that the open breaker dropped, or in monitor mode would have."), c, func(s s) float64 { return float64(s.Flood.BreakerDropped) }},
		{desc("flood_breaker_trips_total", "Times that the breaker opened."), c, func(s s) float64 { return float64(s.Flood.BreakerTrips) }},
		{desc("flood_challenges_total", "SYNs answered by a demand for proof, or in monitor mode would have been."), c, func(s s) float64 { return float64(s.Flood.Challenges) }},
		{desc("flood_dark_answers_total", "Segments answered in the name of unused addresses, or in monitor mode would have been."), c, func(s s) float64 { return float64(s.Flood.DarkAnswers) }},
		{desc("flood_proofs_total", "Times that an outside source proved its address."), c, func(s s) float64 { return float64(s.Flood.Proofs) }},
		{desc("flood_bad_proofs_total", "Answers to challenges that did not hold the number asked for."), c, func(s s) float64 { return float64(s.Flood.BadProofs) }},
		{desc("unwatched_packets_total", "Packets that a plane which fails closed dropped for want of a daemon, or in monitor mode would have."), c, func(s s) float64 { return float64(s.Orphaned) }},
		{desc("rules_intended", "Rules that should be enforced."), g, func(s s) float64 { return float64(s.RulesIntended) }},
		{desc("rules_enforced", "Rules that the plane holds."), g, func(s s) float64 { return float64(s.RulesEnforced) }},
	}
}

type planeCollector struct {
	stats func() (dataplane.Stats, error)
	descs []figure[dataplane.Stats]
}

func malformedDesc() *prometheus.Desc {
	return desc("malformed_packets_total", "Packets that could not be parsed, by kind.", "kind")
}

func budgetDesc() *prometheus.Desc {
	return desc("flood_over_budget_packets_total", "Packets over a budget for new flows, by kind; in monitor mode they passed.", "kind")
}

func breakerDesc() *prometheus.Desc {
	return desc("flood_breaker_open", "1 while new flows of a direction are not followed, else 0.", "direction")
}

func attachedDesc() *prometheus.Desc {
	return desc("attached", "1 while packets of an interface are filtered, else 0.", "interface", "role")
}

// Describe implements prometheus.Collector.
func (c *planeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.descs {
		out <- f.desc
	}
	out <- malformedDesc()
	out <- budgetDesc()
	out <- breakerDesc()
	out <- attachedDesc()
}

// Collect implements prometheus.Collector. A plane that cannot be read makes
// the scrape fail rather than show old figures.
func (c *planeCollector) Collect(out chan<- prometheus.Metric) {
	s, err := c.stats()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[0].desc, err)
		return
	}
	for _, f := range c.descs {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(s))
	}
	for _, a := range s.Attached {
		filtered := 1.0
		if a.Down != "" {
			filtered = 0
		}
		out <- prometheus.MustNewConstMetric(attachedDesc(), prometheus.GaugeValue, filtered, a.Interface, a.Role)
	}
	for kind, n := range s.Malformed {
		out <- prometheus.MustNewConstMetric(malformedDesc(), prometheus.CounterValue, float64(n), kind)
	}
	for kind, n := range s.Flood.BudgetDropped {
		out <- prometheus.MustNewConstMetric(budgetDesc(), prometheus.CounterValue, float64(n), kind)
	}
	for hook, way := range [2]string{"outward", "inward"} {
		open := 0.0
		if s.Flood.BreakerOpen[hook] {
			open = 1
		}
		out <- prometheus.MustNewConstMetric(breakerDesc(), prometheus.GaugeValue, open, way)
	}
}

func storeDescs() []figure[store.Stats] {
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	type s = store.Stats
	return []figure[s]{
		{desc("stored_events", "Events in the log."), g, func(s s) float64 { return float64(s.Events) }},
		{desc("archived_flows", "Flows in the archive."), g, func(s s) float64 { return float64(s.Flows) }},
		{desc("store_writes_total", "Writes acknowledged since the state folder was made."), c, func(s s) float64 { return float64(s.Writes) }},
		{desc("store_missing_writes", "Acknowledged writes that were missing when the state was opened."), g, func(s s) float64 { return float64(s.Missing.Writes) }},
		{desc("store_damaged", "1 when a checksum of the database does not fit, else 0."), g, func(s s) float64 {
			if s.Damaged {
				return 1
			}
			return 0
		}},
		{desc("store_disk_bytes", "Bytes that the state folder takes on disk."), g, func(s s) float64 { return float64(s.DiskBytes) }},
		{desc("store_limit_bytes", "Bytes that the state folder may take."), g, func(s s) float64 { return float64(s.MaxBytes) }},
	}
}

type storeCollector struct {
	stats func() store.Stats
	descs []figure[store.Stats]
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.descs {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	for _, f := range c.descs {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(s))
	}
}
