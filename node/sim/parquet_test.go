package sim

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// readParquet is a Parquet file's columns and its rows as words.
func readParquet(t *testing.T, b []byte) (head []string, kinds []parquet.Kind, rows [][]parquet.Value) {
	t.Helper()
	f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range f.Schema().Fields() {
		head, kinds = append(head, x.Name()), append(kinds, x.Type().Kind())
	}
	r := parquet.NewReader(f)
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	buf := make([]parquet.Row, 7)
	for {
		n, err := r.ReadRows(buf)
		for _, row := range buf[:n] {
			rows = append(rows, row.Clone())
		}
		if err != nil {
			return head, kinds, rows
		}
	}
}

func TestParquetIsReadBack(t *testing.T) {
	x := table{name: "x.csv", head: []string{"z", "a", "mixed", "yes", "data", "word"}, rows: [][]string{
		{"3", "0.250000", "1", "true", "123456789012", ""}, {"-4", "1.000000", "0.5", "false", "00e100000000", `a "quoted", word`},
	}}
	var one, two bytes.Buffer
	for _, b := range []*bytes.Buffer{&one, &two} {
		if err := x.parquet(b); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same table made other bytes")
	}
	head, kinds, rows := readParquet(t, one.Bytes())
	if strings.Join(head, ",") != strings.Join(x.head, ",") || len(rows) != 2 {
		t.Fatalf("%q, %d rows", head, len(rows))
	}
	for i, want := range []parquet.Kind{parquet.Int64, parquet.Double, parquet.Double, parquet.Boolean, parquet.ByteArray, parquet.ByteArray} {
		if kinds[i] != want {
			t.Errorf("%s is %v: expected %v", head[i], kinds[i], want)
		}
	}
	if r := rows[1]; r[0].Int64() != -4 || r[1].Double() != 1 || r[2].Double() != 0.5 || r[3].Boolean() || string(r[4].ByteArray()) != "00e100000000" || string(r[5].ByteArray()) != x.rows[1][5] {
		t.Errorf("read back: %v", r)
	}
	empty := table{name: "none.csv", head: x.head}
	var none bytes.Buffer
	if err := empty.parquet(&none); err != nil {
		t.Fatal(err)
	}
	if head, _, rows := readParquet(t, none.Bytes()); len(head) != len(x.head) || len(rows) != 0 {
		t.Errorf("an empty table: %q, %d rows", head, len(rows))
	}
}

// Each table that a run saves is there as Parquet, with as many rows.
func TestParquetBesideCSV(t *testing.T) {
	r := run(t, small())
	dir := t.TempDir()
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	saved := files(t, dir)
	for _, x := range r.tables() {
		b := saved[filepath.Base(x.columns())]
		head, _, rows := readParquet(t, b)
		if saved[x.name] == nil || len(rows) != len(x.rows) || len(head) != len(x.head) {
			t.Errorf("%s: %d rows of %d columns: expected %d of %d", x.columns(), len(rows), len(head), len(x.rows), len(x.head))
		}
	}
}
