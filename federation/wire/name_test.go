package wire

import (
	"strings"
	"testing"
)

const (
	ja4    = "t13d1516h2_8daaf6152771_b186095e22b6"
	region = "features-2:AAECAwQF"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for value, typ := range map[string]Type{
		"evil.example": TypeDomain, "a-b.c_d.evil.co.uk": TypeDomain, "xn--bcher-kva.example": TypeDomain, long + ".example": TypeDomain,
		ja4: TypeFingerprint, "q00i000000_000000000000_ffffffffffff": TypeFingerprint, region: TypeBehaviour,
	} {
		got, err := ParseValue(typ, value)
		if err != nil || got.String() != value || got.Type != typ || got.Prefix.IsValid() {
			t.Errorf("%s %q: %+v, %v", typ, value, got, err)
		}
	}
	for value, c := range map[string]struct {
		typ  Type
		want Reason
	}{
		"":                                {TypeDomain, BadField},
		"evil":                            {TypeDomain, BadField},
		"Evil.example":                    {TypeDomain, BadField},
		"evil.example.":                   {TypeDomain, BadField},
		"-evil.example":                   {TypeDomain, BadField},
		"evil..example":                   {TypeDomain, BadField},
		"bücher.example":                  {TypeDomain, BadField},
		"203.0.113.9":                     {TypeDomain, BadField},
		long + "a.example":                {TypeDomain, BadField},
		strings.Repeat("abc.", 64) + "io": {TypeDomain, BadField},
		"payroll.corp":                    {TypeDomain, PrivateValue},
		"printer.local":                   {TypeDomain, PrivateValue},
		"5.0.0.10.in-addr.arpa":           {TypeDomain, PrivateValue},
		"co.uk":                           {TypeDomain, NameTooWide},
		"t13d1516h2":                      {TypeFingerprint, BadField},
		ja4 + "0":                         {TypeFingerprint, BadField},
		strings.ToUpper(ja4):              {TypeFingerprint, BadField},
		"AAEC":                            {TypeBehaviour, BadField},
		"features-0:AAEC":                 {TypeBehaviour, BadField},
		"features-2:":                     {TypeBehaviour, BadField},
		"features-2:AAECA":                {TypeBehaviour, BadField},
		"features-2:" + strings.Repeat("A", maxBehaviour): {TypeBehaviour, BadField},
		"evil.example ": {"malware", BadField},
	} {
		if _, err := ParseValue(c.typ, value); err == nil || ReasonOf(err) != c.want {
			t.Errorf("%s %.60q: %v, expected %s", c.typ, value, err, c.want)
		}
	}
	if NameTooWide.Penal() {
		t.Error("sites with another list of public suffixes are blamed for it")
	}
}

// A message with each kind of name opens as it was sealed.
func TestNamesTravel(t *testing.T) {
	k := key(t, 1)
	for value, typ := range map[string]Type{"evil.example": TypeDomain, ja4: TypeFingerprint, region: TypeBehaviour} {
		m, err := Seal(k, 1, now, indicator(k, typ, value))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Open(m.Raw, now, anyone)
		if err != nil || got.Payload.(*Indicator).Value != value || got.Payload.(*Indicator).Type != typ {
			t.Errorf("%s: %+v, %v", typ, got, err)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"evil.example", ja4, region, "co.uk", "a.b.c.local"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, typ := range []Type{TypeDomain, TypeFingerprint, TypeBehaviour} {
			x, err := ParseValue(typ, s)
			if err != nil {
				continue
			}
			if again, err := ParseValue(typ, x.String()); err != nil || again != x || len(s) > maxBehaviour {
				t.Errorf("%s %q: %+v, %v", typ, s, again, err)
			}
		}
	})
}
