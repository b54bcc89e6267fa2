package dataset

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// Mapping says what the columns of a CSV file mean. Every column that is not
// named here is a feature of numbers.
type Mapping struct {
	// Columns are the names, in order, of a file without a line of names.
	Columns []string `toml:"columns"`
	// Label is the column whose word is the class of a row.
	Label string `toml:"label"`
	// Normal are the words of Label that mean no attack.
	Normal []string `toml:"normal"`
	// Classes gives several words of Label one class; others are their own.
	Classes map[string]string `toml:"classes"`
	// Words are the columns of words.
	Words []string `toml:"words"`
	// Ignore are the columns that are not looked at.
	Ignore []string `toml:"ignore"`
	// Absent are the cells that mean that there is no value; by default the empty one.
	Absent []string `toml:"absent"`
	// Unsigned are the columns of numbers that are never below 0, such as counts and
	// durations; "*" is all of them.
	Unsigned []string `toml:"unsigned"`
	// Time is a column of seconds, for splits by time; it is no feature.
	Time string `toml:"time"`
	// Place is a column that says where a row was seen, for splits by place; it is no feature.
	Place string `toml:"place"`
	// Split is how the rows are parted for training and test: group (copies of
	// each other stay together), time, or place; by default group.
	Split string `toml:"split"`
}

// maxMapping bounds the mapping's file.
const maxMapping = 1 << 20

// ParseMapping reads a mapping in TOML. Keys that it does not know are errors.
func ParseMapping(r io.Reader) (*Mapping, error) {
	d := toml.NewDecoder(io.LimitReader(r, maxMapping)).DisallowUnknownFields()
	var m Mapping
	if err := d.Decode(&m); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("mapping: %s", strict.String())
		}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, col := at.Position()
			return nil, fmt.Errorf("mapping: line %d, column %d: %w", row, col, err)
		}
		return nil, fmt.Errorf("mapping: %w", err)
	}
	return &m, m.check()
}

func (m *Mapping) check() error {
	switch {
	case m.Label == "":
		return errors.New("mapping: label: expected the name of the column with the class")
	case len(m.Normal) == 0:
		return errors.New("mapping: normal: expected the words of the label that mean no attack")
	case !slices.Contains([]string{"", "group", "time", "place"}, m.Split):
		return fmt.Errorf("mapping: split: %q: expected group, time or place", m.Split)
	case m.Split == "time" && m.Time == "":
		return errors.New("mapping: time: expected the name of a column, since split is time")
	case m.Split == "place" && m.Place == "":
		return errors.New("mapping: place: expected the name of a column, since split is place")
	}
	return nil
}

// every stands for all columns of numbers.
const every = "*"

// unsigned are the columns that Unsigned names.
func (m *Mapping) unsigned() []string {
	return slices.DeleteFunc(slices.Clone(m.Unsigned), func(n string) bool { return n == every })
}

// class is the class that a word of the label means.
func (m *Mapping) class(word string) string {
	if slices.Contains(m.Normal, word) {
		return Normal
	}
	if c, ok := m.Classes[word]; ok {
		return c
	}
	return word
}

// Normal is the name of class 0 in every table.
const Normal = "normal"
