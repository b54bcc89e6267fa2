package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// modules are what tests beyond test runs want, in the order of loading.
var modules = []string{
	"drivers/net/veth", "drivers/net/tun", "net/sched/sch_ingress", "net/sched/cls_bpf", "net/llc/llc", "net/802/stp", "net/bridge/bridge",
	"net/ipv4/udp_tunnel", "net/ipv6/ip6_udp_tunnel", "drivers/net/vxlan/vxlan",
	"lib/libcrc32c", "net/ipv4/netfilter/nf_defrag_ipv4", "net/ipv6/netfilter/nf_defrag_ipv6", "net/netfilter/nf_conntrack",
	"net/netfilter/nf_nat", "net/netfilter/nfnetlink", "net/netfilter/nf_tables", "net/netfilter/nft_chain_nat",
	"net/netfilter/nft_nat", "net/netfilter/nft_masq",
}

func onGuest(ctx context.Context, o options, work, kernel string) report {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r := newReport(kernel, o)
	dir, err := fetch(ctx, o.cache, kernel)
	if err != nil {
		r.note(err.Error())
		return r.done()
	}
	image, err := only(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		r.note(err.Error())
		return r.done()
	}
	r.kernel = strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	initrd := filepath.Join(work, "initrd-"+kernel)
	if err := pack(ctx, initrd, work, dir); err != nil {
		r.note(err.Error())
		return r.done()
	}
	boot(ctx, o, r, image, initrd)
	return r.done()
}

func boot(ctx context.Context, o options, r report, image, initrd string) {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G", "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "stdio", "-kernel", image, "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 quiet lockdown=none matrix.run="+o.only)
	cmd.Stdout, cmd.Stderr = r, r
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		r.note(fmt.Sprintf("stopped after %s", o.timeout))
	case errors.Is(err, exec.ErrNotFound):
		r.note("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")
	case err != nil:
		r.note(err.Error())
	}
}

// fetch returns the unpacked package of the newest kernel of a series. What is
// in the cache is used as it is.
func fetch(ctx context.Context, cache, kernel string) (string, error) {
	if had, err := filepath.Glob(filepath.Join(cache, "linux-image-"+kernel+".*", "boot")); err == nil && len(had) > 0 {
		return filepath.Dir(newest(had)), nil
	}
	name, err := packageOf(ctx, kernel)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp("", "kernel")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	get := exec.CommandContext(ctx, "apt-get", "download", "-qq", name)
	get.Dir = tmp
	if msg, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w: %s", name, err, bytes.TrimSpace(msg))
	}
	deb, err := only(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if msg, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("unpack %s: %w: %s", name, err, bytes.TrimSpace(msg)), os.RemoveAll(dir))
	}
	return dir, nil
}

// packageOf is the newest signed cloud kernel of a series that apt knows.
func packageOf(ctx context.Context, kernel string) (string, error) {
	pattern := `^linux-image-` + regexp.QuoteMeta(kernel) + `\.[^ ]*-cloud-amd64$`
	out, err := exec.CommandContext(ctx, "apt-cache", "search", "--names-only", pattern).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache search: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		names = append(names, strings.Fields(line)[0])
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no package linux-image-%s.*-cloud-amd64: run apt-get update, on Debian 12", kernel)
	}
	return newest(names), nil
}

var number = regexp.MustCompile(`\d+`)

// newest is the last of names by the numbers in them.
func newest(names []string) string {
	return slices.MaxFunc(names, func(a, b string) int {
		return slices.CompareFunc(number.FindAllString(a, -1), number.FindAllString(b, -1), func(x, y string) int {
			i, _ := strconv.Atoi(x)
			j, _ := strconv.Atoi(y)
			return i - j
		})
	})
}

// only is the one file that fits a pattern.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s: found %d files: expected one", pattern, len(found))
	}
	return found[0], nil
}

// pack writes the initramfs: this command as /init, the tests, the product,
// and the kernel's modules, uncompressed and numbered in their order.
func pack(ctx context.Context, to, work, kernel string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	a := archive{w: z}
	for _, name := range []string{"init", "hedgerow", "xdp.test"} {
		b, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			return err
		}
		a.file(name, b)
	}
	a.folder("modules")
	for i, m := range modules {
		b, err := module(ctx, kernel, m)
		if err != nil {
			return err
		}
		if b != nil {
			a.file(fmt.Sprintf("modules/%02d-%s.ko", i, filepath.Base(m)), b)
		}
	}
	a.end()
	return errors.Join(a.err, z.Close(), f.Close())
}

// module reads one module, nil when this kernel has it built in.
func module(ctx context.Context, kernel, name string) ([]byte, error) {
	found, err := filepath.Glob(filepath.Join(kernel, "lib/modules/*/kernel", name+".ko*"))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if !strings.HasSuffix(found[0], ".xz") {
		return os.ReadFile(found[0])
	}
	b, err := exec.CommandContext(ctx, "xz", "-dc", found[0]).Output()
	if err != nil {
		return nil, fmt.Errorf("xz -dc %s: %w", found[0], err)
	}
	return b, nil
}

// archive writes the format that the kernel unpacks at start: cpio, "newc".
type archive struct {
	w   io.Writer
	n   int
	err error
}

func (a *archive) folder(name string)         { a.entry(name, 0o40755, nil) }
func (a *archive) file(name string, b []byte) { a.entry(name, 0o100755, b) }
func (a *archive) end()                       { a.entry("TRAILER!!!", 0, nil) }
func (a *archive) entry(name string, mode uint32, b []byte) {
	a.n++
	fields := []any{a.n, mode, 0, 0, 1, 0, len(b), 0, 0, 0, 0, len(name) + 1, 0}
	head := fmt.Sprintf("070701"+strings.Repeat("%08X", len(fields)), fields...) + name + "\x00"
	a.write([]byte(head))
	a.pad(len(head))
	a.write(b)
	a.pad(len(b))
}

func (a *archive) pad(n int) { a.write(make([]byte, (4-n%4)%4)) }

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
	}
}
