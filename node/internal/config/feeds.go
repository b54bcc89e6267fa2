package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Feeds are the site's blocklists, and what guards against wrong entries.
type Feeds struct {
	WarningLists   []string // absolute paths of files and folders
	IgnoreWarnings []string // names of warning lists that do not count
	MaxEntries     int      // of the merged set, 1000 to 10000000
	List           []Feed
}

// Feed is one blocklist. Path or URL is set.
type Feed struct {
	Name        string
	Path        string        // absolute
	URL         string        // https
	Format      string        // one of FeedFormats
	Column      string        // of a CSV file: name, or number from 1
	Every       time.Duration // between looks, 10 s to 30 d
	Expires     time.Duration // how long an entry outlives the last good look, above Every, to 60 d
	MinScore    float64       // 0 takes all
	ScoreColumn string
	MaxSize     int64  // bytes, 1 KiB to 1 GiB
	AuthFile    string // absolute; of format taxii
}

// FeedTAXII is the format of a feed whose URL is a TAXII 2.1 collection.
const FeedTAXII = "taxii"

// FeedFormats are the values of feed.format.
func FeedFormats() []string {
	return []string{"auto", "plain", "csv", "ipset", "stix", "misp", FeedTAXII}
}

// maxFeeds is how many feeds can be told apart in one merged set.
const maxFeeds = 64

// outlives is how long entries stay in force beyond the time of the next look.
const outlives = 4 * time.Hour

func defaultFeed() Feed {
	return Feed{Format: "auto", Every: time.Hour, MaxSize: 64 << 20}
}

// feedFields is every key of [[feed]].
func feedFields() []field[Feed] {
	return []field[Feed]{
		text("name", func(f *Feed) *string { return &f.Name }, checkName),
		text("path", func(f *Feed) *string { return &f.Path }, checkPath),
		text("url", func(f *Feed) *string { return &f.URL }, checkURL),
		text("format", func(f *Feed) *string { return &f.Format }, oneOf(FeedFormats()...)),
		{"column", columnWords, func(f *Feed, v any) error { return setColumn(&f.Column, v) }},
		duration("every", func(f *Feed) *time.Duration { return &f.Every }, 10*time.Second, 30*day),
		duration("expires", func(f *Feed) *time.Duration { return &f.Expires }, time.Minute, 60*day),
		number("min_score", func(f *Feed) *float64 { return &f.MinScore }, 0, 1e9),
		{"score_column", columnWords, func(f *Feed, v any) error { return setColumn(&f.ScoreColumn, v) }},
		{"max_size", sizeWords, setFeedSize},
		text("auth_file", func(f *Feed) *string { return &f.AuthFile }, checkPath),
	}
}

const (
	columnWords = "the name of a column, or its number from 1"
	sizeWords   = "a size from 1KiB to 1GiB as a string"
)

func feedKeys() []string {
	var keys []string
	for _, f := range feedFields() {
		keys = append(keys, f.key)
	}
	return keys
}

func (p *parser) feeds(v any) {
	list, ok := v.([]any)
	if !ok {
		p.problem("feed", "expected [[feed]] tables, one for each blocklist")
		return
	}
	for i, item := range list {
		key := fmt.Sprintf("feed[%d]", i)
		t, ok := item.(map[string]any)
		if !ok {
			p.problem(key, "expected a [[feed]] table")
			continue
		}
		p.feed(key, t)
	}
}

func (p *parser) feed(key string, t map[string]any) {
	f := defaultFeed()
	for _, k := range sortedKeys(t) {
		at := -1
		fs := feedFields()
		for i := range fs {
			if fs[i].key == k {
				at = i
			}
		}
		if at < 0 {
			p.problem(key+"."+k, "is not a known key%s", nearest(k, feedKeys()))
			continue
		}
		if err := fs[at].set(&f, t[k]); err != nil {
			p.problem(key+"."+k, "%s", err)
		}
	}
	if _, ok := t["name"]; !ok {
		p.problem(key, "name is required")
	}
	if f.Expires == 0 {
		f.Expires = f.Every + outlives
	}
	p.cfg.Feeds.List = append(p.cfg.Feeds.List, f)
}

// crossFeeds checks what one value of a feed says about another.
func (p *parser) crossFeeds() {
	names := map[string]bool{}
	for i, f := range p.cfg.Feeds.List {
		key := fmt.Sprintf("feed[%d]", i)
		switch {
		case f.Path == "" && f.URL == "":
			p.problem(key, "path or url is required")
		case f.Path != "" && f.URL != "":
			p.problem(key+".url", "found beside path: expected one of the two")
		}
		switch {
		case f.Format == FeedTAXII && f.Path != "":
			p.problem(key+".format", "found %q for a file: expected stix, or the url of a collection", f.Format)
		case f.Format != FeedTAXII && f.AuthFile != "":
			p.problem(key+".auth_file", "found with format %q: only taxii takes it", f.Format)
		}
		if f.Expires <= f.Every {
			p.problem(key+".expires", "found %q: expected more than every, %s: entries would end between two looks", FormatDuration(f.Expires), FormatDuration(f.Every))
		}
		if f.Name != "" && names[f.Name] {
			p.problem(key+".name", "found %q again: expected a name of its own for each feed", f.Name)
		}
		names[f.Name] = true
	}
	if n := len(p.cfg.Feeds.List); n > maxFeeds {
		p.problem("feed", "found %d feeds: expected at most %d", n, maxFeeds)
	}
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || len(s) > 4000 {
		return fmt.Errorf("expected an https URL such as https://lists.example.org/bad.txt")
	}
	return nil
}

func setColumn(at *string, v any) error {
	switch x := v.(type) {
	case int64:
		if x >= 1 && x <= 1000 {
			*at = strconv.FormatInt(x, 10)
			return nil
		}
	case string:
		if x != "" && len(x) <= 100 && !strings.ContainsAny(x, "\r\n\x00") {
			*at = x
			return nil
		}
	}
	return mismatch(v, columnWords)
}

func setFeedSize(f *Feed, v any) error {
	s, ok := v.(string)
	if !ok {
		return mismatch(v, sizeWords)
	}
	n, err := ParseSize(s)
	if err != nil {
		return err
	}
	if n < 1<<10 || n > 1<<30 {
		return mismatch(v, sizeWords)
	}
	f.MaxSize = n
	return nil
}

func absolute(s string) (string, error) { return s, checkPath(s) }

// label is the name of a warning list: that of its folder or file.
func label(s string) (string, error) {
	if s == "" || len(s) > 255 || strings.ContainsAny(s, "/\x00\n") {
		return "", fmt.Errorf("found %q: expected the name of a warning list, such as vpn-ipv4", s)
	}
	return s, nil
}
