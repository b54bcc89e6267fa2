/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What new flows may cost: budgets of those that come from outside, and the
 * breaker that spares the gateway. All of it is asked only of a packet that
 * would make a flow, so that what is established costs and risks nothing here.
 *
 * Budgets are token buckets in a sketch of fixed size: each key has one bucket
 * in each of two rows, hashed with a secret, and is over its budget only when
 * both are empty. A bucket that it shares with others can make its budget
 * tighter, never looser. Who proved its address has a bucket of its own.
 */
#ifndef HEDGEROW_BUDGET_H
#define HEDGEROW_BUDGET_H

#include "flows.h"
#include "rules.h"
#include "place.h"

enum {
	FLOOD_NONE, OVER_SOURCE, OVER_SOURCE_NET, OVER_SERVICE, OVER_DESTINATION,
	BREAKER_OPENED, BREAKER_CLOSED, CHALLENGED, N_FLOOD
};
#define N_BUDGETS 4
#define ROWS 2
#define CELL_BITS 15
#define CELLS (1U << CELL_BITS)
#define BREAKER_SHIFT 28	/* its window is 2^28 ns, about a quarter of a second */
#define PROOF_TTL (300 * SECOND)

/* Zero wherever something is off. */
struct flood_config {
	__u64 row[ROWS];	/* secret, odd */
	__u64 cookie[4][2];	/* secret keys, by epoch modulo 4 */
	__u64 step[N_BUDGETS];	/* ns that a new flow is worth, by kind - 1 */
	__u32 hash[6];		/* secret */
	__u32 breaker;		/* new flows a window and direction */
	__u32 breaker_drops;
	__u32 active, protects, darks, pad;
};

struct breaker {
	__u64 window;
	__u32 seen, open;
};

struct flood_state {
	struct breaker breaker[2];	/* by hook */
	__u64 told[N_FLOOD];
	__u64 trips;
	__u64 dark_tat;
};

struct flood_counts {
	__u64 over[N_BUDGETS];
	__u64 breaker_dropped, untracked;
	__u64 challenges, dark_answers, proofs, bad_proofs;
};

/* A source that proved its address. */
struct proof {
	__u64 until;
	__u64 tat;	/* its own budget */
	__u64 told;	/* and that of events about it */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_config);
} floods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_state);
} flood_now SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_counts);
} flood_totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, N_BUDGETS *ROWS *CELLS);
	__type(key, __u32);
	__type(value, __u64);
} cells SEC(".maps");

/* Only proofs get in here, so no forged source can push one out. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct addr);
	__type(value, struct proof);
} proofs SEC(".maps");

/* What a source is held to: an IPv4 address, an IPv6 /64. */
static __always_inline struct addr source_of(const struct addr *a)
{
	struct addr s = *a;

	if (family(a) == 6)
		s.lo = 0;
	return s;
}

static __always_inline struct addr source_net(const struct addr *a)
{
	struct addr s = *a;

	if (family(a) == 6) {
		s.hi &= 0x00ffffffffffffffULL; /* /56 in network order */
		s.lo = 0;
	} else {
		s.lo &= 0x00ffffffffffffffULL; /* /24 */
	}
	return s;
}

/*
 * NH of UMAC (RFC 4418): universal, so that nobody can aim at a cell. Folded, as
 * scatter() of flowtable.h tells why.
 */
static __always_inline __u64 hash_key(const struct flood_config *f, const struct addr *a, __u32 what)
{
	__u64 h = (__u64)((__u32)a->hi + f->hash[0]) * ((__u32)(a->hi >> 32) + f->hash[1]) +
		  (__u64)((__u32)a->lo + f->hash[2]) * ((__u32)(a->lo >> 32) + f->hash[3]) +
		  (__u64)(what + f->hash[4]) * f->hash[5];

	return h ^ h >> 32;
}

/* Adds one to a bucket that is not over, without ever filling it beyond full. */
static __always_inline void pay(__u64 *tat, __u64 step, __u64 now)
{
	for (int i = 0; i < 4; i++) {
		__u64 was = *(volatile __u64 *)tat;
		__u64 next = (was > now ? was : now) + step;
		if (next > now + SECOND)
			next = now + SECOND;
		if (next <= was || __sync_val_compare_and_swap(tat, was, next) == was)
			return;
	}
}

#define AND_HOLD 256	/* with a kind: leaves nothing in the budget, instead of asking it */

/* Whether a key is over its budget; charges it when not. */
__noinline int spend(struct flood_config *f, struct addr *a, __u32 what, __u32 kind, __u64 now)
{
	__u32 i, j, hold;
	__u64 h, step, *one, *two;

	if (!f || !a)
		return 0;
	hold = kind & AND_HOLD;
	kind = (kind - 1) & (N_BUDGETS - 1);
	step = f->step[kind];
	if (!step)
		return 0;
	h = hash_key(f, a, what);
	i = (kind * ROWS) << CELL_BITS | h * f->row[0] >> (64 - CELL_BITS);
	j = (kind * ROWS + 1) << CELL_BITS | h * f->row[1] >> (64 - CELL_BITS);
	one = bpf_map_lookup_elem(&cells, &i);
	two = bpf_map_lookup_elem(&cells, &j);
	if (!one || !two)
		return 0;
	if (hold) {
		*(volatile __u64 *)one = now + SECOND;
		*(volatile __u64 *)two = now + SECOND;
		return 0;
	}
	if (*(volatile __u64 *)one + step > now + SECOND && *(volatile __u64 *)two + step > now + SECOND)
		return 1;
	pay(one, step, now);
	pay(two, step, now);
	return 0;
}

/* The proof of a source, if it has one that holds. */
static __always_inline struct proof *proof_of(const struct addr *a, __u64 now)
{
	struct addr s = source_of(a);
	struct proof *v = bpf_map_lookup_elem(&proofs, &s);

	return v && v->until > now ? v : 0;
}

/* A source proved that it receives at its address. */
__noinline int remember(struct addr *a, __u64 now)
{
	__u32 zero = 0;
	struct flood_config *f = bpf_map_lookup_elem(&floods, &zero);
	struct flood_counts *n = bpf_map_lookup_elem(&flood_totals, &zero);
	struct proof fresh = {.until = now + PROOF_TTL}, *v;
	struct addr s;

	if (!f || !n || !a || !f->active)
		return 0;
	n->proofs++;
	s = source_of(a);
	v = bpf_map_lookup_elem(&proofs, &s);
	if (v)
		v->until = now + PROOF_TTL;
	else
		bpf_map_update_elem(&proofs, &s, &fresh, BPF_ANY);
	return 0;
}

/* The budget that p, which comes from outside, is over; or none. */
static __always_inline __u32 over_flood(struct flood_config *f, struct pkt *p, __u64 now)
{
	struct addr source = source_of(&p->src), net = source_net(&p->src);
	__u32 kind = FLOOD_NONE;
	struct proof *v;

	if (spend(f, &source, 0, OVER_SOURCE, now))
		kind = OVER_SOURCE;
	else if (spend(f, &net, 0, OVER_SOURCE_NET, now))
		kind = OVER_SOURCE_NET;
	else if (spend(f, &p->dst, p->dport | (__u32)p->proto << 16, OVER_SERVICE, now))
		kind = OVER_SERVICE;
	else if (spend(f, &p->dst, 0, OVER_DESTINATION, now))
		kind = OVER_DESTINATION;
	if (!kind)
		return FLOOD_NONE;
	v = proof_of(&p->src, now);
	if (!v)
		return kind;
	if (!f->step[0])
		return FLOOD_NONE;
	if (*(volatile __u64 *)&v->tat + f->step[0] > now + SECOND)
		return OVER_SOURCE;
	pay(&v->tat, f->step[0], now);
	return FLOOD_NONE;
}

/* Tells userspace what a flood ran into, once a second and kind. */
static __noinline int tell_flood(struct pkt *p, __u32 kind, __u64 now)
{
	__u32 zero = 0;
	struct flood_state *s = bpf_map_lookup_elem(&flood_now, &zero);

	if (!s || kind >= N_FLOOD || over(&s->told[kind], 1, now))
		return 0;
	return emit(p, 0, now, WHAT(EV_FLOOD, 0, kind));
}

/* Counts a new flow of a direction; says whether its breaker is open. */
static __always_inline int breaker(struct flood_config *f, struct flood_state *s, struct pkt *p, __u64 now)
{
	struct breaker *b = p->hook == TO_INSIDE ? &s->breaker[TO_INSIDE] : &s->breaker[FROM_INSIDE];
	__u64 window = now >> BREAKER_SHIFT, was = *(volatile __u64 *)&b->window;

	if (was != window && __sync_val_compare_and_swap(&b->window, was, window) == was) {
		__u32 seen = __sync_lock_test_and_set(&b->seen, 0);
		if (b->open && (window - was > 1 || seen < f->breaker / 2)) {
			b->open = 0;
			tell_flood(p, BREAKER_CLOSED, now);
		}
	}
	if (__sync_fetch_and_add(&b->seen, 1) >= f->breaker && !__sync_lock_test_and_set(&b->open, 1)) {
		add(&s->trips, 1);
		tell_flood(p, BREAKER_OPENED, now);
	}
	return b->open;
}

/* Whether p, outward, only answers what came in while that way was not followed. */
static __always_inline int backscatter(struct flood_state *s, struct pkt *p)
{
	return p->hook == FROM_INSIDE && p->proto == P_TCP && (p->flags & (T_SYN | T_ACK)) != T_SYN &&
	       s->breaker[TO_INSIDE].open;
}

/* What becomes of a packet that would make a flow. */
enum { ADMIT, ADMIT_BARE, REFUSE };
#define FATE(what, kind) ((what) | (kind) << 8)

__noinline int admit(struct pkt *p, __u64 now)
{
	__u32 zero = 0, kind;
	struct flood_config *f = bpf_map_lookup_elem(&floods, &zero);
	struct flood_state *s = bpf_map_lookup_elem(&flood_now, &zero);
	int inbound;

	if (!f || !s || !p || !f->active)
		return ADMIT;
	inbound = p->hook == TO_INSIDE;
	if (inbound && !(p->way & WAY_PAID)) {
		kind = over_flood(f, p, now);
		if (kind)
			return FATE(REFUSE, kind);
	}
	if (p->way & WAY_JOIN || !f->breaker || (!breaker(f, s, p, now) && !backscatter(s, p)))
		return ADMIT;
	if ((inbound && proof_of(&p->src, now)) || never_block(p))
		return ADMIT;
	if (inbound && f->breaker_drops)
		return FATE(REFUSE, BREAKER_OPENED);
	return ADMIT_BARE;
}

/* Counts a packet that passes while no flow is made of it. */
static __always_inline void pass_untracked(struct pkt *p)
{
	__u32 zero = 0;
	struct flood_counts *n = bpf_map_lookup_elem(&flood_totals, &zero);

	if (n)
		n->untracked += p->segs;
}

/* Counts and tells a packet that admit refused and nothing saved. */
__noinline int tell_refused(struct pkt *p, __u32 kind, __u64 now)
{
	__u32 zero = 0;
	struct flood_counts *n = bpf_map_lookup_elem(&flood_totals, &zero);

	if (!n || !p)
		return 0;
	if (kind == BREAKER_OPENED) {
		n->breaker_dropped += p->segs;
		return 0;
	}
	n->over[(kind - 1) & (N_BUDGETS - 1)] += p->segs;
	return tell_flood(p, kind, now);
}

#endif
