package own

import "github.com/hedgerow-mesh/hedgerow/federation/attack"

// Silence is an attack: free riders send an update that changes nothing.
func Silence() attack.Attack {
	return attack.Attack{
		Name: "silence", Paper: "an example",
		Craft: func(v attack.View) ([][]float32, error) {
			out := make([][]float32, len(v.Own))
			for i := range out {
				out[i] = make([]float32, len(v.Own[i]))
			}
			return out, nil
		},
	}
}
