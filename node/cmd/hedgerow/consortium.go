package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/membership"
)

func consortiumCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "consortium", Short: "Who this site works with: found, invite, join, members, revoke, rotate, audit", GroupID: "daily",
		Long: `Who this site works with: other sites of its own organisation, which it trusts
directly, and other organisations in a consortium that nobody owns.

A second site of one's own organisation takes two commands:
  hedgerow consortium invite birch          here; it prints a token and waits
  hedgerow consortium join TOKEN            there

Another organisation takes two as well, once there is a consortium:
  hedgerow consortium create grove --organisation alder
  hedgerow consortium invite --organisation briar
  hedgerow consortium join TOKEN            there

It then observes. Two thirds of those who count decide what becomes of it:
` + "`hedgerow consortium members`" + ` shows what waits for a signature.`,
		Example: "  hedgerow consortium invite birch\n  hedgerow consortium join hedgerow1-...\n  hedgerow consortium members",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(createCommand(), inviteCommand(), joinCommand(), membersCommand(), countCommand(), approveCommand(),
		revokeCommand(), rotateCommand(), auditCommand())
	return c
}

// papers are the flags that the commands share, and what they lead to.
type papers struct {
	config, state, pass, name string
	address                   []string
	within                    time.Duration // of join

	cfg    *config.Config
	folder *membership.Folder
	us     membership.Us
}

func (p *papers) flags(c *cobra.Command) {
	c.Flags().StringVarP(&p.config, "config", "c", "", "configuration (default: "+defaultConfig+" where it exists)")
	c.Flags().StringVar(&p.state, "state", "", "state folder, instead of site.state_dir")
	c.Flags().StringVar(&p.pass, "passphrase-file", "", "passphrase of the key files, instead of federation.passphrase_file")
}

// identityFlags are those of commands that say who and where this site is.
func (p *papers) identityFlags(c *cobra.Command) {
	c.Flags().StringVar(&p.name, "name", "", "this site's name, instead of site.name")
	c.Flags().StringArrayVar(&p.address, "address", nil, "multiaddress at which other sites reach this one (default: mesh.listen at this machine's addresses)")
}

// open reads the configuration and the site's key, which is made at first use.
func (p *papers) open() error {
	cfg, err := loadConfig(p.config)
	if err != nil {
		return err
	}
	p.cfg = cfg
	if p.state != "" {
		if cfg.Site.StateDir, err = filepath.Abs(p.state); err != nil {
			return err
		}
	}
	cfg.Federation.PassphraseFile = cmp.Or(p.pass, cfg.Federation.PassphraseFile)
	p.folder = papersOf(cfg)
	if p.us.Pass, err = passphrase(cfg); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Site.StateDir, 0o700); err != nil {
		return fmt.Errorf("state folder: %v: run as root, or name a folder that you may write by --state", err)
	}
	if p.us.Key, err = siteKey(cfg); err != nil {
		return err
	}
	p.us.Name = cmp.Or(p.name, cfg.SiteName(hostName()))
	p.us.Addrs = p.address
	if len(p.address) == 0 {
		p.us.Addrs, err = reachable(cfg.Mesh.Listen)
	}
	return err
}

func papersOf(cfg *config.Config) *membership.Folder {
	return membership.At(cfg.Site.StateDir, chain.Conflict)
}

// passphrase is that of the key files: of the file that is named, or a systemd credential.
func passphrase(cfg *config.Config) (identity.Secret, error) {
	if cfg.Federation.PassphraseFile != "" {
		return identity.ReadSecret(cfg.Federation.PassphraseFile)
	}
	return identity.CredentialSecret(os.Getenv("CREDENTIALS_DIRECTORY"))
}

// siteKey is the site's key: a systemd credential, or the file, which is made at
// first use.
func siteKey(cfg *config.Config) (*identity.Key, error) {
	pass, err := passphrase(cfg)
	if err != nil {
		return nil, err
	}
	if k, err := identity.CredentialSiteKey(os.Getenv("CREDENTIALS_DIRECTORY"), pass); k != nil || err != nil {
		return k, err
	}
	path := filepath.Join(cfg.Site.StateDir, identity.FileName)
	k, err := identity.LoadFile(path, pass)
	if errors.Is(err, identity.ErrNoKey) {
		return identity.CreateFile(path, pass)
	}
	return k, err
}

// reachable writes listening addresses as others dial them: a wildcard becomes the
// machine's own addresses.
func reachable(listen []string) ([]string, error) {
	ifs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this machine's addresses: %v; name one by --address", err)
	}
	var out []string
	for _, l := range listen {
		for wild, v4 := range map[string]bool{"/ip4/0.0.0.0/": true, "/ip6/::/": false} {
			rest, is := strings.CutPrefix(l, wild)
			if !is {
				continue
			}
			l = ""
			for _, a := range ifs {
				n, ok := a.(*net.IPNet)
				if !ok || !n.IP.IsGlobalUnicast() || (n.IP.To4() != nil) != v4 {
					continue
				}
				family := "ip6"
				if v4 {
					family = "ip4"
				}
				out = append(out, "/"+family+"/"+n.IP.String()+"/"+rest)
			}
		}
		if l != "" {
			out = append(out, l)
		}
	}
	return out[:min(len(out), identity.MaxAddrs)], nil
}

// paperCommand makes a command whose work begins with the site's papers.
func paperCommand(p *papers, c *cobra.Command, run func(ctx context.Context, out io.Writer, args []string) error) *cobra.Command {
	p.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := p.open(); err != nil {
			return err
		}
		return run(c.Context(), c.OutOrStdout(), args)
	}
	return c
}

func createCommand() *cobra.Command {
	p, organisation := new(papers), ""
	c := &cobra.Command{
		Use: "create NAME", Short: "Found a consortium, with this organisation as its first member",
		Long: `Found a consortium, with this organisation as its first member and this site as
its voting site. The organisation's root and key are made if it has none.

The root signs nothing but the organisation's keys: move its file to a medium that
is not connected to anything, and keep two copies. ` + "`hedgerow consortium rotate`" + `
needs it again.`,
		Example: "  hedgerow consortium create grove --organisation alder\n  hedgerow consortium create grove --organisation alder --root /media/stick/alder.root",
		Args:    exactArgs(1, "the consortium's NAME"),
	}
	c.Flags().StringVar(&organisation, "organisation", "", "this organisation's name (default: mesh.organisation, or what its sites joined as)")
	c.Flags().StringVar(&p.us.Root, "root", "", "file of the organisation's root key (default: in the state folder)")
	p.identityFlags(c)
	return paperCommand(p, c, func(_ context.Context, out io.Writer, args []string) error {
		s, err := p.folder.Load(time.Now())
		if err != nil {
			return err
		}
		name := cmp.Or(organisation, p.cfg.Mesh.Organisation, s.Organisation)
		if name == "" {
			return usageError{errors.New("which organisation founds it? name it by --organisation")}
		}
		if err := p.folder.Create(p.us, args[0], name, time.Now()); err != nil {
			return err
		}
		root := cmp.Or(p.us.Root, p.folder.Path(membership.RootKey))
		_, err = fmt.Fprintf(out, `consortium %s is founded; %s is its first member, and %s votes for it
  root key %s: move it to a medium that is not connected to anything, twice
  next: hedgerow consortium invite --organisation NAME
`, args[0], name, p.us.Name, root)
		for _, own := range s.Own() {
			_, err = fmt.Fprintf(out, "  and: hedgerow consortium invite %s, so that it has the consortium's papers too\n", own.Name)
		}
		return err
	})
}

func inviteCommand() *cobra.Command {
	p := new(papers)
	var organisation, tokenFile string
	var listen, at []string
	var valid time.Duration
	c := &cobra.Command{
		Use: "invite [SITE]", Short: "Invite a site of this organisation, or another organisation: print a token and wait",
		Long: `Invite a site of this organisation, or with --organisation another organisation.
It prints a token, which is a secret: hand it over by a way that others cannot
read. Then it waits, until the guest has joined or the time is over; to interrupt
it withdraws the invitation. The token works once, and only while this waits.

The guest comes by a port of its own (TCP 4401), which is open only meanwhile and
closes every connection whose key is not the guest's.`,
		Example: "  hedgerow consortium invite birch\n  hedgerow consortium invite --organisation briar --valid 72h\n  hedgerow consortium invite birch --at /ip4/203.0.113.7/tcp/4401",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().StringVar(&organisation, "organisation", "", "invite this organisation into the consortium, instead of a site")
	c.Flags().StringArrayVar(&listen, "listen", []string{"/ip4/0.0.0.0/tcp/4401"}, "multiaddress to wait at")
	c.Flags().StringArrayVar(&at, "at", nil, "multiaddress at which the guest reaches it (default: --listen at this machine's addresses)")
	c.Flags().DurationVar(&valid, "valid", 24*time.Hour, "how long the invitation is valid, at most 720h")
	c.Flags().StringVar(&tokenFile, "token-file", "", "write the token to this file, for its owner alone, instead of printing it")
	p.identityFlags(c)
	p.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		t := membership.Token{Kind: membership.ForSite, Name: organisation}
		if organisation != "" {
			t.Kind = membership.ForOrganisation
		}
		if (len(args) == 1) == (organisation != "") {
			return usageError{errors.New("whom? name a SITE of this organisation, or another one by --organisation")}
		}
		if len(args) == 1 {
			t.Name = args[0]
		}
		if valid <= 0 || valid > membership.MaxInvitation {
			return usageError{fmt.Errorf("--valid %s: expected more than 0 and at most %s", valid, membership.MaxInvitation)}
		}
		if err := p.open(); err != nil {
			return err
		}
		t.Expires = time.Now().Add(valid)
		return p.invite(c, t, listen, at, tokenFile)
	}
	return c
}

// invite listens, prints the token and waits for the guest.
func (p *papers) invite(c *cobra.Command, t membership.Token, listen, at []string, tokenFile string) error {
	if err := p.introduce(&t); err != nil {
		return err
	}
	token, err := membership.Invite(t)
	if err != nil {
		return err
	}
	guest := federation.Site{Name: t.Name, ID: token.Guest().ID(), Until: t.Expires}
	tr, err := gossip.New(gossip.Options{Key: p.us.Key, Organisation: membership.MeshOfVisits, Listen: listen, Roster: []federation.Site{guest}})
	if err != nil {
		return err
	}
	defer func() { _ = tr.Close() }()
	if token.Addrs = at; len(at) == 0 {
		if token.Addrs, err = reachable(tr.Addrs()); err != nil {
			return err
		}
	}
	text, err := token.Text()
	if err != nil {
		return err
	}
	if err := handOver(c, text, tokenFile); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(c.ErrOrStderr(), "an invitation of %s %s, valid until %s; there: hedgerow consortium join TOKEN\nwaiting at %s; to interrupt withdraws it\n",
		t.Kind, t.Name, t.Expires.Format(time.RFC3339), strings.Join(token.Addrs, " "))
	name, applied, err := p.folder.Welcome(c.Context(), tr, p.us, token, time.Now)
	if err != nil {
		return err
	}
	words := name + " has joined; a running `hedgerow up` connects to it by itself\n"
	switch {
	case t.Kind == membership.ForOrganisation && applied:
		words = fmt.Sprintf("%s has joined as an observer; when it shall count: hedgerow consortium count %s\n", t.Name, t.Name)
	case t.Kind == membership.ForOrganisation:
		words = fmt.Sprintf("%s has come; its admission waits for the other organisations' signatures (hedgerow consortium members)\n", t.Name)
	}
	_, err = io.WriteString(c.OutOrStdout(), words)
	return err
}

// introduce fills in what the token says of us.
func (p *papers) introduce(t *membership.Token) error {
	s, err := p.folder.Load(time.Now())
	if err != nil {
		return err
	}
	if t.Kind == membership.ForOrganisation && s.Directory == nil {
		return membership.ErrNoConsortium
	}
	t.Inviter = p.us.Key.ID()
	t.Organisation = cmp.Or(s.Organisation, p.cfg.Mesh.Organisation, p.us.Name)
	if s.Certificate != nil {
		t.Root = s.Certificate.Root
	}
	if s.Directory != nil {
		t.Consortium = s.Directory.Roster().Name()
	}
	return nil
}

func handOver(c *cobra.Command, text, file string) error {
	if file == "" {
		_, err := fmt.Fprintln(c.OutOrStdout(), text)
		return err
	}
	if err := identity.Replace(file, []byte(text+"\n")); err != nil {
		return fmt.Errorf("token: %v", err)
	}
	return nil
}

func joinCommand() *cobra.Command {
	p, tokenFile := new(papers), ""
	c := &cobra.Command{
		Use: "join [TOKEN]", Short: "Join by a token: another site of this organisation, or a consortium",
		Long: `Join by a token: as a site of the organisation that invites, or as another
organisation, in its consortium. Which of the two, the token says. An organisation's
root and key are made if it has none; see ` + "`hedgerow consortium create --help`" + ` for
what to do with the root.

A running ` + "`hedgerow up`" + ` notices by itself.`,
		Example: "  hedgerow consortium join hedgerow1-...\n  hedgerow consortium join --token-file ./token --address /ip4/198.51.100.20/tcp/4400",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().DurationVar(&p.within, "within", 20*time.Second, "how long to try to reach the inviting site")
	c.Flags().StringVar(&tokenFile, "token-file", "", "read the token from this file, so that it stands in no shell history")
	c.Flags().StringVar(&p.us.Root, "root", "", "file of the organisation's root key (default: in the state folder)")
	p.identityFlags(c)
	return paperCommand(p, c, func(ctx context.Context, out io.Writer, args []string) error {
		if (len(args) == 1) == (tokenFile != "") {
			return usageError{errors.New("expected a TOKEN, or --token-file")}
		}
		text := strings.Join(args, "")
		if tokenFile != "" {
			b, err := os.ReadFile(tokenFile)
			if err != nil {
				return fmt.Errorf("token: %v", err)
			}
			text = string(b)
		}
		t, err := membership.ReadToken(text, time.Now())
		if err != nil {
			return err
		}
		if t.Kind == membership.ForSite && p.name == "" && p.cfg.Site.Name == "" {
			p.us.Name = t.Name // the name that it was invited under
		}
		return p.join(ctx, out, t)
	})
}

func (p *papers) join(ctx context.Context, out io.Writer, t *membership.Token) error {
	tr, err := gossip.New(gossip.Options{
		Key: t.Guest(), Organisation: membership.MeshOfVisits,
		Roster: []federation.Site{{Name: "inviter", ID: t.Inviter, Addrs: t.Addrs}},
	})
	if err != nil {
		return err
	}
	defer func() { _ = tr.Close() }()
	ctx, cancel := context.WithTimeout(ctx, p.within)
	defer cancel()
	j, err := p.folder.Join(ctx, tr, p.us, t, time.Now())
	if err != nil {
		return err
	}
	var names []string
	for _, s := range j.Peers {
		names = append(names, s.Name)
	}
	switch {
	case t.Kind == membership.ForSite:
		_, err = fmt.Fprintf(out, "%s is now a site of organisation %s, with %s\n", p.us.Name, j.Organisation, strings.Join(names, ", "))
	case j.Applied:
		_, err = fmt.Fprintf(out, "%s is now an observer in consortium %s\n", j.Organisation, j.Consortium)
	default:
		_, err = fmt.Fprintf(out, "%s has asked to be in consortium %s; it is let in once the others have signed\n", j.Organisation, j.Consortium)
	}
	if err != nil {
		return err
	}
	if t.Kind == membership.ForOrganisation {
		_, _ = fmt.Fprintf(out, "  root key %s: move it to a medium that is not connected to anything, twice\n", cmp.Or(p.us.Root, p.folder.Path(membership.RootKey)))
	}
	_, err = fmt.Fprintln(out, "  next: hedgerow up, or nothing where it runs")
	return err
}
