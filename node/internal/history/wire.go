package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
)

// Basis is what a site reads its past by: its clock, the waiting time, and how the
// inputs of its model were distributed in training.
type Basis struct {
	Now       time.Time          `json:"now"`
	Wait      time.Duration      `json:"wait_ns"`
	Reference *quality.Reference `json:"reference"` // nil: no model yet
}

// Trained is what a lesson led to.
type Trained struct {
	Normals int              `json:"normals"` // reports that the model was trained on
	Later   int              `json:"later"`   // newer ones that it was examined on
	Attacks int              `json:"attacks"`
	Model   *lifecycle.Model `json:"model,omitempty"` // where it stands; nil when none was trained
	Words   string           `json:"words"`
}

const (
	lessonForm = 1
	// MaxEncoded bounds an encoded lesson, in bytes.
	MaxEncoded  = 16 << 20
	maxLesson   = 64 << 10 // bytes of a line
	maxHead     = 1 << 20
	maxSource   = 4096
	maxYear     = 4102444800 // 2100, in seconds since 1970
	maxWeighing = 1
)

// A lesson is handed over as lines of JSON: the head, then every report of normal
// traffic, oldest first, then every attack. Addresses are not in it, only hashes.
type (
	lessonHead struct {
		Form    int      `json:"lesson"`
		Schema  int      `json:"schema"`
		Normals int      `json:"normals"`
		Attacks int      `json:"attacks"`
		Bad     []Window `json:"bad_windows,omitempty"`
	}
	normalLine struct {
		At      int64  `json:"at_ns"`
		V       []byte `json:"v"`
		Host    uint64 `json:"host"`
		Peer    uint64 `json:"peer"`
		Service uint64 `json:"service"`
	}
	attackLine struct {
		V      []byte  `json:"v"`
		Weight float32 `json:"weight"`
		Family string  `json:"family"`
		Source string  `json:"source"`
	}
)

// Encode writes what teaches, and the windows that must not, for Decode.
func (l *Lesson) Encode(w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	head := lessonHead{Form: lessonForm, Schema: feature.Version, Normals: l.Normals.Len(), Attacks: len(l.Attacks), Bad: l.Bad}
	err := enc.Encode(&head)
	l.Normals.Each(func(at time.Time, v *feature.Vector, host, peer, service uint64) {
		b, _ := v.MarshalBinary() // never fails
		err = errors.Join(err, enc.Encode(&normalLine{at.UnixNano(), b, host, peer, service}))
	})
	for i := range l.Attacks {
		x := &l.Attacks[i]
		b, _ := x.V.MarshalBinary()
		err = errors.Join(err, enc.Encode(&attackLine{b, x.Weight, x.Family, x.Source}))
	}
	return errors.Join(err, out.Flush())
}

// Decode reads a lesson for a site and checks all of it: who sends it may be of
// another version. Normal traffic must have waited as long as the site says.
func Decode(r io.Reader, b Basis) (*Lesson, error) {
	d := &decoder{lines: bufio.NewScanner(io.LimitReader(r, MaxEncoded)), now: b.Now, wait: b.Wait}
	d.lines.Buffer(nil, maxHead)
	l, err := d.lesson()
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", d.line, err)
	}
	return l, nil
}

type decoder struct {
	lines *bufio.Scanner
	line  int
	now   time.Time
	wait  time.Duration
}

func (d *decoder) lesson() (*Lesson, error) {
	var head lessonHead
	if err := d.next(&head, maxHead); err != nil {
		return nil, err
	}
	switch {
	case head.Form != lessonForm:
		return nil, fmt.Errorf("field lesson: %d: expected %d: command and daemon are of different versions: restart the daemon", head.Form, lessonForm)
	case head.Schema != feature.Version:
		return nil, fmt.Errorf("field schema: %d: expected %d: command and daemon are of different versions: restart the daemon", head.Schema, feature.Version)
	case head.Normals < 0 || head.Normals > maxNormals:
		return nil, fmt.Errorf("field normals: %d: expected 0 to %d", head.Normals, maxNormals)
	case head.Attacks < 0 || head.Attacks > maxExamples:
		return nil, fmt.Errorf("field attacks: %d: expected 0 to %d", head.Attacks, maxExamples)
	case len(head.Bad) > maxBadTold:
		return nil, fmt.Errorf("field bad_windows: %d: expected at most %d", len(head.Bad), maxBadTold)
	}
	pool, err := learner.NewReservoir(learner.ReservoirOptions{Size: maxNormals})
	if err != nil {
		return nil, err
	}
	l := &Lesson{Normals: pool, Bad: head.Bad}
	for range head.Normals {
		if err := d.normal(l); err != nil {
			return nil, err
		}
	}
	for range head.Attacks {
		if err := d.attack(l); err != nil {
			return nil, err
		}
	}
	if d.lines.Scan() {
		d.line++
		return nil, errors.New("something follows the last report")
	}
	return l, d.lines.Err()
}

// next decodes one line.
func (d *decoder) next(v any, limit int) error {
	d.line++
	if !d.lines.Scan() {
		if err := d.lines.Err(); err != nil {
			return err
		}
		return errors.New("it ends here: expected as many reports as the head says")
	}
	if n := len(d.lines.Bytes()); n > limit {
		return fmt.Errorf("%d bytes: expected at most %d", n, limit)
	}
	j := json.NewDecoder(bytes.NewReader(d.lines.Bytes()))
	j.DisallowUnknownFields()
	if err := j.Decode(v); err != nil {
		return fmt.Errorf("expected one JSON object: %v", err)
	}
	if j.More() {
		return errors.New("expected one JSON object on a line")
	}
	return nil
}

func (d *decoder) normal(l *Lesson) error {
	var x normalLine
	if err := d.next(&x, maxLesson); err != nil {
		return err
	}
	if x.At < 0 || x.At > maxYear*int64(time.Second) {
		return fmt.Errorf("field at_ns: %d: expected a time from 1970 to 2100", x.At)
	}
	at := time.Unix(0, x.At)
	if at.After(d.now.Add(-d.wait)) {
		return fmt.Errorf("field at_ns: %s: expected normal traffic that is older than learner.wait, %s", at.UTC().Format(time.RFC3339), d.wait)
	}
	var v feature.Vector
	if err := v.UnmarshalBinary(x.V); err != nil {
		return fmt.Errorf("field v: %w", err)
	}
	l.Normals.Add(at, &v, x.Host, x.Peer, x.Service)
	return nil
}

func (d *decoder) attack(l *Lesson) error {
	var x attackLine
	if err := d.next(&x, maxLesson); err != nil {
		return err
	}
	e := Example{Source: x.Source}
	if err := e.V.UnmarshalBinary(x.V); err != nil {
		return fmt.Errorf("field v: %w", err)
	}
	switch w := float64(x.Weight); {
	case math.IsNaN(w) || w <= 0 || w > maxWeighing:
		return fmt.Errorf("field weight: %v: expected above 0 and at most %d", x.Weight, maxWeighing)
	case x.Family == "" || len(x.Family) > maxFamilyLen:
		return fmt.Errorf("field family: %d bytes: expected 1 to %d", len(x.Family), maxFamilyLen)
	case x.Source == "" || len(x.Source) > maxSource:
		return fmt.Errorf("field source: %d bytes: expected 1 to %d", len(x.Source), maxSource)
	}
	e.Weight, e.Family = x.Weight, x.Family
	l.Attacks = append(l.Attacks, e)
	return nil
}
