package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	if os.Getenv(asMain) == "1" {
		main()
		return
	}
	testscript.Main(m, map[string]func(){"hedgerow": main})
}

func TestScripts(t *testing.T) {
	examples, err := filepath.Abs("../../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": awaitFile,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HEDGEROW_SOCKET", e.WorkDir+"/none.sock")
			e.Setenv("EXAMPLES", examples)
			return nil
		},
	})
}

// awaitFile waits until a command in the background has written a file.
func awaitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Since(began) > 30*time.Second {
			ts.Fatalf("%s is not there after 30 s", args[0])
		}
	}
}

// Every command says what it does in one line, and shows how it is used.
func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden || sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			if sub.Short == "" || !strings.Contains(sub.Example, sub.CommandPath()) {
				t.Errorf("%s: short %q, examples %q", sub.CommandPath(), sub.Short, sub.Example)
			}
			if strings.HasSuffix(sub.Short, ".") {
				t.Errorf("%s: short ends with a full stop", sub.CommandPath())
			}
			walk(sub)
		}
	}
	walk(newRoot())
}

// Daily commands all take --json and --socket.
func TestDailyCommandsShareTheirFlags(t *testing.T) {
	for _, c := range dailyCommands() {
		for _, f := range []string{"json", "socket"} {
			if c.Flags().Lookup(f) == nil {
				t.Errorf("%s has no --%s", c.Name(), f)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}
