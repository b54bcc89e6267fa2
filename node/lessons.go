package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// What may teach and examine is stored now and then and at the end: otherwise a site
// that is upgraded waits for learner.wait, and for enough traffic, before it can learn
// or judge a model again, and one that is restarted as it gets to know its traffic
// begins from nothing. The samples are megabytes, so it is less often than the ties.
const (
	keyPool    = "node/pool"
	keyLater   = "node/later"
	keyLesson  = "node/lesson"
	lessonForm = 1
)

// keepLessons stores it, if it is time or the site ends.
func (l *learning) keepLessons(now time.Time, end bool) {
	if !l.kept.due(now, end) || !l.n.o.Learner.Enabled {
		return
	}
	l.mu.Lock()
	pool, err := l.pool.MarshalBinary()
	later, err2 := l.later.MarshalBinary()
	lesson := l.encodeLesson()
	l.mu.Unlock()
	if err := errors.Join(err, err2); err != nil {
		l.n.log.Error("what may teach cannot be stored", telemetry.KeyErr, err)
		return
	}
	for _, x := range []kv{{keyPool, pool}, {keyLater, later}, {keyLesson, lesson}} {
		l.n.outbox.put(job{save: &x})
	}
}

// encodeLesson is how far the site is with its first model, and who is suspected: what
// they did must not teach after a restart either. The caller holds l.mu.
func (l *learning) encodeLesson() []byte {
	b := binary.AppendUvarint([]byte{lessonForm}, unix(l.first))
	b = binary.AppendUvarint(b, uint64(l.seen))
	b = binary.AppendUvarint(b, unix(l.taught))
	suspects := make([]uint64, 0, len(l.suspects))
	for h := range l.suspects {
		suspects = append(suspects, h)
	}
	slices.Sort(suspects)
	b = binary.AppendUvarint(b, uint64(len(suspects)))
	for _, h := range suspects {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return b
}

// lessonState is what encodeLesson keeps.
type lessonState struct {
	first, taught time.Time
	seen          int
	suspects      map[uint64]bool
}

func decodeLesson(b []byte) (s lessonState, err error) {
	d := decoder{b: b}
	if form := d.take(1); d.err != nil || form[0] != lessonForm {
		return s, errors.New("lesson: of another form")
	}
	s.first, s.seen, s.taught = d.time(), int(d.uvarint(1<<40)), d.time()
	s.suspects = map[uint64]bool{}
	for range d.uvarint(maxSuspects) {
		if h := d.take(8); d.err == nil {
			s.suspects[binary.LittleEndian.Uint64(h)] = true
		}
	}
	if d.err != nil || len(d.b) > 0 {
		return s, errors.New("lesson: cut short or out of range")
	}
	return s, nil
}

// loadLessons goes on from what was stored. All of it is taken or nothing: a sample
// without the list of the suspected would teach what they did.
func (l *learning) loadLessons() error {
	now := l.n.now()
	l.kept = keeper{every: time.Hour, last: now}
	var raw [3][]byte
	for i, key := range []string{keyPool, keyLater, keyLesson} {
		b, err := l.n.o.Store.Load(key)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("node: %v", err)
		}
		raw[i] = b
	}
	if err := l.takeLessons(now, raw[0], raw[1], raw[2]); err != nil {
		l.n.log.Warn("what was stored to learn from cannot be used: it is gathered anew", telemetry.KeyErr, err)
	}
	return nil
}

func (l *learning) takeLessons(now time.Time, pool, later, lesson []byte) error {
	s, err := decodeLesson(lesson)
	if err != nil {
		return err
	}
	if s.first.After(now) || s.taught.After(now) {
		return errors.New("lesson: of the future: is the clock right?")
	}
	p, x, err := newReservoirs(l.n)
	if err != nil {
		return err
	}
	if err := errors.Join(p.UnmarshalBinary(pool), x.UnmarshalBinary(later)); err != nil {
		return err
	}
	l.pool, l.later = p, x
	l.first, l.seen, l.taught, l.suspects = s.first, s.seen, s.taught, s.suspects
	return nil
}
