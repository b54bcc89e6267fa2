package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// series are the kernels of the matrix: the oldest that is supported, and that
// of the current stable Debian.
var series = []string{"6.1", "6.12"}

func main() {
	if os.Getpid() == 1 {
		guest()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

type options struct {
	cache   string
	only    string // tests to run
	timeout time.Duration
	verbose bool
	host    bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	f := flag.NewFlagSet("matrix", flag.ContinueOnError)
	f.StringVar(&o.cache, "cache", defaultCache(), "where kernels are kept between runs")
	f.StringVar(&o.only, "run", ".", "tests to run, as go test takes them")
	f.DurationVar(&o.timeout, "timeout", 45*time.Minute, "for each kernel")
	f.BoolVar(&o.verbose, "v", false, "show the console of each kernel")
	f.BoolVar(&o.host, "host", true, "run the tests on this machine's kernel too")
	if err := f.Parse(args); err != nil {
		return err
	}
	kernels := f.Args()
	if len(kernels) == 0 {
		kernels = series
	}
	if os.Getuid() != 0 {
		return errors.New("needs root: programs are loaded into this machine's kernel, and kernels are fetched with apt-get")
	}
	work, err := os.MkdirTemp("", "matrix")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := build(ctx, work); err != nil {
		return err
	}
	var bad []string
	if o.host {
		r := onHost(ctx, o, work)
		fmt.Fprintln(out, r)
		if !r.ok() {
			bad = append(bad, r.kernel)
		}
	}
	for _, k := range kernels {
		r := onGuest(ctx, o, work, k)
		fmt.Fprintln(out, r)
		if !r.ok() {
			bad = append(bad, k)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("failed on %s", strings.Join(bad, ", "))
	}
	return nil
}

func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "hedgerow-ci", "kernels")
}

// build makes what runs in the guest: this command, the tests, the product.
func build(ctx context.Context, work string) error {
	const module = "github.com/hedgerow-mesh/hedgerow/"
	for _, c := range [][]string{
		{"build", "-o", filepath.Join(work, "init"), module + "dataplane/xdp/matrix"},
		{"build", "-o", filepath.Join(work, "hedgerow"), module + "node/cmd/hedgerow"},
		{"test", "-c", "-o", filepath.Join(work, "xdp.test"), module + "dataplane/xdp"},
	} {
		cmd := exec.CommandContext(ctx, "go", c...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(c, " "), err, msg)
		}
	}
	return nil
}

func onHost(ctx context.Context, o options, work string) report {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r := newReport(release(), o)
	cmd := exec.CommandContext(ctx, filepath.Join(work, "xdp.test"), "-test.v", "-test.run", o.only)
	cmd.Env = append(os.Environ(), "HEDGEROW_KERNEL_TESTS=1")
	cmd.Stdout, cmd.Stderr = r, r
	if err := cmd.Run(); err != nil {
		r.note("tests: " + err.Error())
	}
	return r.done()
}

func release() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "this kernel"
	}
	return strings.TrimSpace(string(b))
}
