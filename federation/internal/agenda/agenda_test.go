package agenda

import (
	"slices"
	"testing"
	"time"
)

func TestOrder(t *testing.T) {
	var a Agenda
	var did []string
	say := func(s string) func() { return func() { did = append(did, s) } }
	a.After(2*time.Second, say("c"))
	a.After(time.Second, func() { a.After(0, say("b")); say("a")() })
	a.After(time.Second, say("at once with a"))
	a.After(time.Minute, say("late"))
	a.Run(time.Second)
	a.Run(time.Second)
	if want := []string{"a", "at once with a", "b", "c"}; !slices.Equal(did, want) || !a.Now.Equal(time.Time{}.Add(2*time.Second)) {
		t.Errorf("did %q until %s: expected %q until the second second", did, a.Now, want)
	}
}

func TestAlarm(t *testing.T) {
	var a Agenda
	var r Alarm
	rang, life := []time.Duration{}, 1
	set := func(d time.Duration) {
		mine := life
		r.Set(&a, d, func() bool { return life == mine }, func() { rang = append(rang, a.Now.Sub(time.Time{})/time.Second) })
	}
	set(5 * time.Second)
	set(7 * time.Second) // it is called before
	set(3 * time.Second)
	a.Run(10 * time.Second)
	set(time.Second)
	life++
	a.Run(10 * time.Second)
	if !slices.Equal(rang, []time.Duration{3}) {
		t.Errorf("rang at %v: expected at 3 alone", rang)
	}
}
