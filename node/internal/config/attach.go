package config

import (
	"fmt"
	"time"
)

// Roles of an interface; dataplane/xdp says what each means.
const (
	RoleInside  = "inside"  // the protected hosts are behind it
	RoleHost    = "host"    // it is this machine's own
	RoleOutside = "outside" // the world is behind it
	RoleBridge  = "bridge"  // a port of a bridge, with the protected hosts behind it
	RoleSensor  = "sensor"  // copies of packets arrive at it
)

// Attach is one interface that the plane works on.
type Attach struct {
	Interface string
	Role      string
}

// What happens when the daemon is away.
const (
	FailOpen   = "open"
	FailClosed = "closed"
)

const (
	minDead = 5 * time.Second
	maxDead = time.Hour
)

var anyRole = oneOf(RoleInside, RoleHost, RoleOutside, RoleBridge, RoleSensor)

// attachFields is every key of [[dataplane.attach]].
func attachFields() []field[Attach] {
	return []field[Attach]{
		text("interface", func(a *Attach) *string { return &a.Interface }, checkInterface),
		text("role", func(a *Attach) *string { return &a.Role }, anyRole),
	}
}

func attachKeys() []string {
	var keys []string
	for _, f := range attachFields() {
		keys = append(keys, f.key)
	}
	return keys
}

func (p *parser) attachments(v any) {
	list, ok := v.([]any)
	if !ok {
		p.problem("dataplane.attach", "expected [[dataplane.attach]] tables, one for each interface")
		return
	}
	for i, item := range list {
		key := fmt.Sprintf("dataplane.attach[%d]", i)
		t, ok := item.(map[string]any)
		if !ok {
			p.problem(key, "expected a [[dataplane.attach]] table")
			continue
		}
		p.attachment(key, t)
	}
}

func (p *parser) attachment(key string, t map[string]any) {
	var a Attach
	for _, k := range sortedKeys(t) {
		known := false
		for _, f := range attachFields() {
			if f.key != k {
				continue
			}
			known = true
			if err := f.set(&a, t[k]); err != nil {
				p.problem(key+"."+k, "%s", err)
			}
		}
		if !known {
			p.problem(key+"."+k, "is not a known key%s", nearest(k, attachKeys()))
		}
	}
	for _, k := range attachKeys() {
		if _, ok := t[k]; !ok {
			p.problem(key, "%s is required", k)
		}
	}
	p.cfg.Dataplane.Attach = append(p.cfg.Dataplane.Attach, a)
}

// maxAttach is how many interfaces one plane takes, the first included.
const maxAttach = 32

// crossAttach checks what one interface says about another.
func (p *parser) crossAttach() {
	d := &p.cfg.Dataplane
	seen := map[string]bool{d.Interface: d.Interface != ""}
	sensor := d.Role == RoleSensor
	for i, a := range d.Attach {
		if seen[a.Interface] {
			p.problem(fmt.Sprintf("dataplane.attach[%d].interface", i), "found %q again: expected one role for each interface", a.Interface)
		}
		seen[a.Interface] = a.Interface != ""
		sensor = sensor || a.Role == RoleSensor
	}
	if len(d.Attach) >= maxAttach {
		p.problem("dataplane.attach", "found %d interfaces: expected fewer than %d", len(d.Attach), maxAttach)
	}
	if sensor && d.Mode == 1 {
		p.problem("dataplane.mode", "found \"enforce\" with a sensor: expected \"monitor\", for a sensor sees copies of packets and can drop none")
	}
}

// Placement is every interface that the configuration names, in its order;
// empty means that the inside interface is to be found.
func (d *Dataplane) Placement() []Attach {
	var list []Attach
	if d.Interface != "" {
		list = append(list, Attach{d.Interface, d.Role})
	}
	return append(list, d.Attach...)
}
