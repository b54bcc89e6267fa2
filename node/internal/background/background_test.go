package background

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

func TestErrorsAndPanicsComeOut(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler))
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		work func(context.Context) error
		want string
	}{
		"nothing": {func(context.Context) error { return nil }, ""},
		"error":   {func(context.Context) error { return mine }, "mine"},
		"panic":   {func(context.Context) error { panic("torn") }, "background: panic: torn"},
		"exit":    {func(context.Context) error { runtime.Goexit(); return nil }, "background: the work ended its goroutine"},
	} {
		err := r.Run(t.Context(), c.work)
		if got := text(err); got != c.want {
			t.Errorf("%s: %q: expected %q", name, got, c.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestACancelledContextEndsTheWork(t *testing.T) {
	var r Runner
	ctx, cancel := context.WithCancel(t.Context())
	err := r.Run(ctx, func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v: expected the context's error", err)
	}
	err = r.Run(ctx, func(context.Context) error { t.Error("work began after the end"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v: expected the context's error", err)
	}
}

// What the system refuses is said once, and the work is done all the same.
func TestARefusalIsSaidOnce(t *testing.T) {
	var out bytes.Buffer
	r := New(slog.New(slog.NewTextHandler(&out, nil)))
	r.lower = func() error { return errors.New("not here") }
	ran := 0
	for range 3 {
		if err := r.Run(t.Context(), func(context.Context) error { ran++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "not here"); ran != 3 || n != 1 {
		t.Errorf("%d of 3 works were done, %d lines: expected one:\n%s", ran, n, out.String())
	}
}
