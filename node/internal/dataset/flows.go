package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// Captures is a list of captures and logs of flows that are one data set. A row is
// a flow: what it carried, how and how fast, its protocol and port. Addresses, the
// side that began and the time are no features. A flow of which nobody says whether
// it is an attack is left out.
type Captures struct {
	// Split is how the rows are parted for training and test: group, time or place;
	// by default group.
	Split string `toml:"split"`
	// Inside are the protected prefixes; by default what a log says, or private ones.
	Inside []netip.Prefix `toml:"inside"`
	Files  []Capture      `toml:"files"`
}

// Capture is one file of a list.
type Capture struct {
	File string `toml:"file"` // a capture or a log of flows, also gzipped
	// Truth is "attack" or "benign" for all of it, a file of labels, or "" for what
	// the log itself says.
	Truth string `toml:"truth"`
	Class string `toml:"class"` // of its attacks; by default what the labels name
	Place string `toml:"place"` // where it was taken
}

const (
	maxCaptures = 1000
	maxFlowRows = 1_000_000
)

// ParseCaptures reads a list in TOML; paths are taken from folder.
func ParseCaptures(r io.Reader, folder string) (*Captures, error) {
	d := toml.NewDecoder(io.LimitReader(r, maxMapping)).DisallowUnknownFields()
	var c Captures
	if err := d.Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) && len(strict.Errors) > 0 {
			return nil, fmt.Errorf("captures: %v: is not a known key", strict.Errors[0].Key())
		}
		return nil, fmt.Errorf("captures: %w", err)
	}
	if n := len(c.Files); n < 1 || n > maxCaptures {
		return nil, fmt.Errorf("captures: files: found %d: expected 1 to %d", n, maxCaptures)
	}
	if !slices.Contains([]string{"", "group", "time", "place"}, c.Split) {
		return nil, fmt.Errorf("captures: split: found %q: expected group, time or place", c.Split)
	}
	from := func(p *string) {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
	for i := range c.Files {
		f := &c.Files[i]
		if f.File == "" {
			return nil, fmt.Errorf("captures: files: number %d: file: expected the name of a capture or a log", i+1)
		}
		from(&f.File)
		if f.Truth != "" && f.Truth != "attack" && f.Truth != "benign" {
			from(&f.Truth)
		}
	}
	return &c, nil
}

// flowWords and flowNumbers are the columns of a flow; numbers marked as of both
// directions are two columns.
var flowWords = []string{"protocol", "port"}

type flowNumber struct {
	name  string
	lacks flow.Lack
	of    func(r *flow.Record, d *flow.Dir) float64
	both  bool // directions
}

var flowNumbers = []flowNumber{
	{"seconds", flow.LackSpan, func(r *flow.Record, _ *flow.Dir) float64 { return r.Duration().Seconds() }, false},
	{"handshake_us", flow.LackRTT, func(r *flow.Record, _ *flow.Dir) float64 { return float64(r.SynAckUS) }, false},
	{"packets", flow.LackPackets | flow.LackSplit, func(_ *flow.Record, d *flow.Dir) float64 { return float64(d.Packets) }, true},
	{"bytes", flow.LackBytes, func(_ *flow.Record, d *flow.Dir) float64 { return float64(d.Bytes) }, true},
	{"payload", flow.LackPayload, func(_ *flow.Record, d *flow.Dir) float64 { return float64(d.Payload) }, true},
	{"size_max", flow.LackSizeMax, func(_ *flow.Record, d *flow.Dir) float64 { return float64(d.SizeMax) }, true},
	{"gap_max_us", flow.LackGapMax, func(_ *flow.Record, d *flow.Dir) float64 { return float64(d.GapMax) }, true},
	{"syn", flow.LackSYN, func(_ *flow.Record, d *flow.Dir) float64 { return float64(d.SYN) }, true},
	{"fin", flow.LackFlags, func(_ *flow.Record, d *flow.Dir) float64 { return float64(min(d.FIN, 1)) }, true},
	{"rst", flow.LackFlags, func(_ *flow.Record, d *flow.Dir) float64 { return float64(min(d.RST, 1)) }, true},
}

func flowHead() []string {
	head := append([]string{"class", "time"}, flowWords...)
	for _, n := range flowNumbers {
		head = append(head, n.name)
		if n.both {
			head = append(head, n.name+"_back")
		}
	}
	return head
}

// flowCells writes a flow as the cells of a row.
func flowCells(r *flow.Record, class string) []string {
	cells := []string{class, strconv.FormatFloat(float64(r.Start)/1e9, 'f', 6, 64), "", ""}
	if r.Lacks&flow.LackClock != 0 {
		cells[1] = "0"
	}
	if r.Lacks&flow.LackProto == 0 {
		cells[2] = strconv.Itoa(int(r.Key.Proto))
	}
	if r.Lacks&flow.LackPort == 0 {
		cells[3] = strconv.Itoa(int(r.Responder().Port()))
	}
	for _, n := range flowNumbers {
		ends := 1
		if n.both {
			ends = 2
		}
		for d := range ends {
			cell := ""
			if r.Lacks&n.lacks == 0 {
				cell = strconv.FormatFloat(n.of(r, &r.Dir[d]), 'g', -1, 64)
			}
			cells = append(cells, cell)
		}
	}
	return cells
}

// Flows reads a list of captures and logs into a table.
func Flows(ctx context.Context, c *Captures) (*tabular.Table, error) {
	b := newBuilder(&Mapping{Label: "class", Normal: []string{Normal}, Words: flowWords, Time: "time"})
	if err := b.head(flowHead()); err != nil {
		return nil, err
	}
	for i := range c.Files {
		if err := b.flows(ctx, &c.Files[i], c.Inside); err != nil {
			return nil, err
		}
	}
	t := b.table()
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("read %d captures: %w", len(c.Files), err)
	}
	return t, nil
}

// flows adds the flows of one file.
func (b *builder) flows(ctx context.Context, f *Capture, inside []netip.Prefix) error {
	truth, err := history.ReadTruth(f.Truth)
	if err := errors.Join(err, truth.Strict()); err != nil {
		return err
	}
	place := f.Place
	if place == "" {
		place = "everywhere"
	}
	var fault error
	_, err = history.Read(ctx, f.File, history.Options{Inside: inside, Truth: truth}, func(r *history.Report) {
		class := classOf(r, f.Class)
		if !r.Final || class == "" || fault != nil {
			return
		}
		if _, fault = b.row(flowCells(r.Record, class), place); fault != nil {
			return
		}
		if b.report.Rows++; b.report.Rows > maxFlowRows {
			fault = fmt.Errorf("more than %d flows", maxFlowRows)
		}
	})
	if err := errors.Join(err, fault); err != nil {
		return fmt.Errorf("read %s: %w", f.File, err)
	}
	return nil
}

// classOf names what a flow is; "" where nobody says.
func classOf(r *history.Report, attacks string) string {
	switch r.Class {
	case flowlog.Normal:
		return Normal
	case flowlog.Attack:
		switch {
		case attacks != "":
			return attacks
		case r.Family != "":
			return r.Family
		}
		return "attack"
	}
	return ""
}

// StratosphereHosts are the flows of three machines of one network, a day each, by
// the labels of their logs: what came from outside and was not on a list of what is
// wanted is called an attack.
func StratosphereHosts(data string) *Captures {
	c := &Captures{Split: "group"}
	for i, f := range Hosts(data) {
		c.Files = append(c.Files, Capture{File: f, Class: "external", Place: []string{"008", "010", "011"}[i]})
	}
	return c
}
