package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

func alert() *event.Event {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	return &event.Event{
		V: event.Version, ID: event.NewID(at), Time: at, Site: "alder", Kind: event.KindAlert,
		Alert: &event.Alert{
			Incident: "i1", Host: "10.0.0.3", Peer: "203.0.113.9", Detector: "rule:scan", P: 0.001,
			Sentence: "asked 40 ports", Reasons: []event.Reason{{Feature: "ports", Words: "40 ports", Value: 40, Normal: 1, Weight: 1}},
			Flow: event.Flow{Proto: "tcp", Src: "203.0.113.9", Dst: "10.0.0.3", DstPort: 22, End: "open"},
		},
	}
}

// A logged event must be the stored event: the JSON under "event" decodes into
// the same record.
func TestLoggedEventIsTheSchema(t *testing.T) {
	var buf bytes.Buffer
	log, err := NewLogger(&buf, "json", slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	want := alert()
	LogEvent(t.Context(), log, want)
	var line struct {
		Level string          `json:"level"`
		Msg   string          `json:"msg"`
		Event json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(buf.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line.Level != "WARN" || line.Msg != "alert" {
		t.Fatalf("level %s, msg %s", line.Level, line.Msg)
	}
	got, err := event.Decode(line.Event)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		t.Fatalf("logged\n%s\nwant\n%s", b, a)
	}
}

func TestTextLogNamesKeys(t *testing.T) {
	var buf bytes.Buffer
	log, err := NewLogger(&buf, "text", slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	LogEvent(t.Context(), log, alert())
	if !strings.Contains(buf.String(), "event.alert.peer=203.0.113.9") {
		t.Fatalf("found %s", buf.String())
	}
	buf.Reset()
	LogEvent(t.Context(), log, &event.Event{Kind: event.KindFlow, Flow: &event.Flow{}})
	if buf.Len() != 0 {
		t.Fatalf("a flow was logged at level info: %s", buf.String())
	}
	if _, err := NewLogger(&buf, "xml", slog.LevelInfo); err == nil {
		t.Fatal("format xml was accepted")
	}
}

func full(t *testing.T) *Metrics {
	t.Helper()
	m := NewMetrics("alder")
	err := errors.Join(
		m.WatchPlane(func() (dataplane.Stats, error) {
			return dataplane.Stats{Packets: 7, Attached: []dataplane.Attached{{Interface: "lan0", Role: "inside"}, {Interface: "wan0", Role: "outside", Down: "gone"}}, Malformed: map[string]uint64{"short": 2},
				Flood: dataplane.FloodStats{BudgetDropped: map[string]uint64{"service": 9}, BreakerOpen: [2]bool{false, true}}}, nil
		}),
		m.WatchStore(func() store.Stats { return store.Stats{Events: 3} }),
	)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	m.Observe(alert())
	m.Observe(&event.Event{Kind: event.KindVerdict, Verdict: &event.Verdict{Action: "block", Mode: "enforce", DetectedNS: at.UnixNano(), EnforcedNS: at.UnixNano() + 1e6}})
	m.Observe(&event.Event{Kind: event.KindIndicator, Indicator: &event.Indicator{Outcome: "from-outside-\xff", SentNS: 2, DoneNS: 1}})
	m.Observe(&event.Event{Kind: event.KindModel, Model: &event.Model{State: "active"}})
	m.Observe(&event.Event{Kind: event.KindFlood, Flood: &event.Flood{Bound: "service", State: "open"}})
	m.Observe(&event.Event{Kind: event.KindFlood, Flood: &event.Flood{Bound: "source", State: "closed"}})
	m.Refused.WithLabelValues("cap").Inc()
	return m
}

func TestNamesFollowConventions(t *testing.T) {
	m := full(t)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "hedgerow_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s has no prefix of ours", name)
		}
	}
}

func TestLabelsFromOutsideStayKnownWords(t *testing.T) {
	rec := httptest.NewRecorder()
	full(t).Handler(func() error { return nil }).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if want := `hedgerow_indicators_total{outcome="other"} 1`; !strings.Contains(rec.Body.String(), want) {
		t.Fatalf("/metrics lacks %q", want)
	}
	for in, want := range map[string]string{"active": "active", "round-adopted": "round-adopted", "round-x": "round-other", "x": "other"} {
		if got := modelState(in); got != want {
			t.Errorf("modelState(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"self": "self", "rule:scan": "rule:scan", "rule:X\n": "other", "made-up": "other", "rule:": "other"} {
		if got := detector(in); got != want {
			t.Errorf("detector(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestHandler(t *testing.T) {
	m := full(t)
	var sick error
	h := m.Handler(func() error { return sick })
	get := func(method, path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		return rec
	}
	body := get(http.MethodGet, "/metrics").Body.String()
	for _, want := range []string{"hedgerow_packets_total 7", `hedgerow_malformed_packets_total{kind="short"} 2`,
		`hedgerow_flood_over_budget_packets_total{kind="service"} 9`, `hedgerow_flood_breaker_open{direction="inward"} 1`,
		`hedgerow_flood_breaker_open{direction="outward"} 0`,
		`hedgerow_flood_open{bound="service"} 1`, `hedgerow_flood_open{bound="source"} 0`,
		`hedgerow_attached{interface="lan0",role="inside"} 1`, `hedgerow_attached{interface="wan0",role="outside"} 0`,
		`hedgerow_alerts_total{detector="rule:scan"} 1`, "hedgerow_stored_events 3", "hedgerow_enforcement_delay_seconds_count 1"} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	if rec := get(http.MethodGet, "/healthz"); rec.Code != 200 || rec.Body.String() != "ok\n" {
		t.Errorf("healthy: %d %q", rec.Code, rec.Body)
	}
	sick = errors.New("plane is closed")
	if rec := get(http.MethodGet, "/healthz"); rec.Code != 503 || rec.Body.String() != "plane is closed\n" {
		t.Errorf("sick: %d %q", rec.Code, rec.Body)
	}
	if rec := get(http.MethodPost, "/healthz"); rec.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", rec.Code)
	}
}

// A plane that cannot be read must not look like a quiet one.
func TestUnreadablePlaneFailsTheScrape(t *testing.T) {
	m := NewMetrics("alder")
	if err := m.WatchPlane(func() (dataplane.Stats, error) { return dataplane.Stats{}, dataplane.ErrClosed }); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Registry().Gather(); !errors.Is(err, dataplane.ErrClosed) && (err == nil || !strings.Contains(err.Error(), "closed")) {
		t.Fatalf("found %v", err)
	}
}
