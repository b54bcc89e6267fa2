package dataset

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

// form is a table whose form is known, with a row that is right.
type form struct {
	name    string
	m       *Mapping
	columns []string
	row     map[string]string // cells that are not "1"
	// A column of numbers, one of words, one that must be there; "" has none.
	number, word, needed string
	time                 string
}

// matrixForms are the known tables, the samples of CICFlowMeter, and a table of a user.
func matrixForms(t *testing.T) []form {
	t.Helper()
	user := mapping(t, small+"")
	user.Unsigned = []string{"bytes"}
	return []form{
		{
			name: NSLKDD, m: &nslkdd, columns: nslkdd.Columns, number: "duration", word: "service",
			row: map[string]string{"protocol_type": "tcp", "service": "http", "flag": "SF", "attack": "normal"},
		},
		{
			name: UNSWNB15, m: &unsw, number: "dur", word: "service", needed: "attack_cat",
			columns: strings.Split("id,dur,proto,service,state,spkts,dpkts,sbytes,attack_cat,label", ","),
			row:     map[string]string{"dur": "0.5", "proto": "tcp", "service": "-", "state": "FIN", "attack_cat": "Normal", "label": "0"},
		},
		{
			name: Westermo, m: &westermo, number: "duration", word: "protocol", needed: "start", time: "start",
			columns: strings.Split("sAddress,rAddress,sMACs,rMACs,sIPs,rIPs,protocol,startDate,endDate,start,end,startOffset,endOffset,duration,sPackets,IT_B_Label,IT_M_Label,NST_B_Label,NST_M_Label", ","),
			row:     map[string]string{"protocol": "IPV4-TCP", "start": "1678440573.5", "NST_M_Label": "Normal"},
		},
		{
			name: CICIDS2017, m: cicMappings[CICIDS2017], number: "Flow Duration", needed: "Label",
			columns: []string{"Flow Duration", "Total Fwd Packets", "Init_Win_bytes_forward", "Label"}, row: map[string]string{"Label": "BENIGN"},
		},
		{
			name: "mapping", m: user, number: "bytes", word: "proto", needed: "kind", time: "start",
			columns: []string{"id", "start", "bytes", "proto", "kind"}, row: map[string]string{"proto": "tcp", "kind": "ok"},
		},
	}
}

// line writes a row in an order of columns, with one cell changed.
func (f *form) line(order []string, column, cell string) string {
	out := make([]string, len(order))
	for i, n := range order {
		out[i] = "1"
		if c, ok := f.row[n]; ok {
			out[i] = c
		}
		if n == column {
			out[i] = cell
		}
	}
	return strings.Join(out, ",") + "\n"
}

func (f *form) head(order []string) string {
	if len(f.m.Columns) > 0 {
		return ""
	}
	return strings.Join(order, ",") + "\r\n"
}

// take reads a text as a table.
func (f *form) take(text string) (*builder, error) {
	b := newBuilder(f.m)
	l, err := lines.New("some.csv", strings.NewReader(text), maxLine)
	if err != nil {
		return nil, err
	}
	return b, b.read(l, Part{File: "some.csv"})
}

// TestEveryTableNamesBadCells: whatever the table, a bad cell between two rows that are
// right is named with file, line and column, and the two are used.
func TestEveryTableNamesBadCells(t *testing.T) {
	for _, f := range matrixForms(t) {
		for what, c := range map[string]struct{ column, cell, want string }{
			"words":             {f.number, "many", "expected a number"},
			"hexadecimal":       {f.number, "0x1p-2", "expected a number"},
			"overflow":          {f.number, "1e39", "expected a finite number"},
			"beyond all":        {f.number, "1e99999", "expected a"},
			"negative duration": {f.number, "-0.5", "not below 0"},
			"endless word":      {f.word, strings.Repeat("x", maxWord+1), "expected a word"},
			"time that is none": {f.time, "yesterday", "invalid syntax"},
			"time of a zone":    {f.time, "2026-01-02T15:04:05+01:00", "invalid syntax"},
			"time NaN":          {f.time, "NaN", "expected seconds"},
			"time overflow":     {f.time, "1e16", "expected seconds"},
			"no class":          {f.m.Label, "", "expected a word"},
		} {
			if c.column == "" {
				continue
			}
			t.Run(f.name+"/"+what, func(t *testing.T) {
				good := f.line(f.columns, "", "")
				b, err := f.take(f.head(f.columns) + good + f.line(f.columns, c.column, c.cell) + good)
				if err != nil || b.report.Rows != 2 || b.report.Bad != 1 {
					t.Fatalf("%v: %+v", err, b.report)
				}
				line := 2 + strings.Count(f.head(f.columns), "\n")
				if x := b.report.Faults[0]; x.File != "some.csv" || x.Line != line || x.Column != c.column || !strings.Contains(x.Reason, c.want) {
					t.Errorf("%s: expected line %d, column %s and %q", x, line, c.column, c.want)
				}
			})
		}
	}
}

// TestEveryTableNamesBadLines: the same of whole lines, and of a number that is not
// one, which is absent where the mapping says so.
func TestEveryTableNamesBadLines(t *testing.T) {
	for _, f := range matrixForms(t) {
		good := f.line(f.columns, "", "")
		for what, c := range map[string]struct{ bad, want string }{
			"fewer cells": {strings.Join(strings.Split(good, ",")[1:], ","), "cells: expected"},
			"more cells":  {"1," + good, "cells: expected"},
			"open quote":  {`"` + good, "a quote is not closed"},
			"too long":    {strings.Repeat("1", maxLine+1) + "\n", "longer than"},
		} {
			t.Run(f.name+"/"+what, func(t *testing.T) {
				b, err := f.take(f.head(f.columns) + good + c.bad + good)
				if err != nil || b.report.Rows != 2 || b.report.Bad != 1 || !strings.Contains(b.report.Faults[0].Reason, c.want) {
					t.Errorf("%v: %+v: expected %q", err, b.report, c.want)
				}
			})
		}
		t.Run(f.name+"/half a line", func(t *testing.T) {
			b, err := f.take(f.head(f.columns) + good + strings.TrimSuffix(good, "\n"))
			if err != nil || b.report.Rows != 1 || b.report.Bad != 1 || !strings.Contains(b.report.Faults[0].Reason, "a line end") {
				t.Errorf("%v: %+v", err, b.report)
			}
		})
		t.Run(f.name+"/NaN", func(t *testing.T) {
			b, err := f.take(f.head(f.columns) + good + f.line(f.columns, f.number, "NaN") + good)
			if err != nil || b.report.Rows+b.report.Bad != 3 || (b.report.Bad == 1) == slices.Contains(f.m.Absent, "NaN") {
				t.Errorf("%v: %+v", err, b.report)
			}
		})
	}
}

// TestEveryTableTakesOtherColumns: with its columns in another order, or with some that
// nobody knows, the same row is read; without one that must be there none is.
func TestEveryTableTakesOtherColumns(t *testing.T) {
	for _, f := range matrixForms(t) {
		if len(f.m.Columns) > 0 {
			continue // a table without names has its order only
		}
		t.Run(f.name, func(t *testing.T) {
			back := append(slices.Clone(f.columns), "something new")
			slices.Reverse(back)
			b, err := f.take(f.head(back) + f.line(back, f.number, "7"))
			if err != nil || b.report.Rows != 1 {
				t.Fatalf("in another order: %v", err)
			}
			i := slices.Index(back, f.number)
			for k, c := range b.cols {
				if c.Name == f.number && (b.roles[i] != number || b.cols[k].Num[0] != 7) {
					t.Errorf("%s is %v", f.number, c.Num)
				}
			}
			fewer := slices.DeleteFunc(slices.Clone(f.columns), func(s string) bool { return s == f.needed })
			if _, err := f.take(f.head(fewer) + f.line(fewer, "", "")); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("line 1: column %q of the mapping is missing", f.needed)) {
				t.Errorf("without %s: %v", f.needed, err)
			}
		})
	}
}

// TestEveryTableBoundsItsWords: of ever new words no more are kept than is allowed, and
// those beyond are named.
func TestEveryTableBoundsItsWords(t *testing.T) {
	f := matrixForms(t)[4]
	b, err := f.take(f.head(f.columns) + f.line(f.columns, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(b.cols, func(c tabular.Column) bool { return c.Name == f.word })
	for i := len(b.words[at]); i < tabular.MaxWords; i++ {
		b.words[at][fmt.Sprintf("w%d", i)] = int32(i)
	}
	for word, want := range map[string]string{"tcp": "", "w9": "", "new": "more than 100000 distinct words"} {
		line := strings.TrimSuffix(f.line(f.columns, f.word, word), "\n")
		if column, err := b.line(line, true, false, ""); want == "" != (err == nil) || err != nil && (column != f.word || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: column %s: %v", word, column, err)
		}
	}
}
