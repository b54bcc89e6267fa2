// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel's packet path: one decision function behind two hooks. XDP sees
 * what enters the interface, TCX egress what leaves it. Semantics are those of
 * package dataplane and are held to by dataplane/planetest.
 */
#include "rules.h"
#include "flowtable.h"
#include "prove.h"
#include "hello.h"
#include "score.h"

/* The only way out: nothing is dropped unless the mode says so, and no copy ever. */
static __always_inline int leave(const struct config *c, struct counters *n, const struct pkt *p, int drop)
{
	if (!drop)
		return 0;
	if (c->mode != MODE_ENFORCE || role == ROLE_SENSOR) {
		n->would_drop += p->segs;
		return 0;
	}
	n->dropped += p->segs;
	return 1;
}

/* Of told: first drops are told once in each mode. */
static __always_inline __u32 told_bit(const struct config *c)
{
	return c->mode == MODE_ENFORCE ? 2 : 1;
}

/* The news that a drop is, if it is the first of its rule in this mode. */
__noinline __u64 news_of_drop(struct match *m, struct pkt *p)
{
	__u32 zero = 0, bit;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);

	if (!c || !m || !p)
		return 0;
	bit = told_bit(c);
	if (m->told & bit)
		return 0;
	if (!first_drop(m, p, bit))
		return 0;
	return WHAT(EV_FIRST_DROP, 0, m->reason);
}

/*
 * Generic XDP comes after the kernel put segments of TCP together, and is not
 * told how many. All but the last are equal, and on most paths fill the link.
 */
static __always_inline void regroup(struct pkt *p, __u32 most)
{
	__u32 mss = most - p->hdr_len;

	if (p->segs > 1 || p->proto != P_TCP || !(p->have & HAVE_L4) || p->hdr_len >= most || p->payload <= mss)
		return;
	p->mss = mss;
	p->segs = (p->payload + mss - 1) / mss;
}

/* Tells the first drop of a reason of the bulk set. */
__noinline int tell_listed(struct pkt *p, __u32 place)
{
	struct bulk_head *h = bulk_head_of(place / BULK_REASONS);
	__u32 zero = 0, bit, at = place & (BULK_REASONS - 1);
	struct config *c = bpf_map_lookup_elem(&settings, &zero);

	if (!p || !c || !h)
		return 0; /* the set was replaced just now */
	bit = told_bit(c);
	if (__sync_fetch_and_or(&h->told[at], bit) & bit)
		return 0;
	canonical(p);
	return flow_dropped(p, 0, bpf_ktime_get_boot_ns(), WHAT(EV_FIRST_DROP, 0, h->reasons[at]));
}

/*
 * What becomes of a packet that the bulk set lists, at place. It comes first and
 * asks for little, as it is what an attack makes most of: neither other rules nor
 * its flow are looked at.
 */
static __always_inline int drop_listed(const struct config *c, struct counters *n, struct pkt *p, __u32 place)
{
	if (!is_told(bulk_head_of(place / BULK_REASONS), place, told_bit(c)))
		tell_listed(p, place);
	return leave(c, n, p, 1);
}

/*
 * Asks the bulk set, unless p's flow did. While most packets are listed they are
 * asked about first, as it is they who have no flow. Returns what ask_bulk does.
 */
static __always_inline __u32 meet_bulk(struct counters *n, struct pkt *p, __u32 bulk)
{
	__u32 place = 0;

	if (likely(n->listed < LISTED_HALF && p->have & HAVE_L4))
		look_ahead(p, &p->spot, bulk);
	if (!p->clean)
		place = ask_bulk(n, p, BULK_SLOT(bulk));
	tally_listed(n, place);
	if (likely(!place))
		p->clean = bulk;
	return place;
}

/* What to do with p. */
static __always_inline int decide(struct pkt *p)
{
	struct match *m = &p->match;
	struct counters *n;
	struct config *c;
	struct slot *slot;
	struct spot *at = &p->spot;
	__u32 zero = 0, place;
	int drop = 0, saved = 0, quick = 0, known = 0, born = 0, fate = ADMIT;

	c = bpf_map_lookup_elem(&settings, &zero);
	n = bpf_map_lookup_elem(&totals, &zero);
	if (!c || !n)
		return 0;
	if (unlikely(c->most && p->ip_len > c->most))
		regroup(p, c->most);
	n->packets += p->segs;
	n->bytes += p->segs > 1 ? p->payload + (__u64)p->segs * p->hdr_len : p->ip_len;
	if (p->bad) {
		if (p->bad < N_BAD)
			n->bad[p->bad]++;
		p->have &= ~HAVE_L4;
	}
	if (!(p->have & HAVE_IP))
		return 0;
	if (p->have & LATER_FRAG)
		n->later_fragments++;
	if (c->bulk) {
		place = meet_bulk(n, p, c->bulk);
		if (unlikely(place--)) {
			count_listed(place, p);
			if (likely(!maybe_spared(c, p) || !never_block(p)))
				return drop_listed(c, n, p, place);
			saved = 1;
		}
	}
	if (!(p->look & LOOKED))
		canonical(p);
	if (likely(!saved)) {
		match_rules(c, m, p);
		drop = m->action >= ACT_SUSPEND;
	}
	if (likely(!drop && p->have & HAVE_L4)) {
		if (!(p->look & LOOKED)) {
			flow_spot(p, at);
			p->look = flow_quick(p, at) ? AT_QUICK : 0;
		}
		quick = !m->budgets && p->look & AT_QUICK;
	}
	/* Behind what is fetched from memory: reading the clock waits for all of that. */
	m->now = m->now ?: bpf_ktime_get_boot_ns();
	if (likely(!drop && p->have & HAVE_L4)) {
		slot = quick ? grasp(p, at) : 0;
		if (likely(slot)) {
			known = IN_SLOT;
			if (unlikely(slot->held) && !saved && stopped(slot, p, m->now)) {
				drop = 1;
				goto held;
			}
			n->flows_ended += settle_here(slot, p, at, m->now);
			goto counted;
		}
		known = use_lru ? known_lru(p) : look(p, at);
		born = !known && makes_flow(p);
		if (saved)
			goto admitted;
		if (unlikely(any_held(m->now)) && held(p, m->now)) {
			drop = 1;
			goto held;
		}
		if (m->budgets && !(p->way & (WAY_JOIN | WAY_PASS)))
			drop = over_budget(m, p, born);
		if (!drop && (born || (!known && knocks(p)))) {
			fate = admit(p, m->now);
			drop = (fate & 0xff) == REFUSE;
		}
		if (born && !drop && orphaned(c, p, m->now)) {
			n->orphaned += p->segs;
			drop = 1;
		}
	}
held:
	if (drop && maybe_spared(c, p) && never_block(p)) {
		saved = 1;
		if (p->have & HAVE_L4 && !known)
			known = flow_known(p, at);
		born = p->have & HAVE_L4 && !known && makes_flow(p);
		drop = 0;
		fate = ADMIT;
	}
	if (drop) {
		if (fate != ADMIT && challenge(p, fate >> 8, m->now))
			return c->mode == MODE_ENFORCE ? ANSWER : PASS;
		if (fate != ADMIT)
			tell_refused(p, fate >> 8, m->now);
		else
			flow_dropped(p, p->segs, m->now, news_of_drop(m, p));
		return leave(c, n, p, drop);
	}
admitted:
	if (born && fate == ADMIT_BARE)
		pass_untracked(p);
	else if ((known || born || (p->have & HAVE_L4 && leftover(p))) && flow_track(p, at, known, m->now))
		n->flows_ended++;
counted:
	if (unlikely(saved))
		n->never_saved += p->segs;
	if (p->have & PROVED && p->hook == TO_INSIDE)
		remember(&p->src, m->now);
	if (p->hook == TO_INSIDE && p->proto == P_TCP && p->have & HAVE_L4) {
		if (!known && p->flags & T_RST)
			hear_reset(p, m->now);
		else if (any_dark() && dark(p, m->now))
			return c->mode == MODE_ENFORCE ? ANSWER : PASS;
	}
	return PASS;
}

/*
 * The packet at hand. It is not on the stack, which is short: what is called
 * with it goes five deep. Nor would verifiers see that two ways there are one
 * for all that follows. Nothing on this processor comes between.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pkt);
} scratch_now SEC(".maps");

static __always_inline struct pkt *fresh_packet(__u8 hook)
{
	__u32 zero = 0;
	struct pkt *p = bpf_map_lookup_elem(&scratch_now, &zero);

	if (!p)
		return 0;
	/* All but the key and the spot, which are written whole before they are read. */
	__builtin_memset(&p->src, 0, __builtin_offsetof(struct pkt, spot) - __builtin_offsetof(struct pkt, src));
	p->segs = 1;
	p->hook = hook;
	return p;
}

/* A packet over a budget whose form is not one that is answered. */
__noinline int refuse(struct pkt *p)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);

	if (!c || !n || !p)
		return PASS;
	return leave(c, n, p, p->answer == ANSWER_CHALLENGE);
}

/*
 * What was looked at first is the part of the frame that can be read directly.
 * Says whether there is more; if so, parses again, knowing how long it is.
 */
__noinline int parse_longer(struct xdp_md *ctx, struct pkt *p)
{
	struct view near = {.data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end, .where = NEAR};
	__u32 full = bpf_xdp_get_buff_len(ctx);

	if (!p || p->linear >= full)
		return 0;
	reset(p);
	parse(&near, full, p);
	return 1;
}

/*
 * Headers may lie outside the part that can be read directly, rarely; payload
 * often does, and then only its first bytes are fetched.
 */
__noinline int parse_rest_xdp(struct xdp_md *ctx, struct pkt *p)
{
	struct view far = {.ctx = ctx, .where = FAR_XDP};

	if (!p)
		return 0;
	if (p->bad) {
		reset(p);
		parse(&far, bpf_xdp_get_buff_len(ctx), p);
	} else if (p->proto == P_TCP && p->payload >= 4 && p->body + 4 > p->linear) {
		bpf_xdp_load_bytes(ctx, p->body, &p->first4, 4);
	}
	return 0;
}

/*
 * Goes on with the scorer. Where the place in the array stands in the program the
 * kernel writes a plain jump there and changes that when the place changes; any
 * other way would be a guess that the processor may not make, and waits for.
 */
#define jump(ctx, array, place) asm volatile("r1 = %0; r2 = %1; r3 = %2; call 12" \
	:: "r"(ctx), "r"(array), "i"(place) : "r0", "r1", "r2", "r3", "r4", "r5", "memory")

static __always_inline void show(void *ctx, void *array, __u32 due)
{
	if (due == 1)
		jump(ctx, array, 0);
	else
		jump(ctx, array, 1);
}

SEC("xdp.frags")
int hedgerow_xdp(struct xdp_md *ctx)
{
	struct pkt *p = fresh_packet(xdp_hook);
	struct view near = {.data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end, .where = NEAR};
	int what;

	if (!p)
		return XDP_PASS;
	p->linear = near.end - near.data;
	parse(&near, p->linear, p);
	if (unlikely(p->bad) && parse_longer(ctx, p))
		parse_rest_xdp(ctx, p);
	p->can_answer = role != ROLE_SENSOR;
	place_ingress(p);
	what = decide(p);
	if (what == ANSWER && role != ROLE_SENSOR) {
		if (answer(ctx, p))
			return XDP_TX;
		what = refuse(p);
	}
	if (what == DROP)
		return XDP_DROP;
	if (unlikely(is_dns(p)))
		dns_xdp(ctx, p);
	if (unlikely(p->show))
		hello_xdp(ctx, p);
	if (unlikely(p->due) && ask(p))
		show(ctx, &scorers_xdp, p->due);
	return XDP_PASS;
}

__noinline int parse_skb(struct __sk_buff *skb, struct pkt *p)
{
	struct view near = {.data = (void *)(long)skb->data, .end = (void *)(long)skb->data_end, .where = NEAR};

	if (!p)
		return 0;
	p->linear = near.end - near.data;
	near.gso = skb->gso_size;
	parse(&near, skb->len, p);
	return 0;
}

__noinline int parse_rest_skb(struct __sk_buff *skb, struct pkt *p)
{
	struct view far = {.ctx = skb, .where = FAR_SKB};

	if (!p)
		return 0;
	far.gso = skb->gso_size;
	if (p->bad) {
		reset(p);
		parse(&far, skb->len, p);
	} else if (p->proto == P_TCP && p->payload >= 4 && p->body + 4 > p->linear) {
		bpf_skb_load_bytes(skb, p->body, &p->first4, 4);
	}
	return 0;
}

/* The headers of an IP packet at off, its transport's included; 0: not of TCP or UDP. */
static __always_inline __u32 headers_at(struct __sk_buff *skb, __u32 off)
{
	__u32 n, w = 0;

	if (bpf_skb_load_bytes(skb, off, &w, 1))
		return 0;
	n = w >> 4 == 6 ? 40 : (w & 15) * 4;
	if ((w >> 4 != 4 && w >> 4 != 6) || bpf_skb_load_bytes(skb, off + (w >> 4 == 6 ? 6 : 9), &w, 1))
		return 0;
	if (w == P_UDP)
		return n + 8;
	if (w != P_TCP || bpf_skb_load_bytes(skb, off + n + 12, &w, 1))
		return 0;
	return n + (w >> 4) * 4;
}

/*
 * How long the headers are that what a tunnel carries begins with, the tunnel's own
 * included: VXLAN, Geneve (RFC 8926), GRE (RFC 2890), IP in IP. 0: not known.
 */
__noinline int inner_headers(struct __sk_buff *skb, struct pkt *p)
{
	__u32 n = 0, w = 0, inner;

	if (!p || bpf_skb_load_bytes(skb, p->body, &w, 4))
		return 0;
	if (p->proto == P_UDP && (p->dport == 4789 || p->dport == 8472))
		n = 8 + 14;
	else if (p->proto == P_UDP && p->dport == 6081)
		n = 8 + (w & 63) * 4 + (w >> 16 == ntohs(0x6558) ? 14 : 0);
	else if (p->proto == 47)
		n = 4 + (w >> 5 & 4) + (w >> 3 & 4) + (w >> 2 & 4) + (w >> 16 == ntohs(0x6558) ? 14 : 0);
	else if (p->proto != 4 && p->proto != 41)
		return 0;
	inner = headers_at(skb, p->body + n);
	return inner ? n + inner : 0;
}

/*
 * In a tunnel every segment repeats the inner headers. Where they are not known, the
 * length on the wire counts all headers of each, and what is more than ours is
 * theirs; Linux 6.1 leaves them out, or counts something else.
 */
static __always_inline void tunnelled(struct __sk_buff *skb, struct pkt *p)
{
	__u32 n = skb->gso_segs, ours = skb->len - p->ip_len + p->hdr_len, every, inner, payload;

	if (n < 2)
		return;
	inner = inner_headers(skb, p);
	if (!inner) {
		every = skb->wire_len > skb->len ? (skb->wire_len - skb->len) / (n - 1) : 0;
		inner = every - ours;
		if (every < ours || inner > 256)
			return;
	}
	payload = p->payload + (n - 1) * inner;
	if (payload <= (n - 1) * (skb->gso_size + inner))
		return;
	p->segs = n;
	p->mss = skb->gso_size + inner;
	p->payload = payload;
}

/* What the kernel will cut up on its way out counts as the packets on the wire. */
static __always_inline void segments(struct __sk_buff *skb, struct pkt *p)
{
	__u32 size = skb->gso_size;

	if (!size || p->payload <= size)
		return;
	p->mss = size;
	p->segs = (p->payload + size - 1) / size;
	if (p->proto != P_TCP)
		tunnelled(skb, p);
}

SEC("tcx/egress")
int hedgerow_tcx(struct __sk_buff *skb)
{
	struct pkt *p = fresh_packet(tcx_hook);

	if (!p)
		return TCX_NEXT;
	parse_skb(skb, p);
	if (p->linear < skb->len)
		parse_rest_skb(skb, p);
	segments(skb, p);
	place_egress(p, skb->ingress_ifindex != 0);
	if (decide(p) == DROP)
		return TCX_DROP;
	if (unlikely(is_dns(p)))
		dns_skb(skb, p);
	if (unlikely(p->show))
		hello_skb(skb, p);
	if (unlikely(p->due) && ask(p))
		show(skb, &scorers_tcx, p->due);
	return TCX_NEXT;
}

#include "act.h"

char _license[] SEC("license") = "Apache-2.0";
