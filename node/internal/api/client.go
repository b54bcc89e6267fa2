package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Client talks to one daemon. Its methods mirror Backend.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the daemon behind a socket. Nothing is dialled yet.
func NewClient(socket string) *Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return &Client{socket, &http.Client{Transport: t}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no daemon at %s: start it with `hedgerow up`, or name its socket with --socket", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("daemon at %s does not answer: it has stopped; start it with `hedgerow up`", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("socket %s: not permitted: run as root, or as a member of the socket's group", c.socket)
	}
	return fmt.Errorf("daemon at %s: %v", c.socket, err)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hedgerow"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return failure(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of the daemon at %s: %v", c.socket, err)
	}
	return nil
}

func failure(resp *http.Response) error {
	var e struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&e) != nil || e.Error == "" {
		return fmt.Errorf("daemon answered %s", resp.Status)
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		return wrapped{e.Error, ErrNotFound}
	case http.StatusBadRequest:
		return wrapped{e.Error, ErrInvalid}
	case http.StatusConflict:
		return wrapped{e.Error, ErrBusy}
	}
	return errors.New(e.Error)
}

// wrapped is a server's sentence that still answers to errors.Is.
type wrapped struct {
	s   string
	err error
}

func (w wrapped) Error() string {
	return strings.TrimSuffix(w.s, ": "+w.err.Error())
}
func (w wrapped) Unwrap() error { return w.err }

// Status asks for the site at a glance.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
}

func (q Query) encode(follow bool) string {
	v := url.Values{}
	var ks []string
	for _, k := range q.Kinds {
		ks = append(ks, string(k))
	}
	if len(ks) > 0 {
		v.Set("kind", strings.Join(ks, ","))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if follow {
		v.Set("follow", "1")
	}
	return "/v1/events?" + v.Encode()
}

// Events lists records, the newest first.
func (c *Client) Events(ctx context.Context, q Query) (es []*event.Event, err error) {
	return es, c.do(ctx, http.MethodGet, q.encode(false), nil, &es)
}

// Follow streams records until ctx ends or the daemon goes; then the channel is closed.
func (c *Client) Follow(ctx context.Context, q Query) (<-chan *event.Event, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hedgerow"+q.encode(true), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		return nil, failure(resp)
	}
	ch := make(chan *event.Event)
	go func() {
		defer close(ch)
		defer func() { _ = resp.Body.Close() }()
		sc := bufio.NewScanner(resp.Body)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			e, err := event.Decode(sc.Bytes())
			if err != nil {
				return
			}
			select {
			case ch <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// Explain asks for everything known of an alert, incident or block.
func (c *Client) Explain(ctx context.Context, id string) (*Explanation, error) {
	var e Explanation
	if err := c.do(ctx, http.MethodGet, "/v1/explain/"+url.PathEscape(id), nil, &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// Label confirms (attack) or dismisses an alert or incident.
func (c *Client) Label(ctx context.Context, id string, attack bool) error {
	return c.do(ctx, http.MethodPost, "/v1/label", labelRequest{id, attack}, nil)
}

// Blocks lists standing rules.
func (c *Client) Blocks(ctx context.Context) (bs []Block, err error) {
	return bs, c.do(ctx, http.MethodGet, "/v1/blocks", nil, &bs)
}

// Block blocks a target by the operator's hand; zero d takes the site's default.
func (c *Client) Block(ctx context.Context, target string, d time.Duration, reason string) error {
	return c.do(ctx, http.MethodPost, "/v1/block", blockRequest{target, d.Seconds(), reason}, nil)
}

// Order asks for a rule by hand.
func (c *Client) Order(ctx context.Context, o Order) error {
	return c.do(ctx, http.MethodPost, "/v1/order", o, nil)
}

// Verify compares what is enforced with what is intended.
func (c *Client) Verify(ctx context.Context) (d Difference, err error) {
	return d, c.do(ctx, http.MethodGet, "/v1/verify", nil, &d)
}

// Unblock undoes a block completely.
func (c *Client) Unblock(ctx context.Context, target string) error {
	return c.do(ctx, http.MethodPost, "/v1/unblock", targetRequest{target}, nil)
}

// Allow adds an entry to the never-block list, or removes it; it returns the
// list. An empty entry only lists.
func (c *Client) Allow(ctx context.Context, entry string, remove bool) (list []string, err error) {
	return list, c.do(ctx, http.MethodPost, "/v1/allow", allowRequest{entry, remove}, &list)
}

// SetMode switches between monitor and enforce.
func (c *Client) SetMode(ctx context.Context, mode string) error {
	return c.do(ctx, http.MethodPost, "/v1/mode", modeRequest{mode}, nil)
}

// Panic lifts every learned and shared verdict, or ends that state. It returns
// how many were lifted.
func (c *Client) Panic(ctx context.Context, on bool) (int, error) {
	var out struct {
		Lifted int `json:"lifted"`
	}
	err := c.do(ctx, http.MethodPost, "/v1/panic", panicRequest{on}, &out)
	return out.Lifted, err
}

// Stop ends the daemon; with remove, enforcement as well. It returns when the
// daemon is about to stop, see Gone.
func (c *Client) Stop(ctx context.Context, remove bool) error {
	return c.do(ctx, http.MethodPost, "/v1/stop", stopRequest{remove}, nil)
}

// Gone waits until nobody answers at the socket.
func (c *Client) Gone(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.DialTimeout("unix", c.socket, time.Second)
		if err != nil {
			return nil
		}
		_ = conn.Close()
		select {
		case <-ctx.Done():
			return fmt.Errorf("daemon at %s has not stopped yet: %v", c.socket, ctx.Err())
		case <-tick.C:
		}
	}
}

// Peers lists the other sites.
func (c *Client) Peers(ctx context.Context) (ps []Peer, err error) {
	return ps, c.do(ctx, http.MethodGet, "/v1/peers", nil, &ps)
}

// StartRound begins a round of shared models now.
func (c *Client) StartRound(ctx context.Context) (uint64, error) {
	var out struct {
		Round uint64 `json:"round"`
	}
	err := c.do(ctx, http.MethodPost, "/v1/round", struct{}{}, &out)
	return out.Round, err
}
