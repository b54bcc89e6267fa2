package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// NewLogger returns a logger that writes to w as "text" or "json" from level
// on. A *slog.LevelVar as level can be moved while the logger is in use.
func NewLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format: found %q: expected text or json", format)
}

// Discard is the logger of whoever was given none.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// LogEvent writes an event as one record, under the key "event", with exactly
// the keys of the schema. What an operator should look at is a warning; the
// many flows are for debugging.
func LogEvent(ctx context.Context, log *slog.Logger, e *event.Event) {
	level := levelOf(e)
	switch e.Kind {
	case event.KindFlow:
		log.Log(ctx, level, "flow", KeyEvent, Value(e))
	case event.KindAlert:
		log.Log(ctx, level, "alert", KeyEvent, Value(e))
	case event.KindIncident:
		log.Log(ctx, level, "incident", KeyEvent, Value(e))
	case event.KindVerdict:
		log.Log(ctx, level, "verdict", KeyEvent, Value(e))
	case event.KindBlock:
		log.Log(ctx, level, "block", KeyEvent, Value(e))
	case event.KindIndicator:
		log.Log(ctx, level, "indicator", KeyEvent, Value(e))
	case event.KindModel:
		log.Log(ctx, level, "model", KeyEvent, Value(e))
	case event.KindPeer:
		log.Log(ctx, level, "peer", KeyEvent, Value(e))
	case event.KindFlood:
		log.Log(ctx, level, "flood", KeyEvent, Value(e))
	case event.KindQuality:
		log.Log(ctx, level, "quality of what was seen", KeyEvent, Value(e))
	}
}

func levelOf(e *event.Event) slog.Level {
	switch e.Kind {
	case event.KindFlow:
		return slog.LevelDebug
	case event.KindAlert, event.KindIncident, event.KindFlood:
		return slog.LevelWarn
	case event.KindQuality:
		if e.Quality != nil && e.Quality.Verdict == "bad" {
			return slog.LevelWarn
		}
	case event.KindVerdict:
		if e.Verdict != nil && (e.Verdict.Action == "suspend" || e.Verdict.Action == "block") {
			return slog.LevelWarn
		}
	}
	return slog.LevelInfo
}

// Value renders an event for slog when, and only when, a handler asks for it.
func Value(e *event.Event) slog.LogValuer { return eventValue{e} }

type eventValue struct{ e *event.Event }

// LogValue is the event as groups of attributes, named as in its JSON form.
func (v eventValue) LogValue() slog.Value {
	if v.e == nil {
		return slog.GroupValue()
	}
	return slog.GroupValue(attrs(reflect.ValueOf(*v.e))...)
}

func attrs(v reflect.Value) []slog.Attr {
	var list []slog.Attr
	for i := range v.NumField() {
		name, opts, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		f := v.Field(i)
		if name == "" || name == "-" || opts == "omitempty" && empty(f) {
			continue
		}
		list = append(list, attr(name, f))
	}
	return list
}

// empty is what encoding/json leaves out under omitempty.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func attr(name string, v reflect.Value) slog.Attr {
	switch x := v.Interface().(type) {
	case time.Time:
		return slog.Time(name, x)
	case fmt.Stringer:
		return slog.String(name, x.String())
	}
	switch v.Kind() {
	case reflect.Pointer:
		return slog.Attr{Key: name, Value: slog.GroupValue(attrs(v.Elem())...)}
	case reflect.Struct:
		return slog.Attr{Key: name, Value: slog.GroupValue(attrs(v)...)}
	case reflect.String:
		return slog.String(name, v.String())
	}
	return slog.Any(name, v.Interface())
}
