package xdp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Generic XDP comes after the kernel put received segments together (GRO), and
// the program is not told of how many: struct xdp_md does not say, and what
// could look further needs a license that the programs do not have. So GRO is
// switched off where an interface runs in generic mode, and on again when the
// plane leaves it or native mode becomes possible. Aggregation by the card (LRO,
// hardware GRO) the kernel switches off by itself then.

// pinGRO is a folder beside an interface's links that says that its GRO was on
// before: whoever detaches switches it on again.
const pinGRO = "gro_was_on"

// offload reads or sets one of ethtool's offloads of an interface in this network
// namespace.
func offload(iface string, command uint32, on bool) (bool, error) {
	value := struct{ cmd, data uint32 }{cmd: command}
	if on {
		value.data = 1
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], iface)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("offload of %s: %w", iface, err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return false, fmt.Errorf("offload of %s: %w", iface, errno)
	}
	return value.data != 0, nil
}

func groOn(iface string) (bool, error) { return offload(iface, unix.ETHTOOL_GGRO, false) }

func setGRO(iface string, on bool) error {
	_, err := offload(iface, unix.ETHTOOL_SGRO, on)
	return err
}

// settleGRO makes an interface's GRO fit the mode of its hook. What cannot be
// switched is told, and no reason not to attach.
func (p *Plane) settleGRO(a *attachment, undo *undoStack) error {
	was := a.groOff || a.pins.groWasOn()
	if a.mode != modeGeneric || p.o.KeepGRO {
		if was {
			return a.restoreGRO()
		}
		return nil
	}
	on, err := groOn(a.Interface)
	if err != nil {
		p.log.Warn("packets that the kernel put together may be counted as one", "interface", a.Interface, "error", err)
		return nil
	}
	a.groOff = was
	if !on {
		return nil
	}
	if err := a.pins.noteGRO(undo); err != nil {
		return err
	}
	if err := setGRO(a.Interface, false); err != nil {
		return err
	}
	a.groOff = true
	undo.add(func() error { a.groOff = false; return setGRO(a.Interface, true) })
	p.log.Warn("gro is switched off while xdp is generic here, so that packets are counted as on the wire; it is on again after detach",
		"interface", a.Interface)
	return nil
}

// restoreGRO switches GRO on again, if the interface is still there.
func (a *attachment) restoreGRO() error {
	if !a.groOff && !a.pins.groWasOn() {
		return nil
	}
	a.groOff = false
	return a.pins.restoreGRO(a.Interface)
}

func (p linkPins) groWasOn() bool {
	if p.dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(p.dir, pinGRO))
	return err == nil
}

func (p linkPins) noteGRO(undo *undoStack) error {
	if p.dir == "" {
		return nil
	}
	return makeDir(filepath.Join(p.dir, pinGRO), undo)
}

func (p linkPins) restoreGRO(iface string) error {
	if err := setGRO(iface, true); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if p.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(p.dir, pinGRO)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the note of gro: %w", err)
	}
	return nil
}
