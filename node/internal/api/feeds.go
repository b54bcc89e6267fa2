package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// FeedsSummary is the blocklists at a glance.
type FeedsSummary struct {
	Configured int    `json:"configured"`
	Failing    int    `json:"failing"`  // whose last look failed
	Intended   uint64 `json:"intended"` // entries that should be enforced
	Enforced   uint64 `json:"enforced"` // entries that the plane's own read-back finds
	Words      string `json:"words"`
}

// Feeds are the blocklists and the set that they make together.
type Feeds struct {
	FeedsSummary
	Protected    int    `json:"protected_networks"` // that no feed may block
	WarningLists int    `json:"warning_lists"`
	Generation   uint64 `json:"generation"`
	Bytes        uint64 `json:"table_bytes"`
	Problem      string `json:"problem,omitempty"`
	List         []Feed `json:"feeds"`
	// Configuration is what a reload did with the file; nil when none was read.
	Configuration *Reloaded `json:"configuration,omitempty"`
}

// Reloaded says what became of a configuration that was read while the site runs.
type Reloaded struct {
	Path    string   `json:"path"`    // "" when the site runs without a file
	Taken   []string `json:"taken"`   // keys that changed and are in force
	Restart []string `json:"restart"` // keys that changed since the start and wait for a restart
}

// Words is the one line that an operator reads of it.
func (r *Reloaded) Words() string {
	if r.Path == "" {
		return "no configuration file: the defaults stay"
	}
	s := r.Path + ": nothing has changed"
	if len(r.Taken) > 0 {
		s = r.Path + ": now in force: " + strings.Join(r.Taken, ", ")
	}
	if len(r.Restart) > 0 {
		s += "; only a restart takes over " + strings.Join(r.Restart, ", ")
	}
	return s
}

// Feed is one blocklist.
type Feed struct {
	Name     string      `json:"name"`
	Source   string      `json:"source"` // path, or URL without secrets
	Format   feed.Format `json:"format,omitempty"`
	Lines    int         `json:"lines"`
	Listed   int         `json:"listed"`   // different networks
	Enforced int         `json:"enforced"` // of them, what the guard left
	Counts   feed.Counts `json:"counts,omitempty"`
	Hits     uint64      `json:"hits"` // packets; of an entry on several feeds, each counts it
	Read     time.Time   `json:"read,omitzero"`
	Expires  time.Time   `json:"expires,omitzero"`
	Next     time.Time   `json:"next,omitzero"`
	Kept     bool        `json:"kept"`            // the copy of an earlier run
	Error    string      `json:"error,omitempty"` // of the last look
}

// Warnings are what an operator should know of the blocklists at once.
func (f *Feeds) Warnings() (out []string) {
	for _, x := range f.List {
		if x.Error == "" {
			continue
		}
		state := "nothing of it is enforced"
		if !x.Expires.IsZero() && x.Enforced > 0 {
			state = "its last good entries stay until " + x.Expires.UTC().Format(time.RFC3339)
		}
		out = append(out, fmt.Sprintf("feed %s: %s; %s", x.Name, x.Error, state))
	}
	if f.Problem != "" {
		out = append(out, "feeds: "+f.Problem)
	}
	return out
}

// FeedNote is one line of a feed that was not simply taken.
type FeedNote = feed.Note

// Listing says what the blocklists say of an address.
type Listing struct {
	Address   string     `json:"address"`
	Listed    bool       `json:"listed"` // an entry of the set in force covers it
	Entry     string     `json:"entry,omitempty"`
	Expires   time.Time  `json:"expires,omitzero"`
	On        []ListedBy `json:"on"`                  // feeds that name it, enforced or not
	Protected string     `json:"protected,omitempty"` // what keeps it from being listed
	Sentence  string     `json:"sentence"`
}

// ListedBy is one feed's line.
type ListedBy struct {
	Feed   string `json:"feed"`
	Entry  string `json:"entry"`
	Line   int    `json:"line"`
	Source string `json:"source"`
}

// Feeds lists the blocklists.
func (c *Client) Feeds(ctx context.Context) (f Feeds, err error) {
	return f, c.do(ctx, http.MethodGet, "/v1/feeds", nil, &f)
}

// Refused lists lines of a feed that were not simply taken, by the reader or by
// the guard.
func (c *Client) Refused(ctx context.Context, name string) (ns []FeedNote, err error) {
	return ns, c.do(ctx, http.MethodGet, "/v1/feeds/"+url.PathEscape(name)+"/refused", nil, &ns)
}

// ReloadFeeds takes over the configuration and reads one feed, or with "" all, now.
func (c *Client) ReloadFeeds(ctx context.Context, name string) (f Feeds, err error) {
	return f, c.do(ctx, http.MethodPost, "/v1/feeds/reload", targetRequest{name}, &f)
}

// WhyListed asks what the blocklists say of an address.
func (c *Client) WhyListed(ctx context.Context, addr string) (*Listing, error) {
	var l Listing
	if err := c.do(ctx, http.MethodGet, "/v1/listed/"+url.PathEscape(addr), nil, &l); err != nil {
		return nil, err
	}
	return &l, nil
}
