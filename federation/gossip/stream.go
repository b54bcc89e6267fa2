package gossip

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// serveWithin bounds a request from its first byte to the last of the answer.
const serveWithin = 10 * time.Second

// Broadcast publishes b on a topic. It reaches whoever is connected now.
func (t *Transport) Broadcast(ctx context.Context, topic federation.Topic, b []byte) error {
	if len(b) > wire.MaxSmall {
		return fmt.Errorf("%w: %d bytes: expected at most %d", ErrTooBig, len(b), wire.MaxSmall)
	}
	t.mu.Lock()
	running := t.run != nil
	t.mu.Unlock()
	if topic == straightFor && running && t.straight(b) {
		return nil
	}
	return t.publish(ctx, topic, b)
}

// publish gossips b.
func (t *Transport) publish(ctx context.Context, topic federation.Topic, b []byte) error {
	t.mu.Lock()
	tp := t.joined[topic]
	t.mu.Unlock()
	if tp == nil {
		return fmt.Errorf("broadcast on topic %q: %w", topic, ErrStopped)
	}
	if err := tp.Publish(ctx, b); err != nil {
		return fmt.Errorf("gossip: broadcast: %v", err)
	}
	return nil
}

// Request sends b to one site over a stream of its own and reads the answer. It
// does not dial: a site that is not connected is unreachable.
func (t *Transport) Request(ctx context.Context, id identity.ID, b []byte) ([]byte, error) {
	return t.request(ctx, t.proto, id, b)
}

// Handle answers requests that are not the member's, such as those about the
// consortium's roster, and that go between organisations. from is proved, and in the
// roster. It is called before Run.
func (t *Transport) Handle(name string, f func(ctx context.Context, from identity.ID, b []byte) ([]byte, error)) {
	t.host.SetStreamHandler(sharedProtocol(name), func(s network.Stream) {
		t.mu.Lock()
		ctx := context.Background() // before Run there is none; every request ends by its own deadline
		if t.run != nil {
			ctx = t.run.ctx
		}
		t.mu.Unlock()
		t.serve(ctx, f, s)
	})
}

func sharedProtocol(name string) protocol.ID { return protocol.ID("/hedgerow/1//" + name) }

// Call asks a site what Handle answers there; otherwise it is as Request.
func (t *Transport) Call(ctx context.Context, name string, id identity.ID, b []byte) ([]byte, error) {
	return t.request(ctx, sharedProtocol(name), id, b)
}

func (t *Transport) request(ctx context.Context, proto protocol.ID, id identity.ID, b []byte) ([]byte, error) {
	pid, err := peer.Decode(string(id))
	if err != nil {
		return nil, fmt.Errorf("gossip: request: id %q: %v", id, err)
	}
	if len(b) > wire.MaxRequest {
		return nil, fmt.Errorf("%w: request of %d bytes: expected at most %d", ErrTooBig, len(b), wire.MaxRequest)
	}
	if !t.connected(pid) {
		return nil, fmt.Errorf("gossip: request to %s: %w", id.Short(), federation.ErrUnreachable)
	}
	began := time.Now()
	s, err := t.host.NewStream(network.WithAllowLimitedConn(network.WithNoDial(ctx, "request"), "request"), pid, proto)
	if err != nil {
		return nil, fmt.Errorf("gossip: request to %s: %w: %v", id.Short(), federation.ErrUnreachable, err)
	}
	out, err := exchange(ctx, s, b)
	if err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("gossip: request to %s: %w", id.Short(), err)
	}
	t.host.Peerstore().RecordLatency(pid, time.Since(began))
	return out, s.Close()
}

func exchange(ctx context.Context, s network.Stream, b []byte) ([]byte, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(serveWithin)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := s.Write(b); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	return readAll(s, wire.MaxResponse)
}

// readAll reads to the end, or fails past the limit.
func readAll(r io.Reader, limit int) ([]byte, error) {
	var b bytes.Buffer // it doubles, where io.ReadAll grows by steps
	n, err := b.ReadFrom(io.LimitReader(r, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooBig, limit)
	}
	return b.Bytes(), err
}

// server answers requests.
type server = func(ctx context.Context, from identity.ID, b []byte) ([]byte, error)

// serve answers one request. Whatever goes wrong resets the stream: the other
// side needs no reason, and its Member counts on none.
func (t *Transport) serve(ctx context.Context, f server, s network.Stream) {
	ctx, cancel := context.WithTimeout(ctx, serveWithin)
	defer cancel()
	from := s.Conn().RemotePeer()
	if err := t.serveOne(ctx, f, from, s); err != nil {
		_ = s.Reset()
		t.opt.Log.Debug("a request was not answered", "id", from.String(), "error", err)
		return
	}
	_ = s.Close()
}

func (t *Transport) serveOne(ctx context.Context, f server, from peer.ID, s network.Stream) error {
	if err := t.admit(from); err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now().Add(serveWithin)); err != nil {
		return err
	}
	b, err := readAll(s, wire.MaxRequest)
	if err != nil {
		return err
	}
	out, err := f(ctx, identity.ID(from.String()), b)
	if err != nil {
		return err
	}
	_, err = s.Write(out)
	return err
}
