/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a packet is seen, and what follows: several interfaces share the
 * tables, and a forwarded packet passes two of them. It meets the rules at
 * each; it is counted into its flow once.
 */
#ifndef HEDGEROW_PLACE_H
#define HEDGEROW_PLACE_H

#include "flows.h"
#include "rules.h"

enum { ROLE_INSIDE, ROLE_HOST, ROLE_OUTSIDE, ROLE_SENSOR };

/* What the interface stands before, and which way packets at each hook travel; set once, before loading. */
const volatile __u8 role = ROLE_INSIDE;
const volatile __u8 outside = 0; /* whether the plane has an outside interface as well */
const volatile __u8 xdp_hook = FROM_INSIDE;
const volatile __u8 tcx_hook = TO_INSIDE;

/* pkt.way */
#define WAY_AGAIN 1	/* it was received here: another hook may have counted it */
#define WAY_JOIN 2	/* counted only if it answers a flow of the gateway's own */
#define WAY_PASS 4	/* not counted */
#define WAY_OWN 8	/* the gateway's own, at the outside */
#define WAY_BOTH 16	/* both ends are inside */
#define WAY_PAID 32	/* what a new flow costs was asked at the outside */

static __always_inline int listed(const struct addr *a)
{
	struct never_key k = {.bits = 160, .family = family(a), .addr = *a};
	return bpf_map_lookup_elem(&networks, &k) != 0;
}

/* A mirrored port shows both directions at one hook: addresses tell which. */
__noinline int tell_side(struct pkt *p)
{
	int from, to;

	if (!p)
		return 0;
	from = listed(&p->src);
	to = listed(&p->dst);
	p->hook = from ? FROM_INSIDE : TO_INSIDE;
	p->way = from && to ? WAY_BOTH : 0;
	return 0;
}

static __always_inline int syn(const struct pkt *p)
{
	return p->proto == P_TCP && (p->flags & (T_SYN | T_ACK)) == T_SYN;
}

static __always_inline void place_ingress(struct pkt *p)
{
	if (role == ROLE_OUTSIDE)
		p->way = WAY_JOIN;
	else if (role == ROLE_SENSOR)
		tell_side(p);
}

/* received is whether the packet came in by some interface of this machine. */
static __always_inline void place_egress(struct pkt *p, int received)
{
	if (role == ROLE_OUTSIDE)
		p->way = received ? WAY_PASS : WAY_OWN;
	else if (received)
		p->way = WAY_AGAIN | (outside && syn(p) ? WAY_PAID : 0);
}

/*
 * What begins a connection from outside meets the budgets at the outside
 * already. Of other protocols nobody knows there, before translation, what is
 * new: they meet them at the inside.
 */
static __always_inline int knocks(const struct pkt *p)
{
	return p->way & WAY_JOIN && syn(p);
}

/* Whether a packet without a flow makes one. */
static __always_inline int makes_flow(const struct pkt *p)
{
	if (p->way & (WAY_JOIN | WAY_PASS))
		return 0;
	if (p->proto != P_TCP)
		return 1;
	if (p->flags & T_RST)
		return 0;
	/* What ended the flow at the other hook must not begin it anew at this one. */
	return !(p->way & WAY_AGAIN) || p->flags & T_SYN;
}

/*
 * Whether a packet without a flow is a reset that is kept apart, see bury() in
 * flowtable.h. It is not new to budgets: it can lead to nothing. At a second
 * hook it may be what ended the flow at the first; the gateway's own answers
 * what is not counted at the outside either.
 */
static __always_inline int leftover(const struct pkt *p)
{
	return p->proto == P_TCP && p->flags & T_RST && p->segs == 1 && !(p->way & ~WAY_BOTH);
}

/* The answer of a service at the gateway is the first of its flow that is counted. */
static __always_inline int answers(const struct pkt *p)
{
	return p->way & WAY_OWN && p->proto == P_TCP && (p->flags & (T_SYN | T_ACK)) == (T_SYN | T_ACK);
}

/* Whether p is to be counted into f; marks what this hook knows of the ends. */
static __always_inline int counts(struct flow *f, const struct pkt *p)
{
	__u16 *marks = marks_of(f, p->from_b);
	struct rare *mine = rare_of(f, p->from_b);

	if (p->way & WAY_PASS)
		return 0;
	if (p->way & WAY_JOIN)
		return f->own;
	if (p->way & WAY_OWN)
		f->own = 1;
	if (p->way & WAY_BOTH)
		*marks |= M_RECEIVER_IN;
	if (p->way & WAY_AGAIN && *marks & side_mark_at(xdp_hook)) {
		*marks |= side_mark_at(tcx_hook);
		if (p->flags & T_SYN && *marks & M_ISN && p->seq == mine->isn)
			*marks |= M_ISN_AT << (tcx_hook & 1);
		return 0;
	}
	return 1;
}

/*
 * Whether the site fails closed and nobody has been there for too long: then
 * what is new and comes towards inside is dropped. A TCP segment that opens
 * nothing passes: its flow may have left the table since.
 */
static __always_inline int orphaned(const struct config *c, const struct pkt *p, __u64 now)
{
	if (!c->fail_closed || (role != ROLE_INSIDE && role != ROLE_HOST) || p->hook != TO_INSIDE)
		return 0;
	if (p->proto == P_TCP && !syn(p))
		return 0;
	return now / 1000 > c->beat + c->dead_after;
}

#endif
