package flowlog

import (
	"errors"
	"hash/fnv"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

// besides are the logs that are read beside conn.log, and what each adds.
var besides = map[string]func(m *Meta, w *row){
	"ssl": func(m *Meta, w *row) {
		m.TLS, m.ALPN = w.text("version"), w.text("next_protocol")
		_, m.SNI = w.get("server_name")
		if m.JA3 = w.text("ja4"); m.JA3 == "" {
			m.JA3 = w.text("ja3")
		}
	},
	"ssh": func(m *Meta, w *row) {
		tries, _ := w.count("auth_attempts", math.MaxInt32)
		m.Tries = int(tries)
		if s, ok := w.get("auth_success"); ok {
			m.Login = LoginFailed
			if s == "T" || s == "true" {
				m.Login = LoginDone
			}
		}
	},
	"dns": func(m *Meta, w *row) { m.RCode = w.text("rcode_name") },
}

// joinBeside reads the logs that lie beside a conn.log, each at most once, and
// remembers at most limit flows of them.
func joinBeside(path string, limit int, told map[string]Join) map[uint64]*Meta {
	all := map[uint64]*Meta{}
	for _, name := range [...]string{"ssl", "ssh", "dns"} {
		if p := sibling(path, name); p != "" {
			told[name] = joinOne(p, name, all, limit)
		}
	}
	return all
}

// sibling finds the log of another name that was written with this one.
func sibling(path, name string) string {
	dir, base := filepath.Split(path)
	if !strings.Contains(base, "conn") {
		return ""
	}
	like := strings.TrimSuffix(strings.Replace(base, "conn", name, 1), ".gz")
	for _, p := range [...]string{like, like + ".gz", name + ".log", name + ".log.gz"} {
		if fi, err := os.Stat(dir + p); err == nil && fi.Mode().IsRegular() {
			return dir + p
		}
	}
	return ""
}

func joinOne(path, name string, all map[uint64]*Meta, limit int) (j Join) {
	l, err := lines.Open(path, MaxLine)
	if err != nil {
		return j
	}
	defer func() { _ = l.Close() }()
	head := tsv{sep: '\t', unset: "-", empty: "(empty)"}
	add := besides[name]
	for {
		b, whole, long, err := l.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				j.Refused++
			}
			j.Lines = l.N()
			return j
		}
		w, bad := besideRow(&head, b)
		switch {
		case long || bad:
			j.Refused++
		case w == nil || !whole && b[0] != '{':
		default:
			j.join(w, add, all, limit)
		}
	}
}

func besideRow(head *tsv, b []byte) (*row, bool) {
	if len(b) == 0 {
		return nil, false
	}
	if b[0] == '{' {
		w, err := object(b)
		return w, err != nil
	}
	w, bad := head.row(string(b))
	return w, bad != nil
}

func (j *Join) join(w *row, add func(*Meta, *row), all map[uint64]*Meta, limit int) {
	uid, ok := w.get("uid")
	if !ok {
		j.Refused++
		return
	}
	k := hashText(uid)
	m := all[k]
	if m == nil {
		if len(all) >= limit {
			j.LeftOut++
			return
		}
		m = &Meta{}
	}
	next := *m
	add(&next, w)
	if w.bad != nil {
		j.Refused++
		return
	}
	*m = next
	all[k] = m
}

func hashText(s string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, s)
	return h.Sum64()
}
