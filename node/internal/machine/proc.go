package machine

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// conn is one row of /proc/net/tcp or tcp6.
type conn struct {
	Local, Remote netip.AddrPort
	State         uint8
}

const (
	tcpEstablished = 0x01
	maxRows        = 200_000 // more sockets than that are not worth the look
)

// parseTCP reads /proc/net/tcp and tcp6. Rows that it cannot read it leaves out.
func parseTCP(r io.Reader) []conn {
	var list []conn
	sc := bufio.NewScanner(r)
	for sc.Scan() && len(list) < maxRows {
		f := strings.Fields(sc.Text())
		if len(f) < 4 {
			continue
		}
		local, err1 := parseEndpoint(f[1])
		remote, err2 := parseEndpoint(f[2])
		state, err3 := strconv.ParseUint(f[3], 16, 8)
		if errors.Join(err1, err2, err3) == nil {
			list = append(list, conn{local, remote, uint8(state)})
		}
	}
	return list
}

// parseEndpoint reads "0100007F:0016": the address as 32-bit words in the
// machine's byte order, which is little endian wherever this runs.
func parseEndpoint(s string) (netip.AddrPort, error) {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, errors.New("address: expected 8 or 32 hex digits")
	}
	for w := 0; w < len(b); w += 4 {
		slices.Reverse(b[w : w+4])
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, errors.New("port: expected 4 hex digits")
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

// parseResolvers reads the nameserver lines of resolv.conf.
func parseResolvers(r io.Reader) []netip.Addr {
	var list []netip.Addr
	sc := bufio.NewScanner(r)
	for sc.Scan() && len(list) < 16 {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && !slices.Contains(list, a.Unmap().WithZone("")) {
			list = append(list, a.Unmap().WithZone(""))
		}
	}
	return list
}

// parseAvailable reads MemAvailable of /proc/meminfo, in bytes; 0 when absent.
func parseAvailable(r io.Reader) uint64 {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) >= 2 && f[0] == "MemAvailable:" {
			kb, err := strconv.ParseUint(f[1], 10, 50)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}

// parseSSHPorts reads the Port lines of sshd_config.
func parseSSHPorts(r io.Reader) []uint16 {
	var list []uint16
	sc := bufio.NewScanner(r)
	for sc.Scan() && len(list) < 8 {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || !strings.EqualFold(f[0], "port") {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 16); err == nil && n > 0 && !slices.Contains(list, uint16(n)) {
			list = append(list, uint16(n))
		}
	}
	return list
}

// parseSSHConnection reads SSH_CONNECTION: "client port server port".
func parseSSHConnection(s string) (peer netip.Addr, port uint16, ok bool) {
	f := strings.Fields(s)
	if len(f) != 4 {
		return netip.Addr{}, 0, false
	}
	a, err := netip.ParseAddr(f[0])
	n, err2 := strconv.ParseUint(f[3], 10, 16)
	if errors.Join(err, err2) != nil || n == 0 {
		return netip.Addr{}, 0, false
	}
	return a.Unmap().WithZone(""), uint16(n), true
}

// parseSession reads one file of /run/systemd/sessions and returns the far end
// of a remote session that is logged in.
func parseSession(r io.Reader) (netip.Addr, bool) {
	kv := map[string]string{}
	sc := bufio.NewScanner(r)
	for sc.Scan() && len(kv) < 100 {
		if k, v, ok := strings.Cut(sc.Text(), "="); ok {
			kv[k] = strings.Trim(v, `"`)
		}
	}
	a, err := netip.ParseAddr(kv["REMOTE_HOST"])
	if err != nil || kv["REMOTE"] != "1" || kv["SERVICE"] != "sshd" || kv["STATE"] == "closing" {
		return netip.Addr{}, false
	}
	return a.Unmap().WithZone(""), true
}

// sessions parts the far ends of established SSH connections into those that
// are logged in and those of which that is not known: a guesser of passwords
// must not earn a place on the never-block list.
func sessions(conns []conn, ports []uint16, loggedIn []netip.Addr) (proven, unproven []netip.Addr) {
	proven = append(proven, loggedIn...)
	for _, c := range conns {
		a := c.Remote.Addr()
		if c.State != tcpEstablished || !slices.Contains(ports, c.Local.Port()) || a.IsLoopback() {
			continue
		}
		if !slices.Contains(proven, a) && !slices.Contains(unproven, a) {
			unproven = append(unproven, a)
		}
	}
	return proven, unproven
}
