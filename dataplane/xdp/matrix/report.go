package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// report reads the console of a kernel and keeps what it says of the tests.
type report struct {
	kernel string
	out    io.Writer // whole console, or nothing
	began  time.Time
	took   time.Duration
	line   *bytes.Buffer

	*tally
}

type tally struct {
	passed, failed, skipped int
	ended                   bool     // the tests' last line came
	says                    []string // by hedgerow check of what is missing
	notes                   []string
	tail                    []string // of the output, to show after a failure
}

func newReport(kernel string, o options) report {
	r := report{kernel: kernel, out: io.Discard, began: time.Now(), line: new(bytes.Buffer), tally: new(tally)}
	if o.verbose {
		r.out = os.Stderr
	}
	return r
}

// maxLine bounds what a guest can make us keep.
const (
	maxLine = 1 << 16
	maxTail = 60
)

// Write implements [io.Writer] over the console.
func (r report) Write(b []byte) (int, error) {
	if _, err := r.out.Write(b); err != nil {
		return 0, err
	}
	for _, c := range b {
		if c == '\n' || r.line.Len() > maxLine {
			r.read(strings.TrimRight(r.line.String(), "\r"))
			r.line.Reset()
			continue
		}
		r.line.WriteByte(c)
	}
	return len(b), nil
}

// read takes one line. Subtests count, since a case of the suite is one.
func (r report) read(line string) {
	text := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(text, "--- PASS: "):
		r.passed++
		return
	case strings.HasPrefix(text, "--- FAIL: "):
		r.failed++
	case strings.HasPrefix(text, "--- SKIP: "):
		r.skipped++
	case text == "PASS", text == "FAIL":
		r.ended = true
	case strings.HasPrefix(text, saysPrefix):
		r.says = append(r.says, strings.TrimPrefix(text, saysPrefix))
	case strings.HasPrefix(text, "=== "):
		return
	}
	r.tail = append(r.tail, line)
	if len(r.tail) > maxTail {
		r.tail = r.tail[1:]
	}
}

func (r report) note(s string) { r.notes = append(r.notes, s) }

func (r report) done() report {
	r.took = time.Since(r.began)
	return r
}

// ok wants tests that passed, not only none that failed.
func (r report) ok() bool { return r.ended && r.failed == 0 && r.passed > 0 && len(r.notes) == 0 }

// String is one line, and after a failure the end of the console.
func (r report) String() string {
	word := "ok    "
	if !r.ok() {
		word = "FAILED"
	}
	s := fmt.Sprintf("%s  %-28s %d passed, %d failed, %d skipped, %.0f s", word, r.kernel, r.passed, r.failed, r.skipped, r.took.Seconds())
	for _, n := range r.notes {
		s += "; " + n
	}
	for _, n := range r.says {
		s += "\n        check: " + n
	}
	if !r.ok() {
		s += "\n        | " + strings.Join(r.tail, "\n        | ")
	}
	return s
}
