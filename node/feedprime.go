package node

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// Prime enforces what earlier runs kept of the blocklists, without asking any
// source. A plane that replaces another one's programs, over tables of its own,
// needs that before it does so; otherwise Run is early enough.
func (n *Node) Prime(ctx context.Context) { n.feeds.prime(ctx) }

func (f *feeds) prime(ctx context.Context) {
	f.work.Lock()
	defer f.work.Unlock()
	if f.bulk == nil || len(f.list) == 0 {
		return
	}
	f.readWarnings(ctx, true)
	for _, s := range f.list {
		l, taken, err := f.keptCopy(ctx, s, f.reading(s))
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				f.n.log.Warn("copy of a feed cannot be used", telemetry.KeyFeed, s.Name, telemetry.KeyErr, err)
			}
			continue
		}
		f.mu.Lock()
		s.list, s.good, s.kept = l, taken, true // its next look is due all the same
		f.mu.Unlock()
	}
	f.renew(ctx)
}

// keptCopy reads the copy of an earlier run in the background.
func (f *feeds) keptCopy(ctx context.Context, s *feedState, o feed.Options) (l *feed.List, taken time.Time, err error) {
	err = f.n.back.Run(ctx, func(ctx context.Context) (err error) {
		l, taken, err = s.src.Kept(ctx, o)
		return err
	})
	return l, taken, err
}

// reading says how a feed is read.
func (f *feeds) reading(s *feedState) feed.Options {
	format := feed.Format(s.Format)
	if s.Format == formatTAXII {
		format = feed.STIX
	}
	return feed.Options{
		Format: format, Column: s.Column, MinScore: s.MinScore, ScoreColumn: s.ScoreColumn,
		Now: f.n.now(), MaxBytes: 4 * s.MaxSize,
	}
}
