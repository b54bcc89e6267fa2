package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/crypto/roster"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/node/internal/membership"
)

// memberList is what `consortium members` prints.
type memberList struct {
	Organisation  string          `json:"organisation"`
	Trusted       []listedSite    `json:"trusted"` // sites of ours, directly
	Consortium    string          `json:"consortium,omitempty"`
	Epoch         uint64          `json:"epoch"`
	Organisations []listedMember  `json:"organisations"`
	Pending       []listedPending `json:"pending"`
}

type listedMember struct {
	Name     string       `json:"name"`
	Standing string       `json:"standing"`
	Root     identity.ID  `json:"root"`
	Until    time.Time    `json:"until"`
	Sites    []listedSite `json:"sites"`
}

type listedSite struct {
	Name  string      `json:"name"`
	ID    identity.ID `json:"id"`
	Voter bool        `json:"voter,omitempty"`
	Until time.Time   `json:"until,omitzero"`
}

type listedPending struct {
	ID     string   `json:"id"`
	Kind   string   `json:"kind"`
	Of     string   `json:"of"`
	Why    string   `json:"why,omitempty"`
	Signed []string `json:"signed"`
	Needed int      `json:"needed"`
}

func membersOf(s *membership.State, now time.Time) memberList {
	l := memberList{Organisation: s.Organisation, Trusted: []listedSite{}, Organisations: []listedMember{}, Pending: []listedPending{}}
	for _, p := range s.Own() {
		l.Trusted = append(l.Trusted, listedSite{Name: p.Name, ID: p.ID})
	}
	if s.Directory == nil {
		return l
	}
	r := s.Directory.Roster()
	l.Consortium, l.Epoch = r.Name(), r.Epoch()
	records := s.Directory.Records(now)
	for _, m := range r.Members() {
		x := listedMember{Name: m.Name, Standing: m.Standing.String(), Root: m.Root, Until: m.NotAfter, Sites: []listedSite{}}
		for _, rec := range records {
			if rec.Organisation == m.Name {
				x.Sites = append(x.Sites, listedSite{rec.Name, rec.Site.Site, rec.Voter, rec.NotAfter})
			}
		}
		l.Organisations = append(l.Organisations, x)
	}
	for _, e := range s.Directory.Pending() {
		id, err := e.ID()
		if err != nil {
			continue
		}
		signed, needed := r.Tally(e)
		l.Pending = append(l.Pending, listedPending{id.String()[:12], string(e.Kind), e.Organisation, e.Why, signed, needed})
	}
	return l
}

func (l *memberList) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = t.Flush() }()
	if len(l.Trusted) == 0 && l.Consortium == "" {
		_, _ = fmt.Fprintln(t, "this site is alone, which is complete; next: hedgerow consortium invite SITE")
		return
	}
	for _, s := range l.Trusted {
		_, _ = fmt.Fprintf(t, "%s\tof %s, trusted directly\t%s\n", s.Name, l.Organisation, s.ID)
	}
	if l.Consortium == "" {
		return
	}
	_, _ = fmt.Fprintf(t, "consortium %s, epoch %d\n", l.Consortium, l.Epoch)
	for _, m := range l.Organisations {
		_, _ = fmt.Fprintf(t, "%s\t%s\tcertificate until %s\n", m.Name, m.Standing, m.Until.Format(time.DateOnly))
		for _, s := range m.Sites {
			votes := ""
			if s.Voter {
				votes = ", votes"
			}
			_, _ = fmt.Fprintf(t, "  %s\tuntil %s%s\t%s\n", s.Name, s.Until.Format(time.DateOnly), votes, s.ID)
		}
	}
	for _, p := range l.Pending {
		_, _ = fmt.Fprintf(t, "waits: %s of %s %s\tsigned by %s, %d needed\thedgerow consortium approve %s\n", p.Kind, p.Of, p.Why, orNone(strings.Join(p.Signed, ", ")), p.Needed, p.ID)
	}
}

func membersCommand() *cobra.Command {
	p, asJSON := new(papers), false
	c := &cobra.Command{
		Use: "members", Short: "List organisations, sites, ends of certificates, and what waits for signatures",
		Example: "  hedgerow consortium members\n  hedgerow consortium members --json | jq .pending",
		Args:    noArgs,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return paperCommand(p, c, func(_ context.Context, out io.Writer, _ []string) error {
		now := time.Now()
		s, err := p.folder.Load(now)
		if err != nil {
			return err
		}
		l := membersOf(s, now)
		if asJSON {
			return printJSON(out, l)
		}
		l.print(out)
		return nil
	})
}

func countCommand() *cobra.Command {
	p := new(papers)
	c := &cobra.Command{
		Use: "count ORGANISATION", Short: "Propose that an observer counts from now on",
		Long:    "Propose that an observer counts from now on: that its site votes, and its changes\nenter the models. Two thirds of those who count must sign.",
		Example: "  hedgerow consortium count briar",
		Args:    exactArgs(1, "an ORGANISATION"),
	}
	return paperCommand(p, c, func(_ context.Context, out io.Writer, args []string) error {
		o, err := p.folder.Count(p.us, args[0], time.Now())
		return tellOutcome(out, o, args[0]+" counts", err)
	})
}

func approveCommand() *cobra.Command {
	p := new(papers)
	c := &cobra.Command{
		Use: "approve ID", Short: "Sign an entry that waits for signatures",
		Example: "  hedgerow consortium members\n  hedgerow consortium approve 3f9c1a52b07e",
		Args:    exactArgs(1, "an entry's ID"),
	}
	return paperCommand(p, c, func(_ context.Context, out io.Writer, args []string) error {
		o, err := p.folder.Approve(p.us, args[0], time.Now())
		return tellOutcome(out, o, "it stands", err)
	})
}

func tellOutcome(out io.Writer, o membership.Outcome, stands string, err error) error {
	if err != nil {
		return err
	}
	if o.Applied {
		_, err = fmt.Fprintln(out, stands)
		return err
	}
	_, err = fmt.Fprintf(out, "entry %s waits: signed by %s, %d needed; there: hedgerow consortium approve %s\n",
		o.ID.String()[:12], orNone(strings.Join(o.Signed, ", ")), o.Needed, o.ID.String()[:12])
	return err
}

func revokeCommand() *cobra.Command {
	p := new(papers)
	var organisation, why string
	c := &cobra.Command{
		Use: "revoke [SITE]", Short: "End a site of this organisation, or with --organisation a member",
		Long: `End a site of this organisation: it is no longer trusted here, and in a
consortium it is let in nowhere once the others have heard of it. Without a
consortium, run it at each of the other sites.

With --organisation: propose that a member leaves, or, named ourselves, leave.`,
		Example: "  hedgerow consortium revoke birch --why \"stolen\"\n  hedgerow consortium revoke --organisation briar --why \"sold\"",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().StringVar(&organisation, "organisation", "", "an organisation, instead of a site")
	c.Flags().StringVar(&why, "why", "", "a reason, which all members read")
	return paperCommand(p, c, func(_ context.Context, out io.Writer, args []string) error {
		if (len(args) == 1) == (organisation != "") {
			return usageError{errors.New("whom? name a SITE of this organisation, or a member by --organisation")}
		}
		if organisation != "" {
			o, err := p.folder.RevokeOrganisation(p.us, organisation, why, time.Now())
			return tellOutcome(out, o, organisation+" is no longer a member", err)
		}
		everywhere, err := p.folder.RevokeSite(p.us, args[0], why, time.Now())
		if errors.Is(err, membership.ErrWaits) {
			return fmt.Errorf("%s is no longer trusted here, but the consortium does not know it yet: %w, then run this again", args[0], err)
		}
		if err != nil {
			return err
		}
		words := args[0] + " is no longer trusted here; run this at the organisation's other sites, and take its [[mesh.peer]] out of the configuration if it has one\n"
		if everywhere {
			words = args[0] + " is revoked: every site that hears of it cuts it off\n"
		}
		_, err = io.WriteString(out, words)
		return err
	})
}

func rotateCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "rotate", Short: "Give this site a new certificate, the organisation a new key, or key files a new passphrase",
		Example: "  hedgerow consortium rotate site\n  hedgerow consortium rotate organisation --root /media/stick/alder.root",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(rotateSiteCommand(), rotateOrganisationCommand(), rotatePassphraseCommand())
	return c
}

func rotateSiteCommand() *cobra.Command {
	p := new(papers)
	c := &cobra.Command{
		Use: "site", Short: "Certify this site anew, with its present name and addresses",
		Long:    "Certify this site anew, with its present name and addresses. Certificates renew\nthemselves where the organisation's key is; this is for a change of address. A site\nwhose own key is to change is revoked, and invited again with a new one.",
		Example: "  hedgerow consortium rotate site --address /ip4/198.51.100.20/tcp/4400",
		Args:    noArgs,
	}
	p.identityFlags(c)
	return paperCommand(p, c, func(_ context.Context, out io.Writer, _ []string) error {
		if err := p.folder.RotateSite(p.us, time.Now()); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "%s has a new certificate, for %s\n", p.us.Name, strings.Join(p.us.Addrs, " "))
		return err
	})
}

func rotateOrganisationCommand() *cobra.Command {
	p := new(papers)
	c := &cobra.Command{
		Use: "organisation", Short: "Give this organisation a new key, which its root certifies",
		Long:    "Give this organisation a new key, which its root certifies: every year, and at once\nwhen the key may have been read. All certificates of the old key end; the sites that\nare known here get new ones.",
		Example: "  hedgerow consortium rotate organisation --root /media/stick/alder.root",
		Args:    noArgs,
	}
	c.Flags().StringVar(&p.us.Root, "root", "", "file of the organisation's root key (default: in the state folder)")
	p.identityFlags(c)
	return paperCommand(p, c, func(_ context.Context, out io.Writer, _ []string) error {
		if err := p.folder.RotateOrganisation(p.us, time.Now()); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, "the organisation has a new key; what the old one signed has ended")
		return err
	})
}

func rotatePassphraseCommand() *cobra.Command {
	p, next := new(papers), ""
	c := &cobra.Command{
		Use: "passphrase", Short: "Lock this site's key files under a passphrase, or another one",
		Long:    "Lock this site's key files under a passphrase, or another one. Without --to they are\nunlocked. The daemon then finds it by federation.passphrase_file, or as the systemd\ncredential " + identity.CredentialPassphrase + ".",
		Example: "  hedgerow consortium rotate passphrase --to /etc/hedgerow/passphrase",
		Args:    noArgs,
	}
	c.Flags().StringVar(&next, "to", "", "file with the new passphrase")
	return paperCommand(p, c, func(_ context.Context, out io.Writer, _ []string) (err error) {
		var to identity.Secret
		if next != "" {
			if to, err = identity.ReadSecret(next); err != nil {
				return err
			}
		}
		n := 0
		for _, path := range []string{p.cfg.Site.StateDir + "/" + identity.FileName, p.folder.Path(membership.OrganisationKey), p.folder.Path(membership.RootKey)} {
			switch err := identity.Lock(path, p.us.Pass, to); {
			case err == nil:
				n++
			case !errors.Is(err, identity.ErrNoKey):
				return err
			}
		}
		_, err = fmt.Fprintf(out, "%d key files are written anew\n", n)
		return err
	})
}

func auditCommand() *cobra.Command {
	p, asJSON := new(papers), false
	c := &cobra.Command{
		Use: "audit", Short: "Check the consortium's whole history again, from its founding on",
		Long:    "Check the consortium's whole history again, entry by entry: every certificate, every\nsignature, every count of them. It fails at the first entry that does not stand.",
		Example: "  hedgerow consortium audit\n  hedgerow consortium audit --json",
		Args:    noArgs,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return paperCommand(p, c, func(_ context.Context, out io.Writer, _ []string) error {
		f, err := os.Open(p.folder.Path(membership.LogFile))
		if errors.Is(err, os.ErrNotExist) {
			return membership.ErrNoConsortium
		}
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		l, err := roster.ReadLog(f, chain.Conflict)
		if err != nil {
			return err
		}
		return printAudit(out, l, asJSON)
	})
}

// audited is one entry in an audit.
type audited struct {
	Epoch  uint64   `json:"epoch"`
	Kind   string   `json:"kind"`
	Of     string   `json:"of"`
	Why    string   `json:"why,omitempty"`
	Signed []string `json:"signed"`
	Head   string   `json:"head"`
}

func printAudit(out io.Writer, l *roster.Log, asJSON bool) error {
	r := l.Roster()
	first, _ := l.Head(0)
	rows := []audited{{0, "founded", l.Genesis().Founder.Name, l.Genesis().Name, []string{l.Genesis().Founder.Name}, first.String()}}
	for i, raw := range l.Since(0, 1<<30) {
		e, err := roster.ParseEntry(raw)
		if err != nil {
			return err
		}
		row := audited{Epoch: uint64(i) + 1, Kind: string(e.Kind), Of: e.Organisation, Why: e.Why, Signed: []string{}}
		for _, v := range e.Votes {
			row.Signed = append(row.Signed, v.Organisation)
		}
		head, _ := l.Head(row.Epoch)
		row.Head = head.String()
		rows = append(rows, row)
	}
	if asJSON {
		return printJSON(out, rows)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, x := range rows {
		_, _ = fmt.Fprintf(t, "%d\t%s\t%s\tsigned by %s\t%s\t%s\n", x.Epoch, x.Kind, x.Of, orNone(strings.Join(x.Signed, ", ")), x.Head[:12], x.Why)
	}
	if r.Epoch() == 0 {
		_, _ = fmt.Fprintln(t, "the founding stands, and nothing was decided since")
		return t.Flush()
	}
	_, _ = fmt.Fprintf(t, "all %d entries stand: %d organisations, %d of them count\n", r.Epoch(), len(r.Members()), len(r.Counted()))
	return t.Flush()
}
