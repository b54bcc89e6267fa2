package machine

import (
	"errors"
	"fmt"
	"slices"
)

// Place is an interface and its role, in the words of the configuration.
type Place struct {
	Interface string
	Role      string
}

// Places resolves what a configuration names. The inside interface is found when
// none is named, or only outside ones are; it then comes first.
func (v *View) Places(named []Place) ([]Inside, error) {
	var list []Inside
	for _, p := range named {
		in, err := v.Describe(p.Interface, p.Role)
		if err != nil {
			return nil, err
		}
		list = append(list, in)
	}
	if slices.ContainsFunc(list, func(in Inside) bool { return in.Role != "outside" }) {
		return list, nil
	}
	in, err := v.FindInside()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(named, func(p Place) bool { return p.Interface == in.Interface }) {
		return nil, errors.New("interfaces: only the outside is named, and no other was found: name the inside interface in dataplane.interface")
	}
	return append([]Inside{in}, list...), nil
}

// checkAlso judges the interfaces beside the first.
func (v *View) checkAlso(also []Place) []Finding {
	var list []Finding
	for _, p := range also {
		in, err := v.Describe(p.Interface, p.Role)
		if err != nil {
			found, advice := split(err.Error())
			list = append(list, Finding{"interface", Fail, found, advice})
			continue
		}
		f := Finding{"interface", OK, fmt.Sprintf("%s (%s): %s", in.Interface, join(in.Prefixes), in.Role), ""}
		if advice := v.misplaced(p); advice != "" {
			f.State, f.Advice = Warn, advice
		}
		list = append(list, f)
	}
	return list
}

// misplaced says what speaks against a role; "" when nothing does.
func (v *View) misplaced(p Place) string {
	l, _ := v.link(p.Interface)
	switch {
	case p.Role == "inside" && v.defaultVia(p.Interface):
		return "the default route leaves by " + p.Interface + ": set dataplane.role = \"host\" if this machine protects only itself, else name the inside interface"
	case p.Role == "inside" && l.Bridge != "":
		return "it is a port of " + l.Bridge + ": set its role to \"bridge\""
	case p.Role == "inside" && l.Kind == "bridge":
		return "what the bridge passes on between its ports is not seen here: attach to the ports, with role \"bridge\", if that is to be filtered too"
	case p.Role == "outside" && len(v.Routes) > 0 && !v.defaultVia(p.Interface):
		return "the default route leaves by another interface: check that this is the outside"
	case p.Role == "sensor" && v.defaultVia(p.Interface):
		return "the default route leaves by it, so it is no mirrored port: set its role to \"host\" or \"outside\""
	}
	return ""
}
