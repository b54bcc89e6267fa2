package node

import (
	"net/netip"
	"testing"
	"time"
)

// A restart neither begins the gathering anew nor lets those teach who are suspected.
// The control is a site that kept nothing.
func TestLessonsOutlastARestart(t *testing.T) {
	for _, kept := range []bool{false, true} {
		x := newLearned(t)
		x.talks(60)
		x.see(400)
		peer := netip.MustParseAddr("198.51.100.3")
		x.learn.suspect(peer)
		pool, later, seen, first := x.learn.pool.Len(), x.learn.later.Len(), x.learn.seen, x.learn.first
		if pool == 0 || later == 0 || seen == 0 {
			t.Fatalf("before: %d may teach, %d may examine, %d flows seen", pool, later, seen)
		}
		if kept {
			x.learn.keepLessons(x.now, true)
		}
		x.states()
		x.restart()
		l := x.learn
		if kept != (l.pool.Len() == pool && l.later.Len() == later && l.seen == seen && l.first.Equal(first.Truncate(time.Second)) && l.suspected(hashAddr(peer))) {
			t.Errorf("kept %v: after: %d of %d may teach, %d of %d may examine, %d of %d flows seen since %s, suspected %v",
				kept, l.pool.Len(), pool, l.later.Len(), later, l.seen, seen, l.first, l.suspected(hashAddr(peer)))
		}
		if !kept && l.pool.Len()+l.later.Len()+l.seen != 0 {
			t.Error("the control knows something")
		}
	}
}

// Of what was stored to learn from, all is taken or nothing.
func TestLessonsThatCannotBe(t *testing.T) {
	x := newLearned(t)
	x.see(400)
	x.learn.suspect(netip.MustParseAddr("198.51.100.3"))
	pool, err := x.learn.pool.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	later, err := x.learn.later.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	lesson := x.learn.encodeLesson()
	for n := range lesson {
		if _, err := decodeLesson(lesson[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken", n, len(lesson))
		}
	}
	for name, b := range map[string][3][]byte{
		"half a pool": {pool[:len(pool)/2], later, lesson}, "half of the later": {pool, later[:len(later)/2], lesson},
		"no lesson": {pool, later, nil}, "more": {pool, later, append(lesson[:len(lesson):len(lesson)], 0)},
	} {
		y := newLearned(t)
		if err := y.learn.takeLessons(x.now, b[0], b[1], b[2]); err == nil || y.learn.pool.Len()+y.learn.later.Len() != 0 || y.learn.seen != 0 {
			t.Errorf("%s: %v, %d entries are in use", name, err, y.learn.pool.Len())
		}
	}
	y := newLearned(t)
	if err := y.learn.takeLessons(x.learn.first.Add(-time.Hour), pool, later, lesson); err == nil {
		t.Error("a lesson of the future is taken")
	}
	if err := y.learn.takeLessons(x.now, pool, later, lesson); err != nil || y.learn.pool.Len() != x.learn.pool.Len() {
		t.Errorf("the control: %v", err)
	}
}
