/* SPDX-License-Identifier: Apache-2.0 */
/* What the rules say of a packet, and what may never be dropped. */
#ifndef HEDGEROW_RULES_H
#define HEDGEROW_RULES_H

#include "bulk.h"
#include "maps.h"
#include "marks.h"
#include "parse.h"

/* ::/16 must not cover all of IPv4, so prefixes are kept by family. */
static __always_inline __u16 family(const struct addr *a)
{
	return a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW ? 4 : 6;
}

/* Whether one of n's tuples fits: own is the port at the side of its address. */
static __always_inline int fits(const struct never *n, __u16 own, __u16 other, const struct pkt *p)
{
	for (__u32 i = 0; i < NEVER_TUPLES; i++) {
		struct never_tuple t;
		if (i >= n->n)
			break;
		t = n->t[i];
		if (t.proto && t.proto != p->proto)
			continue;
		if (!t.port)
			return 1;
		if (p->have & HAVE_L4 && (t.port == own || (t.any_side && t.port == other)))
			return 1;
	}
	return 0;
}

/* Whether the end that faces a quarantined host, found at by, is a remedy. */
__noinline int remedied(struct pkt *p, __u32 by)
{
	struct never_key k = {.bits = 160};
	struct never *n;
	__u16 own, other;

	if (!p)
		return 0;
	if (by == BY_SRC) {
		k.addr = p->dst;
		own = p->dport;
		other = p->sport;
	} else {
		k.addr = p->src;
		own = p->sport;
		other = p->dport;
	}
	k.family = family(&k.addr);
	n = bpf_map_lookup_elem(&remedies, &k);
	return n && fits(n, own, other, p);
}

/* Rules expire by the microsecond. */
static __always_inline int expired(__u64 word, __u64 now)
{
	return word >> 8 <= now / 1000;
}

/* Takes a rule into account, if it lives: the first of the strongest wins. */
__noinline int consider(struct rule *r, struct match *m, struct pkt *p, __u32 by)
{
	__u64 w;
	__u32 action, reason;

	if (!r || !m || !p)
		return 0;
	w = r->word;
	reason = r->reason;
	if (expired(w, m->now)) {
		w = r->cover;
		reason = r->cover_reason;
		if (expired(w, m->now))
			return 0;
	}
	action = w & 0xff;
	if (action == ACT_RATE) {
		m->budgets |= 1U << (by & 31);
		return 0;
	}
	if (action == ACT_QUARANTINE && remedied(p, by))
		return 0;
	add(&r->packets, p->segs);
	add(&r->bytes, p->ip_len);
	if (action >= ACT_SUSPEND && action > m->action) {
		m->action = action;
		m->reason = reason;
		m->by = by;
		m->told = r->told;
	}
	return 0;
}

static __always_inline struct rule *addr_rule(const struct addr *a, __u16 port, __u8 proto)
{
	struct rule_key k = {.addr = *a, .port = port, .proto = proto};
	return bpf_map_lookup_elem(&addrs, &k);
}

static __always_inline struct rule *toward_rule(const struct addr *a)
{
	struct rule_key k = {.addr = *a, .toward = 1};
	return bpf_map_lookup_elem(&addrs, &k);
}

/* Linux 6.1 wants keys on the caller's own stack. */
static __always_inline struct rule *flow_rule(const struct flow_key *key)
{
	struct flow_key k = *key;
	return bpf_map_lookup_elem(&verdicts, &k);
}

static __always_inline struct rule *prefix_rule(const struct addr *a, __u32 class)
{
	struct prefix_key k = {.bits = 160, .class = class, .family = family(a), .addr = *a};
	return bpf_map_lookup_elem(&prefixes, &k);
}

/* A fragment has no flow key, so the order is found here. */
static __always_inline struct rule *pair_rule(const struct pkt *p)
{
	__u64 sh = be64(p->src.hi), dh = be64(p->dst.hi);
	__u64 sl = be64(p->src.lo), dl = be64(p->dst.lo);
	struct pair_key k;

	if (sh != dh ? sh > dh : sl > dl) {
		k.a = p->dst;
		k.b = p->src;
	} else {
		k.a = p->src;
		k.b = p->dst;
	}
	return bpf_map_lookup_elem(&pairs, &k);
}

#define TRY(found, by)                             \
	do {                                       \
		struct rule *r_ = (found);         \
		if (r_)                            \
			consider(r_, m, p, (by));  \
	} while (0)

/*
 * Of the tables by address. ends is which of p's addresses are named, the source
 * 1 and the destination 2; a flow or a pair is named by both.
 */
__noinline int match_named(struct match *m, struct pkt *p, __u32 ends)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	int src = ends & 1, dst = ends >> 1 & 1;

	if (!c || !m || !p)
		return 0;
	if (src && dst && c->flow_rules && p->have & HAVE_L4)
		TRY(flow_rule(&p->key), BY_FLOW);
	if (src && c->service_rules && p->have & HAVE_L4 && p->sport)
		TRY(addr_rule(&p->src, p->sport, p->proto), BY_SERVICE_SRC);
	if (dst && c->service_rules && p->have & HAVE_L4 && p->dport)
		TRY(addr_rule(&p->dst, p->dport, p->proto), BY_SERVICE_DST);
	if (src && dst && c->pair_rules)
		TRY(pair_rule(p), BY_PAIR);
	if (src && c->addr_rules)
		TRY(addr_rule(&p->src, 0, 0), BY_SRC);
	if (dst && c->addr_rules)
		TRY(addr_rule(&p->dst, 0, 0), BY_DST);
	if (dst && c->toward_rules)
		m->budgets |= 1U << BY_TOWARD;
	return 0;
}

__noinline int match_nets(struct match *m, struct pkt *p, __u32 ends)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	int src = ends & 1, dst = ends >> 1 & 1;

	if (!c || !m || !p)
		return 0;
	if (src && c->block_prefixes)
		TRY(prefix_rule(&p->src, CLASS_BLOCK), BY_SRC_PREFIX);
	if (dst && c->block_prefixes)
		TRY(prefix_rule(&p->dst, CLASS_BLOCK), BY_DST_PREFIX);
	if (src && c->observe_prefixes)
		TRY(prefix_rule(&p->src, CLASS_OBSERVE), BY_SRC_PREFIX);
	if (dst && c->observe_prefixes)
		TRY(prefix_rule(&p->dst, CLASS_OBSERVE), BY_DST_PREFIX);
	return 0;
}

/*
 * Fills m with the strongest rule that would drop p, and the budgets it falls
 * under. Reads the clock only if some rule may name p.
 */
static __always_inline void match_rules(const struct config *c, struct match *m, struct pkt *p)
{
	__u32 zero = 0, ends;
	struct marks *k = bpf_map_lookup_elem(&rule_marks, &zero);

	if (!k)
		return;
	if (c->flow_rules | c->service_rules | c->pair_rules | c->addr_rules | c->toward_rules) {
		ends = named(k, p);
		if (unlikely(ends)) {
			m->now = bpf_ktime_get_boot_ns();
			match_named(m, p, ends);
		}
	}
	if (c->block_prefixes | c->observe_prefixes) {
		ends = in_net(k, p);
		if (unlikely(ends)) {
			m->now = m->now ?: bpf_ktime_get_boot_ns();
			match_nets(m, p, ends);
		}
	}
}

/* The rule that match_rules found at by, looked up again: only rarely needed. */
static __always_inline struct rule *rule_at(struct pkt *p, __u32 by)
{
	switch (by) {
	case BY_FLOW:
		return flow_rule(&p->key);
	case BY_SERVICE_SRC:
		return addr_rule(&p->src, p->sport, p->proto);
	case BY_SERVICE_DST:
		return addr_rule(&p->dst, p->dport, p->proto);
	case BY_PAIR:
		return pair_rule(p);
	case BY_SRC:
		return addr_rule(&p->src, 0, 0);
	case BY_DST:
		return addr_rule(&p->dst, 0, 0);
	case BY_SRC_PREFIX:
		return prefix_rule(&p->src, CLASS_BLOCK);
	case BY_DST_PREFIX:
		return prefix_rule(&p->dst, CLASS_BLOCK);
	case BY_TOWARD:
		return toward_rule(&p->dst);
	}
	return 0;
}

/* Marks that the first drop of what decided is told. Says whether it was new. */
static __always_inline int first_drop(struct match *m, struct pkt *p, __u32 bit)
{
	struct rule *r = rule_at(p, m->by);

	return r && !(__sync_fetch_and_or(&r->told, bit) & bit);
}

/* Charges cost to a rule's budget; when that is spent, the rule drops. */
__noinline int charge(struct rule *r, struct match *m, struct pkt *p, __u32 by)
{
	__u64 w;

	if (!r || !m || !p)
		return 0;
	w = r->word;
	if ((w & 0xff) != ACT_RATE || expired(w, m->now))
		return 0;
	if (!over_by(&r->tat, by == BY_FLOW ? p->ip_len : 1, r->rate, m->now))
		return 0;
	add(&r->packets, p->segs);
	add(&r->bytes, p->ip_len);
	m->action = ACT_RATE;
	m->reason = r->reason;
	m->told = r->told;
	m->by = by;
	return 1;
}

/*
 * Whether a budget refuses p. The sender's own comes first, so that a source
 * that is over it takes nothing from the budget of whom it calls.
 */
__noinline int over_budget(struct match *m, struct pkt *p, __u32 born)
{
	static const __u32 order[] = {BY_FLOW, BY_SRC, BY_SERVICE_DST, BY_TOWARD};

	if (!m || !p)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct rule *r;
		if (!(m->budgets & 1U << order[i]) || (order[i] != BY_FLOW && !born))
			continue;
		r = rule_at(p, order[i]);
		if (r && charge(r, m, p, order[i]))
			return 1;
	}
	return 0;
}

static __always_inline int never_of(const struct addr *a, __u16 own, __u16 other, struct pkt *p)
{
	struct never_key k = {.bits = 160, .family = family(a), .addr = *a};
	struct never *n = bpf_map_lookup_elem(&nevers, &k);

	return n && fits(n, own, other, p);
}

/* What keeps a link alive: neighbour discovery, path MTU, address leases. */
static __always_inline int vital(const struct pkt *p)
{
	if (!(p->have & HAVE_L4))
		return 0;
	if (p->proto == P_ICMP6)
		return p->icmp_type == 2 || (p->icmp_type >= 133 && p->icmp_type <= 137);
	if (p->proto == P_ICMP)
		return p->icmp_type == 3 && p->icmp_code == 4;
	if (p->proto != P_UDP)
		return 0;
	return ((p->sport == 67 || p->sport == 68) && (p->dport == 67 || p->dport == 68)) ||
	       ((p->sport == 546 || p->sport == 547) && (p->dport == 546 || p->dport == 547));
}

/* Whether p may be one that is never dropped, said fast: most are not. */
static __always_inline int maybe_spared(const struct config *c, const struct pkt *p)
{
	__u32 zero = 0;
	struct never_bits *k = bpf_map_lookup_elem(&never_marks, &zero);

	return vital(p) || (c->nevers && (!k || never_marked(k, p)));
}

/* Asked only when p would drop. */
__noinline int never_block(struct pkt *p)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);

	if (!c || !p)
		return 0;
	if (vital(p)) {
		__u64 *tat = bpf_map_lookup_elem(&budget, &zero);
		if (tat && !over(tat, 1000, bpf_ktime_get_boot_ns()))
			return 1;
	}
	if (!c->nevers)
		return 0;
	return never_of(&p->src, p->sport, p->dport, p) || never_of(&p->dst, p->dport, p->sport, p);
}

#endif
