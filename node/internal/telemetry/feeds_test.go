package telemetry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFeedFigures(t *testing.T) {
	m := NewMetrics("alder")
	figures := FeedFigures{Intended: 5, Enforced: 4, Bytes: 3, Protected: 2, Feeds: []FeedFigure{
		{Name: "ipsum", Entries: 7, Refused: 6, Skipped: 8, Hits: 9, Age: 1.5, Failing: true},
		{Name: "drop", Entries: 1},
	}}
	if err := m.WatchFeeds(func() FeedFigures { return figures }); err != nil {
		t.Fatal(err)
	}
	get := func() *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		m.Handler(func() error { return nil }).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return rec
	}
	body := get().Body.String()
	for _, want := range []string{
		"hedgerow_feed_set_intended 5\n", "hedgerow_feed_set_enforced 4\n", "hedgerow_feed_set_bytes 3\n", "hedgerow_feed_protected_networks 2\n",
		`hedgerow_feed_entries{feed="ipsum"} 7`, `hedgerow_feed_refused{feed="ipsum"} 6`, `hedgerow_feed_skipped{feed="ipsum"} 8`,
		`hedgerow_feed_hits_total{feed="ipsum"} 9`, `hedgerow_feed_age_seconds{feed="ipsum"} 1.5`, `hedgerow_feed_failing{feed="ipsum"} 1`,
		`hedgerow_feed_failing{feed="drop"} 0`, `hedgerow_feed_entries{feed="drop"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	figures.Err = errors.New("plane is closed")
	if rec := get(); rec.Code == http.StatusOK {
		t.Errorf("a plane that cannot be read: %d", rec.Code)
	}
}
