package config

import (
	"reflect"
	"strings"
	"unicode"
)

// Changed lists the keys in which two configurations differ, in the order of
// the documentation. Tables that may stand several times (feed, mesh.peer,
// dataplane.attach) count as one key each.
func Changed(a, b *Config) []string {
	var out []string
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range va.NumField() {
		section := snake(va.Type().Field(i).Name)
		sa, sb := va.Field(i), vb.Field(i)
		for j := range sa.NumField() {
			if !equal(sa.Field(j), sb.Field(j)) {
				out = append(out, keyOf(section, sa.Type().Field(j).Name))
			}
		}
	}
	return out
}

// equal compares two values; a list without entries is like one that is not there.
func equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len()+b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// keyOf is the key that a field of a section is read from.
func keyOf(section, field string) string {
	switch {
	case section == "feeds" && field == "List":
		return "feed"
	case section == "mesh" && field == "Peers":
		return "mesh.peer"
	}
	return section + "." + snake(field)
}

// snake is StateDir as state_dir, and KeepGRO as keep_gro.
func snake(s string) string {
	var b strings.Builder
	lower := false // the letter before was
	for _, r := range s {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
