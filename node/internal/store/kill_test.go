package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// The child is this test binary run again with these set.
const (
	killDir   = "HEDGEROW_KILL_DIR"
	killStart = "HEDGEROW_KILL_START"
)

const (
	writers   = 4
	killSlots = 5
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := killChild(dir, os.Getenv(killStart)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// killChild writes until it is killed, and says each acknowledgement.
func killChild(dir, start string) error {
	var from [writers]int
	if err := json.Unmarshal([]byte(start), &from); err != nil {
		return err
	}
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	if s.Missing().Any() {
		return errors.New(s.Missing().String())
	}
	var say sync.Mutex
	failed := make(chan error)
	for w := range writers {
		go func() {
			for n := from[w]; ; n++ {
				if err := killStep(s, w, n); err != nil {
					failed <- err
					return
				}
				say.Lock()
				_, err := fmt.Printf("%d %d\n", w, n)
				say.Unlock()
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// killStep is write n of writer w. What it writes follows from w and n alone.
func killStep(s *Store, w, n int) error {
	switch n % 4 {
	case 0, 1:
		b := s.Batch()
		b.Event(killEvent(w, n))
		b.Block(killBlock(w, n))
		return b.Commit()
	case 2:
		return s.Save(killKey(w, n), killValue(w, n))
	default:
		hash := fmt.Sprintf("m%d-%d", w, n)
		if err := s.PutModel(event.Model{Hash: hash}, killValue(w, n)); err != nil {
			return err
		}
		return s.SetActive(fmt.Sprint("w", w), hash)
	}
}

func killEvent(w, n int) *event.Event {
	e := peerEvent(epoch.Add(time.Duration(n)*time.Millisecond), fmt.Sprint(w, " ", n))
	e.ID = fmt.Sprintf("%013x%d", n, w)
	return e
}

func killBlock(w, n int) event.Block {
	return event.Block{Target: fmt.Sprintf("w%d-%d", w, n%killSlots), ReasonID: uint32(n)}
}

func killKey(w, n int) string { return fmt.Sprintf("k%d-%d", w, n%killSlots) }

// killValue is a pattern that names its write in every part; now and then it is
// large enough for the value log, and rarely for several parts.
func killValue(w, n int) []byte {
	size := 64
	switch h := fnv.New32a(); {
	case n%32 == 2:
		size = 100 << 10
	case n%256 == 6:
		size = partSize + 1000
	default:
		fmt.Fprint(h, w, n)
		size += int(h.Sum32() % 2000)
	}
	unit := fmt.Sprintf("<%d %d>", w, n)
	return []byte(strings.Repeat(unit, size/len(unit)+1))
}

// killed runs a child, kills it after a random time, and returns the journal:
// the last acknowledged write of each writer.
func killed(t *testing.T, dir string, from [writers]int, rng *rand.Rand) [writers]int {
	t.Helper()
	start, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir, killStart+"="+string(start))
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A random number of acknowledgements and then a random moment: some kills
	// fall into the opening, some between a write and its acknowledgement.
	acks, pause := rng.IntN(120), time.Duration(rng.IntN(4000))*time.Microsecond
	last := from
	for w := range last {
		last[w]--
	}
	sc := bufio.NewScanner(out)
	kill := func() { time.AfterFunc(pause, func() { _ = cmd.Process.Kill() }) }
	if acks < 10 {
		pause *= 20 // before or during the opening
		kill()
	}
	for n := 0; sc.Scan(); n++ {
		var w, i int
		if c, err := fmt.Sscanf(sc.Text(), "%d %d", &w, &i); err != nil || c != 2 || w < 0 || w >= writers {
			break // the line that the kill cut
		}
		last[w] = i
		if n == acks && acks >= 10 {
			kill()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v: %s", err, stderr.String())
	}
	return last
}

// state is what a site must find after the kill: for each name the number of
// the write that it holds.
type killState map[string]int

// expect notes the writes from..last of writer w; the one after last may or may
// not have happened and is allowed besides.
func (k killState) check(t *testing.T, name string, got, last int, w int) {
	t.Helper()
	want, known := k[name]
	if got != want && got != last+1 {
		t.Fatalf("writer %d, %s: holds write %d, acknowledged was %d (known %v), in flight %d", w, name, got, want, known, last+1)
	}
	k[name] = got
}

func verifyKilled(t *testing.T, dir string, from, last [writers]int, state killState) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Missing().Any() {
		t.Fatal(s.Missing())
	}
	for w := range writers {
		for n := from[w]; n <= last[w]; n++ {
			verifyWrite(t, s, w, n)
			switch n % 4 {
			case 0, 1:
				state[killBlock(w, n).Target] = n
			case 2:
				state[killKey(w, n)] = n
			default:
				state[fmt.Sprint("w", w)] = n
			}
		}
		verifySlots(t, s, w, last[w], state)
	}
	blocks, err := s.Blocks()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		var w, slot int
		if _, err := fmt.Sscanf(b.Target, "w%d-%d", &w, &slot); err != nil {
			t.Fatal(err)
		}
		state.check(t, b.Target, int(b.ReasonID), last[w], w)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// verifyWrite looks for what no later write replaces: events and models.
func verifyWrite(t *testing.T, s *Store, w, n int) {
	t.Helper()
	switch n % 4 {
	case 0, 1:
		want := killEvent(w, n)
		if e, err := s.Event(want.ID); err != nil || e.Peer.Name != want.Peer.Name {
			t.Fatalf("acknowledged event %d of writer %d: %v, %v", n, w, e, err)
		}
	case 3:
		if _, b, err := s.Model(fmt.Sprintf("m%d-%d", w, n)); err != nil || !bytes.Equal(b, killValue(w, n)) {
			t.Fatalf("acknowledged model %d of writer %d: %d bytes, %v", n, w, len(b), err)
		}
	}
}

// verifySlots looks for torn or lost values of writer w.
func verifySlots(t *testing.T, s *Store, w, last int, state killState) {
	t.Helper()
	for slot := range killSlots {
		key := killKey(w, slot)
		b, err := s.Load(key)
		if errors.Is(err, ErrNotFound) {
			if n, ok := state[key]; ok {
				t.Fatalf("%s is gone, acknowledged was %d", key, n)
			}
			continue
		}
		var ww, n int
		if err == nil {
			_, err = fmt.Sscanf(string(b), "<%d %d>", &ww, &n)
		}
		if err != nil || !bytes.Equal(b, killValue(w, n)) {
			t.Fatalf("%s is torn: %d bytes, %v", key, len(b), err)
		}
		state.check(t, key, n, last, w)
	}
	hash, err := s.Active(fmt.Sprint("w", w))
	if errors.Is(err, ErrNotFound) {
		return
	}
	var ww, n int
	if _, scan := fmt.Sscanf(hash, "m%d-%d", &ww, &n); err != nil || scan != nil {
		t.Fatalf("slot of writer %d: %q, %v", w, hash, err)
	}
	state.check(t, fmt.Sprint("w", w), n, last, w)
}

// Kills at random moments: nothing acknowledged is lost, nothing is torn. The
// journal of acknowledgements is kept here, outside the process that dies.
func TestKill(t *testing.T) {
	kills := 10
	if os.Getenv("HEDGEROW_LONG") == "1" {
		kills = 200
	}
	dir, state, acked := t.TempDir(), killState{}, 0
	rng := rand.New(rand.NewPCG(uint64(kills), 7))
	var from [writers]int
	for range kills {
		last := killed(t, dir, from, rng)
		verifyKilled(t, dir, from, last, state)
		for w := range writers {
			acked += last[w] - from[w] + 1
			from[w] = last[w] + 2 // the write in flight keeps its number
		}
	}
	if acked == 0 {
		t.Fatal("no child acknowledged anything")
	}
	t.Logf("%d kills, %d acknowledged writes, none lost, none torn", kills, acked)
}
