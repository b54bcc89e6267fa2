//go:build linux

package forwarding

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

// Addresses of the world: a client behind the gateway, a server before it.
var (
	clientAddr, insideAddr  = netip.MustParsePrefix("10.77.0.2/24"), netip.MustParsePrefix("10.77.0.1/24")
	serverAddr, outsideAddr = netip.MustParsePrefix("198.18.77.2/24"), netip.MustParsePrefix("198.18.77.1/24")
)

const (
	inside, outside  = "lan0", "wan0" // the gateway's interfaces
	udpPort, tcpPort = 7007, 7008
)

type world struct {
	client, gateway, server *netspace.Space
	closers                 []io.Closer
}

func newWorld() (*world, error) {
	w := &world{}
	for _, s := range []struct {
		name string
		to   **netspace.Space
	}{{"client", &w.client}, {"gateway", &w.gateway}, {"server", &w.server}} {
		var err error
		if *s.to, err = netspace.New(s.name); err != nil {
			w.close()
			return nil, err
		}
	}
	if err := w.build(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build() error {
	err := errors.Join(
		w.gateway.Do(func() error {
			return errors.Join(plug(inside, w.client, insideAddr), plug(outside, w.server, outsideAddr))
		}),
		w.gateway.Sysctl("net/ipv4/ip_forward", "1"),
		w.client.Do(func() error { return join(clientAddr, insideAddr) }),
		w.server.Do(func() error { return join(serverAddr, outsideAddr) }),
	)
	if err != nil {
		return err
	}
	return w.serve()
}

// plug makes a cable from the calling thread's network to eth0 of another.
func plug(name string, to *netspace.Space, addr netip.Prefix) error {
	link, err := netspace.Cable(name, "eth0", to)
	if err != nil {
		return err
	}
	return errors.Join(netspace.AddAddr(link, addr), netlink.LinkSetUp(link))
}

// join sets up a host's only link, with its route.
func join(addr, gateway netip.Prefix) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("link eth0: %w", err)
	}
	if err := errors.Join(netspace.AddAddr(link, addr), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	return netspace.AddRoute(link, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway.Addr())
}

// serve answers datagrams and swallows streams in the server's network, until
// its sockets are closed.
func (w *world) serve() error {
	var echo net.PacketConn
	var sink net.Listener
	err := w.server.Visit(func() (err error) {
		if echo, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", udpPort)); err != nil {
			return err
		}
		w.closers = append(w.closers, echo)
		if sink, err = net.Listen("tcp4", fmt.Sprintf(":%d", tcpPort)); err != nil {
			return err
		}
		w.closers = append(w.closers, sink)
		return nil
	})
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from) // a lost answer is a lost trip: the client says so
		}
	}()
	go func() {
		for {
			c, err := sink.Accept()
			if err != nil {
				return
			}
			go swallow(c)
		}
	}()
	return nil
}

// swallow reads all, and then tells how much that was.
func swallow(c net.Conn) {
	defer c.Close()
	n, _ := io.Copy(io.Discard, c)
	_, _ = fmt.Fprintf(c, "%d\n", n)
}

func (w *world) close() {
	for _, c := range w.closers {
		_ = c.Close()
	}
	for _, s := range []*netspace.Space{w.client, w.gateway, w.server} {
		if s != nil {
			s.Close()
		}
	}
}

// measure takes round trips for one window, and a stream for another.
func (w *world) measure(ctx context.Context, window time.Duration) (Figures, error) {
	var f Figures
	trips, err := w.trips(ctx, window)
	if err != nil {
		return f, err
	}
	if len(trips) < 10 {
		return f, fmt.Errorf("%d round trips in %s: expected at least 10", len(trips), window)
	}
	slices.Sort(trips)
	f.Trips, f.P50, f.P99 = len(trips), trips[len(trips)/2], trips[len(trips)*99/100]
	f.Bytes, err = w.stream(ctx, window)
	return f, err
}

func (w *world) dial(network string, port uint16) (c net.Conn, err error) {
	err = w.client.Visit(func() (err error) {
		c, err = net.DialTimeout(network, netip.AddrPortFrom(serverAddr.Addr(), port).String(), 5*time.Second)
		return err
	})
	return c, err
}

func (w *world) trips(ctx context.Context, window time.Duration) ([]time.Duration, error) {
	c, err := w.dial("udp4", udpPort)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(window + 5*time.Second)); err != nil {
		return nil, err
	}
	var all []time.Duration
	buf := make([]byte, 64)
	for end := time.Now().Add(window); ; {
		at := time.Now()
		if at.After(end) || ctx.Err() != nil {
			return all, ctx.Err()
		}
		if _, err := c.Write(buf); err != nil {
			return nil, fmt.Errorf("round trip: %w", err)
		}
		if _, err := c.Read(buf); err != nil {
			return nil, fmt.Errorf("round trip: %w", err)
		}
		all = append(all, time.Since(at))
	}
}

// stream sends for one window and asks the server how much came.
func (w *world) stream(ctx context.Context, window time.Duration) (float64, error) {
	c, err := w.dial("tcp4", tcpPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	if err := c.SetDeadline(began.Add(window + 10*time.Second)); err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for time.Since(began) < window && ctx.Err() == nil {
		if _, err := c.Write(buf); err != nil {
			return 0, fmt.Errorf("stream: %w", err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	var n float64
	if _, err := fmt.Fscan(c, &n); err != nil {
		return 0, fmt.Errorf("stream: the server's answer: %w", err)
	}
	return n / time.Since(began).Seconds(), ctx.Err()
}
