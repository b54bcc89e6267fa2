package sim

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// kind is what a column of a table holds. It is told by the cells, so that both
// files say the same: whole numbers, numbers, yes or no, or words.
type kind struct {
	name  string
	typ   reflect.Type
	value func(cell string) (parquet.Value, error)
}

var kinds = []kind{
	{"whole", reflect.TypeFor[int64](), func(s string) (parquet.Value, error) {
		x, err := strconv.ParseInt(s, 10, 64)
		return parquet.Int64Value(x), err
	}},
	{"number", reflect.TypeFor[float64](), func(s string) (parquet.Value, error) {
		x, err := strconv.ParseFloat(s, 64)
		return parquet.DoubleValue(x), err
	}},
	{"yes or no", reflect.TypeFor[bool](), func(s string) (parquet.Value, error) {
		x, err := strconv.ParseBool(s)
		return parquet.BooleanValue(x), err
	}},
	{"words", reflect.TypeFor[string](), func(s string) (parquet.Value, error) { return parquet.ByteArrayValue([]byte(s)), nil }},
}

// hexes are columns of hexadecimal digits, which by chance look like numbers.
var hexes = []string{"sha256", "data"}

// kindOf is the first kind that all cells of a column are.
func (t *table) kindOf(column int) kind {
	words := kinds[len(kinds)-1]
	if len(t.rows) == 0 || slices.Contains(hexes, t.head[column]) {
		return words
	}
	for _, k := range kinds {
		if !slices.ContainsFunc(t.rows, func(row []string) bool { _, err := k.value(row[column]); return err != nil }) {
			return k
		}
	}
	return words
}

// parquet writes the table as a Parquet file, columns in their order: the same bytes
// for the same table.
func (t *table) parquet(w io.Writer) error {
	fields := make([]reflect.StructField, len(t.head))
	of := make([]kind, len(t.head))
	for i, name := range t.head {
		of[i] = t.kindOf(i)
		// The tag is the name; no column of ours has a comma or a quote.
		fields[i] = reflect.StructField{Name: fmt.Sprintf("C%d", i), Type: of[i].typ, Tag: reflect.StructTag(`parquet:` + strconv.Quote(name))}
	}
	schema := parquet.SchemaOf(reflect.New(reflect.StructOf(fields)).Interface())
	out := parquet.NewWriter(w, schema, parquet.Compression(&parquet.Snappy), parquet.CreatedBy("hedgerow", "sim", ""))
	rows := make([]parquet.Row, len(t.rows))
	for r, cells := range t.rows {
		for i, cell := range cells {
			v, err := of[i].value(cell)
			if err != nil {
				return fmt.Errorf("column %s: %w", t.head[i], err)
			}
			rows[r] = append(rows[r], v.Level(0, 0, i))
		}
	}
	if _, err := out.WriteRows(rows); err != nil {
		return err
	}
	return out.Close()
}

// columns is the name of the table's Parquet file.
func (t *table) columns() string { return strings.TrimSuffix(t.name, ".csv") + ".parquet" }
