package machine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink"
)

// WatchOptions of Watch. The zero value is this machine.
type WatchOptions struct {
	Options
	// Poll is how often it looks without being told: the kernel does not tell of
	// resolvers and sessions. 15 s.
	Poll time.Duration
	// Settle is how long it waits for more after it was told of a change; 300 ms.
	Settle time.Duration
	Log    *slog.Logger // nil discards
}

func (o *WatchOptions) fill() {
	o.defaults()
	if o.Poll == 0 {
		o.Poll = 15 * time.Second
	}
	if o.Settle == 0 {
		o.Settle = 300 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Watch looks at what NeverBlock and Own follow from (addresses, default
// routes, resolvers, sessions) when the kernel tells of a change and every Poll,
// and hands each view to seen, from the calling goroutine, until ctx ends; then
// it returns nil. A part that cannot be read keeps what it last was: a file that
// is just being replaced must not open a hole. Only the parts named here are
// filled in.
func Watch(ctx context.Context, o WatchOptions, seen func(*View)) error {
	o.fill()
	poll := time.NewTicker(o.Poll)
	defer poll.Stop()
	var news <-chan struct{}
	var last *View
	for {
		if news == nil {
			var err error
			if news, err = subscribe(ctx); err != nil {
				// Looking now and then still follows, only later.
				o.Log.Warn("the kernel does not tell of changes to addresses and routes", "error", err)
			}
		}
		if v := o.look(last); v != nil {
			last = v
			seen(v)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case _, ok := <-news:
			if !ok {
				news = nil // told too much at once, or cut off: look, and ask anew
			}
			settle(ctx, news, o.Settle)
		}
	}
}

// settle waits until d has passed, and takes what it is told meanwhile for the
// same news.
func settle(ctx context.Context, news <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case _, ok := <-news:
			if !ok {
				news = nil
			}
		}
	}
}

// look reads what can change while a site runs. It returns nil when there is
// nothing to go by.
func (o *WatchOptions) look(last *View) *View {
	v := &View{Unread: map[string]string{}, Now: o.Now()}
	if err := v.lookLinks(); err != nil {
		o.Log.Warn("the machine's addresses were not read", "error", err)
		return nil
	}
	v.lookRoutes()
	v.lookResolvers(o.Options)
	v.lookSessions(o.Options)
	if last != nil {
		v.keep(last)
	}
	return v
}

// keep takes over what could not be read this time.
func (v *View) keep(last *View) {
	if v.Unread["routes"] != "" {
		v.Routes = last.Routes
	}
	if v.Unread["resolvers"] != "" {
		v.Resolvers = last.Resolvers
	}
}

// subscribe returns a channel that has a value after each change to an address
// or a route, and closes when the kernel's own does.
func subscribe(ctx context.Context) (<-chan struct{}, error) {
	ctx, cancel := context.WithCancel(ctx)
	addrs, routes := make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	fail := func(error) { cancel() } // the library closes the channel as well
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: fail}); err != nil {
		cancel()
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, ctx.Done(), netlink.RouteSubscribeOptions{ErrorCallback: fail}); err != nil {
		cancel()
		go drain(addrs)
		return nil, fmt.Errorf("subscribe to routes: %w", err)
	}
	news := make(chan struct{}, 1)
	go func() {
		defer close(news)
		defer cancel()
		for addrs != nil && routes != nil {
			var ok bool
			select {
			case _, ok = <-addrs:
			case _, ok = <-routes:
			}
			if !ok {
				cancel()
				go drain(addrs)
				go drain(routes)
				return
			}
			select {
			case news <- struct{}{}:
			default: // one word of it is enough
			}
		}
	}()
	return news, nil
}

// drain empties a channel until its sender closes it.
func drain[T any](c <-chan T) {
	for range c {
	}
}
