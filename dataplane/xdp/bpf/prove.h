/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof of address by answers that XDP sends back itself. Both kinds carry a
 * number that only its receiver can know (SipHash-2-4 of the connection, under a
 * secret that changes every minute or so), and keep no state until it returns.
 *
 * A challenge answers the SYN to a protected service by a SYN-ACK whose ACK
 * number is wrong on purpose. RFC 9293, 3.10.7.3 has the client's stack answer
 * by a reset whose sequence number is that number, and keep trying: its next
 * SYN passes. No proxy, and nothing that either end's application sees.
 *
 * A dark address is one that nobody uses. Its SYNs get a SYN-ACK with the number
 * as sequence number; who acknowledges that has shown itself to be a scanner
 * that receives at its address.
 */
#ifndef HEDGEROW_PROVE_H
#define HEDGEROW_PROVE_H

#include "budget.h"

#define EPOCH_SHIFT 36	/* 2^36 ns, about 69 s */
#define DARK_RATE 1000	/* answers a second in the name of dark addresses */
#define TOLD_RATE 20	/* events a second of one source */
#define PORTS 16
#define FITS(p, end) ((void *)((p) + 1) <= (end))

/* pkt.answer */
enum { NO_ANSWER, ANSWER_CHALLENGE, ANSWER_DARK, ANSWER_RESET };

/* What decide says. */
enum { PASS, DROP, ANSWER };

/* A protected or dark prefix. */
struct guarded {
	__u32 n, dark;
	__u16 ports[PORTS];	/* none: all */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct never_key);
	__type(value, struct guarded);
} guards SEC(".maps");

static __always_inline struct guarded *guarded(const struct addr *a)
{
	struct never_key k = {.bits = 160, .family = family(a), .addr = *a};

	return bpf_map_lookup_elem(&guards, &k);
}

/* Whether p goes to a protected service. */
__noinline int protected(struct pkt *p)
{
	struct guarded *g;

	if (!p)
		return 0;
	g = guarded(&p->dst);
	if (!g || g->dark)
		return 0;
	if (!g->n)
		return 1;
	for (__u32 i = 0; i < PORTS; i++) {
		if (i >= g->n)
			break;
		if (g->ports[i] == p->dport)
			return 1;
	}
	return 0;
}

#define ROTL(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define SIPROUND                                                                    \
	do {                                                                        \
		v0 += v1; v1 = ROTL(v1, 13); v1 ^= v0; v0 = ROTL(v0, 32);           \
		v2 += v3; v3 = ROTL(v3, 16); v3 ^= v2;                              \
		v0 += v3; v3 = ROTL(v3, 21); v3 ^= v0;                              \
		v2 += v1; v1 = ROTL(v1, 17); v1 ^= v2; v2 = ROTL(v2, 32);           \
	} while (0)
#define SIPWORD(m)                  \
	do {                        \
		__u64 m_ = (m);     \
		v3 ^= m_;           \
		SIPROUND; SIPROUND; \
		v0 ^= m_;           \
	} while (0)

/* The number of a connection in an epoch; of its dark or its protected kind. */
__noinline __u32 cookie(struct flood_config *f, struct pkt *p, __u64 epoch, __u32 dark)
{
	__u64 k0, k1, v0, v1, v2, v3;

	if (!f || !p)
		return 0;
	k0 = f->cookie[epoch & 3][0];
	k1 = f->cookie[epoch & 3][1];
	v0 = k0 ^ 0x736f6d6570736575ULL;
	v1 = k1 ^ 0x646f72616e646f6dULL;
	v2 = k0 ^ 0x6c7967656e657261ULL;
	v3 = k1 ^ 0x7465646279746573ULL;
	SIPWORD(p->src.hi);
	SIPWORD(p->src.lo);
	SIPWORD(p->dst.hi);
	SIPWORD(p->dst.lo);
	SIPWORD((__u64)p->sport | (__u64)p->dport << 16 | (__u64)(__u32)(epoch << 1 | (dark & 1)) << 32);
	SIPWORD(40ULL << 56);
	v2 ^= 0xff;
	SIPROUND; SIPROUND; SIPROUND; SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

/* Whether a number that came back is one that was sent lately. */
static __always_inline int cookie_fits(struct flood_config *f, struct pkt *p, __u32 number, __u32 dark, __u64 now)
{
	__u64 epoch = now >> EPOCH_SHIFT;

	return cookie(f, p, epoch, dark) == number || cookie(f, p, epoch - 1, dark) == number;
}

/* A reset that belongs to no flow may answer a challenge. */
__noinline int hear_reset(struct pkt *p, __u64 now)
{
	__u32 zero = 0;
	struct flood_config *f = bpf_map_lookup_elem(&floods, &zero);
	struct flood_counts *n = bpf_map_lookup_elem(&flood_totals, &zero);

	if (!f || !n || !p || !f->protects || !protected(p))
		return 0;
	if (cookie_fits(f, p, p->seq, 0, now))
		return remember(&p->src, now);
	n->bad_proofs++;
	return 0;
}

/*
 * Over a budget and unknown: asks for a proof instead of dropping, if this is
 * where that can be done. Says whether p is to be answered; in monitor mode it
 * would be.
 */
__noinline int challenge(struct pkt *p, __u32 kind, __u64 now)
{
	__u32 zero = 0;
	struct flood_config *f = bpf_map_lookup_elem(&floods, &zero);
	struct flood_counts *n = bpf_map_lookup_elem(&flood_totals, &zero);

	if (!f || !n || !p || !f->protects || !p->can_answer)
		return 0;
	if ((kind != OVER_SERVICE && kind != OVER_DESTINATION) || p->proto != P_TCP)
		return 0;
	if ((p->flags & (T_SYN | T_ACK | T_RST | T_FIN)) != T_SYN || !protected(p))
		return 0;
	p->number = cookie(f, p, now >> EPOCH_SHIFT, 0);
	if (p->number == p->seq + 1)
		return 0; /* the client would take it for a yes */
	/*
	 * As long as unknown SYNs come faster than the budget allows, none of them
	 * passes: each that does takes a place in the server's queue for a minute,
	 * and those that want in have another way.
	 */
	spend(f, &p->dst, kind == OVER_SERVICE ? p->dport | (__u32)p->proto << 16 : 0, kind | AND_HOLD, now);
	p->answer = ANSWER_CHALLENGE;
	n->challenges++;
	tell_flood(p, CHALLENGED, now);
	return 1;
}

/* Tells of a source that proved its address to a dark one. */
static __always_inline void tell_proof(struct pkt *p, __u64 now)
{
	__u32 zero = 0;
	struct slot *slot = bpf_map_lookup_elem(&scratch, &zero);
	struct proof *v = proof_of(&p->src, now);
	struct flow *f;

	if (!slot || !v || over(&v->told, TOLD_RATE, now))
		return;
	f = &slot->flow;
	__builtin_memset(f, 0, sizeof(*f));
	f->start = now;
	f->init_b = p->from_b;
	f->init_sure = 1;
	if (p->from_b) {
		f->marks[1] = M_RECEIVER_IN;
		f->d[1].validated = 1;
	} else {
		f->marks[0] = M_RECEIVER_IN;
		f->d[0].validated = 1;
	}
	emit(p, f, now, WHAT(EV_PROOF, 0, 0));
}

static __always_inline int any_dark(void)
{
	__u32 zero = 0;
	struct flood_config *f = bpf_map_lookup_elem(&floods, &zero);

	return f && f->darks;
}

/* What p, which comes from outside, gets from a dark address. */
__noinline int dark(struct pkt *p, __u64 now)
{
	__u32 zero = 0, what = NO_ANSWER;
	struct flood_config *f = bpf_map_lookup_elem(&floods, &zero);
	struct flood_state *s = bpf_map_lookup_elem(&flood_now, &zero);
	struct flood_counts *n = bpf_map_lookup_elem(&flood_totals, &zero);
	struct guarded *g;

	if (!f || !s || !n || !p || !f->darks || p->proto != P_TCP || !(p->have & HAVE_L4) || p->flags & T_RST)
		return 0;
	g = guarded(&p->dst);
	if (!g || !g->dark || never_block(p))
		return 0;
	if (!(p->flags & T_ACK)) {
		if (!(p->flags & T_SYN) || p->flags & T_FIN || !p->can_answer)
			return 0;
		p->number = cookie(f, p, now >> EPOCH_SHIFT, 1);
		what = ANSWER_DARK;
	} else {
		if (p->flags & T_SYN)
			return 0; /* somebody answers a SYN that was forged in this address's name */
		if (!cookie_fits(f, p, p->ack - 1, 1, now)) {
			n->bad_proofs++;
			return 0;
		}
		remember(&p->src, now);
		tell_proof(p, now);
		if (!p->can_answer)
			return 0;
		p->number = p->ack;
		what = ANSWER_RESET;
	}
	if (over(&s->dark_tat, DARK_RATE, now))
		return 0;
	n->dark_answers++;
	p->answer = what;
	return 1;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Makes the segment at t the answer to itself; sum is that of the pseudo header. */
static __always_inline void answer_tcp(struct tcp *t, struct pkt *p, __u64 sum)
{
	__u32 *w = (__u32 *)t;
	__u16 port = t->sport;

	t->sport = t->dport;
	t->dport = port;
	if (p->answer == ANSWER_CHALLENGE) {
		t->seq = ntohl(p->number * 0x9e3779b1U); /* any will do */
		t->ack = ntohl(p->number);
		t->flags = T_SYN | T_ACK;
	} else if (p->answer == ANSWER_DARK) {
		t->seq = ntohl(p->number);
		t->ack = ntohl(p->seq + 1);
		t->flags = T_SYN | T_ACK;
	} else {
		t->seq = ntohl(p->number);
		t->ack = 0;
		t->flags = T_RST;
	}
	t->off = 5 << 4;
	t->window = ntohs(4096);
	t->sum = 0;
	t->urg = 0;
	sum += (__u64)w[0] + w[1] + w[2] + w[3] + w[4];
	t->sum = fold(sum + ntohs(P_TCP) + ntohs(sizeof(*t)));
}

/*
 * Turns the frame into the answer that p asks for, in place: what is left of
 * the frame behind it is padding. Says 0 when the frame is of a form that is
 * not answered, and has then not changed it.
 */
__noinline int answer(struct xdp_md *ctx, struct pkt *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *cur;
	struct eth *eth = data;
	__u8 mac[6];

	if (!p || !FITS(eth, end))
		return 0;
	cur = data + (p->l3 & 63);
	if (!FITS((__u8 *)cur, end))
		return 0;
	if (*(__u8 *)cur >> 4 == 4) {
		struct ip4 *ip = cur;
		struct tcp *t = cur + sizeof(*ip);
		__u32 *w = cur, src;
		if (!FITS(ip, end) || !FITS(t, end) || ip->vihl != 0x45 || ip->proto != P_TCP)
			return 0;
		src = ip->src;
		ip->src = ip->dst;
		ip->dst = src;
		ip->tos = 0;
		ip->len = ntohs(sizeof(*ip) + sizeof(*t));
		ip->id = 0;
		ip->frag = ntohs(0x4000);
		ip->ttl = 64;
		ip->sum = 0;
		ip->sum = fold((__u64)w[0] + w[1] + w[2] + w[3] + w[4]);
		answer_tcp(t, p, (__u64)w[3] + w[4]);
	} else {
		struct ip6 *ip = cur;
		struct tcp *t = cur + sizeof(*ip);
		__u32 *w = cur;
		__u64 hi, lo;
		if (!FITS(ip, end) || !FITS(t, end) || ip->next != P_TCP)
			return 0;
		hi = ip->src[0];
		lo = ip->src[1];
		ip->src[0] = ip->dst[0];
		ip->src[1] = ip->dst[1];
		ip->dst[0] = hi;
		ip->dst[1] = lo;
		ip->vtf = 0x60;
		ip->len = ntohs(sizeof(*t));
		ip->hops = 64;
		answer_tcp(t, p, (__u64)w[2] + w[3] + w[4] + w[5] + w[6] + w[7] + w[8] + w[9]);
	}
	if (p->l3 < sizeof(*eth))
		return 1; /* no Ethernet here */
	__builtin_memcpy(mac, eth->dst, 6);
	__builtin_memcpy(eth->dst, eth->src, 6);
	__builtin_memcpy(eth->src, mac, 6);
	return 1;
}

#endif
