/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model in the kernel. At a milestone the flow's features are written down
 * here, and the packet, once nothing else is to be done with it, is shown to the
 * scorer: a program that userspace made of a model, found in a slot of an array.
 * Settings name the slot, so that one store swaps the model for both hooks; the
 * programs of the slot before stay where they are, for packets that are under
 * way. A scorer that finds something goes on with the program of act.h.
 *
 * What is found holds the flow: a hold is an entry in a table of its own, which
 * no flood of flows can push out, and the slot of a held flow has a mark, so
 * that no other flow's packet ever asks that table. A flow without a slot asks
 * while anything is held at all.
 */
#ifndef HEDGEROW_SCORE_H
#define HEDGEROW_SCORE_H

#include "flowtable.h"
#include "rules.h"

#define SLOTS 2		/* of scorers; the programs that act follow, by role */
#define ROLES 4

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SLOTS + ROLES);
	__type(key, __u32);
	__type(value, __u32);
} scorers_xdp SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SLOTS + ROLES);
	__type(key, __u32);
	__type(value, __u32);
} scorers_tcx SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct scoring);
} scorings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scored);
} scored_now SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct hold);
} flow_holds SEC(".maps");

/* When the last hold ends, in ns of boot time: until then there may be some. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} holding SEC(".maps");

/* Whether the daemon is away for longer than is waited for: then nothing of this acts. */
static __always_inline int stale(const struct config *c, __u64 now)
{
	return now >= (c->beat + c->dead_after + 1) * 1000;
}

/* The integer rules of package score. */
static __always_inline __u64 sat(__u64 x)
{
	return x > 0x7fffffff ? 0x7fffffff : x;
}

/* x / y, and 0 when y is 0, which the machine has without a question. */
static __always_inline __u64 ratio(__u64 x, __u64 y)
{
	asm("%0 /= %1" : "+r"(x) : "r"(y));
	return x;
}

/* 2^36 by the number of packets, rounded up: 2^36 shares are exact up to 2^28 of what is shared. */
#define BY(n) ((1ULL << 36) + (n) - 1) / (n)
#define BY4(n) BY(n), BY((n) + 1), BY((n) + 2), BY((n) + 3)
#define BY16(n) BY4(n), BY4((n) + 4), BY4((n) + 8), BY4((n) + 12)
#define BY64(n) BY16(n), BY16((n) + 16), BY16((n) + 32), BY16((n) + 48)
static const __u64 parts[256] = {0, BY(1), BY(2), BY(3), BY4(4), BY4(8), BY4(12), BY16(16), BY16(32), BY16(48), BY64(64), BY64(128), BY64(192)};

/* By how many fewer than 256, as a share; none of none. */
static __always_inline __u64 share_of(__u64 n)
{
	n &= 255;
	KNOWN(n);
	return parts[n & 255];
}

/* x / n, where share is that of n: a multiplication where that is exact, which is nearly always. */
static __always_inline __u64 each(__u64 x, __u64 n, __u64 share)
{
	if (unlikely(x >> 28))
		return ratio(x, n);
	return x * share >> 36;
}

static __always_inline __u64 ticks(__u64 from, __u64 to)
{
	return to < from ? 0 : (to - from) >> 10;
}

static __always_inline void weigh_dir(__u32 *v, const struct dir *d, const struct rare *r)
{
	__u64 n = d->packets, gaps = n ? n - 1 : 0, by = share_of(n), by_gaps = share_of(gaps);
	__u64 bytes = sat(d->bytes), span = ticks(r->first, d->last), mean = each(bytes, n, by);
	__u64 gap = sat(each(span, gaps, by_gaps)), sq = each(d->size_sq, n, by), gap_sq = each(d->gap_sq, gaps, by_gaps);

	v[D_PACKETS] = n;
	v[D_PAYLOAD] = sat(d->payload);
	v[D_SIZE_MEAN] = mean;
	v[D_SIZE_SPREAD] = sq < mean * mean ? 0 : sat(sq - mean * mean);
	v[D_SIZE_MIN] = d->size_min;
	v[D_SIZE_MAX] = d->size_max;
	v[D_GAP_MEAN] = gap;
	v[D_GAP_MAX] = sat(d->gap_max);
	if (gap_sq > 1ULL << 57)
		gap_sq = 1ULL << 57;
	v[D_GAP_SPREAD] = sat((gap_sq << 6) / (gap * gap + 1));
	v[D_RATE] = sat((bytes << 10) / (span + 1));
	v[D_SYN] = r->syn;
	v[D_FIN] = r->fin;
	v[D_RST] = r->rst;
	v[D_PSH] = d->psh;
	v[D_RETRANS] = d->retrans;
	v[D_WINDOW] = r->window;
	v[D_TTL] = d->ttl;
}

#define LANES(x) ((x) * 0x0001000100010001ULL)

/*
 * Four sizes at once, in lanes of 16 bits, as they are from b where turn is all ones,
 * and higher by NEGATIVES: a lane's sign is changed by turning all bits and adding
 * one, without what would be carried into the next.
 */
static __always_inline void weigh_sizes(__u64 *v, __u64 sizes, __u64 turn)
{
	__u64 x = sizes ^ turn;

	x = ((x & LANES(0x7fffULL)) + (turn & LANES(1ULL))) ^ (x & LANES(0x8000ULL)) ^ LANES(0x8000ULL);
	v[0] = (x & 0xffff) | (x & 0xffff0000) << 16;
	x >>= 32;
	v[1] = (x & 0xffff) | (x & 0xffff0000) << 16;
}

/* Of the first packets with payload, two features at once. What a flow does not have yet is 0. */
static __always_inline void weigh_firsts(__u32 *v, const struct flow *f, __u64 turn)
{
	const __u64 *gaps = (const __u64 *)f->gaps, *sizes = (const __u64 *)f->sizes;
	__u64 *to = (__u64 *)(v + V_GAP1), *size1 = (__u64 *)(v + V_SIZE1);

	v[V_FIRSTS] = f->n_first;
	weigh_sizes(size1, sizes[0], turn);
	weigh_sizes(size1 + 2, sizes[1], turn);
	to[0] = gaps[0];
	to[1] = gaps[1];
	to[2] = gaps[2];
	to[3] = gaps[3];
	if (unlikely((gaps[0] | gaps[1] | gaps[2] | gaps[3]) & 0x8000000080000000ULL)) /* of half an hour and more */
		for (int i = 0; i < FIRST; i++)
			v[V_GAP1 + i] = sat(f->gaps[i]);
}

/* marks: of the initiator's direction in the lower half. */
static __always_inline void weigh_ends(__u32 *v, const struct flow *f, __u32 ports, __u32 marks)
{
	__u32 out = marks & 0xffff, in = marks >> 16;

	v[V_SERVICE] = ports >> 16;
	v[V_CLIENT] = ports & 0xffff;
	v[V_INIT_INSIDE] = (out / M_SENDER_IN | in / M_RECEIVER_IN) & 1;
	v[V_RESP_INSIDE] = (in / M_SENDER_IN | out / M_RECEIVER_IN) & 1;
	v[V_HINT] = f->hint;
	v[V_SYNACK] = sat(f->synack_us);
	v[V_ACK] = sat(f->ack_us);
}

/* What is of both directions: i is the initiator's. */
static __always_inline void weigh_both(__u32 *v, const struct flow *f, const struct dir *i, const struct dir *r, __u64 answered)
{
	__u64 up = sat(i->payload), last = i->last > r->last ? i->last : r->last, n = i->packets;

	v[V_INIT_PROVED] = i->validated;
	v[V_RESP_PROVED] = r->validated;
	v[V_DURATION] = sat(ticks(f->start, last));
	v[V_ANSWER] = NEGATIVES + (r->packets ? sat(ticks(f->start, answered)) : -1);
	v[V_UPLOAD_SHARE] = sat(ratio(up << 10, up + sat(r->payload)));
	v[V_PACKET_SHARE] = (n << 10) * share_of(n + r->packets) >> 36;
}

/* Writes down what p's flow looks like at the milestone that it just reached, if that is scored. */
__noinline int weigh(struct flow *f, struct pkt *p, __u64 now)
{
	__u32 zero = 0, n, by_b, ports, marks;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct scored *s = bpf_map_lookup_elem(&scored_now, &zero);
	struct rare *out, *in;
	struct dir *i, *r;

	if (!f || !p || !c || !s || !c->scoring || f->packets >= 256 || stale(c, now))
		return 0;
	p->due = c->scoring;
	n = f->packets;
	by_b = f->init_b;
	i = dir_of(f, by_b);
	r = dir_of(f, !by_b);
	out = rare_of(f, by_b);
	in = rare_of(f, !by_b);
	ports = *(const __u32 *)&p->key.aport;
	marks = *(const __u32 *)f->marks;
	if (by_b) {
		ports = ports << 16 | ports >> 16;
		marks = marks << 16 | marks >> 16;
	}
	s->milestone = (n >= 8) + (n >= 16) + (n >= 32) + (n >= 64);
	s->v[V_PROTO] = p->key.proto;
	weigh_ends(s->v, f, ports, marks);
	weigh_both(s->v, f, i, r, in->first);
	weigh_firsts(s->v, f, by_b ? ~0ULL : 0);
	weigh_dir(s->v + V_DIR, i, out);
	weigh_dir(s->v + V_DIR + N_DIR, r, in);
	s->host_b = !!by_b == (s->v[V_INIT_INSIDE] || !s->v[V_RESP_INSIDE]);
	return 0;
}

/* What a scorer finds when p is shown to it, which p is about to be. */
static __always_inline int ask(struct pkt *p)
{
	__u32 zero = 0;
	struct scored *s = bpf_map_lookup_elem(&scored_now, &zero);

	if (!p || !s)
		return 0;
	s->due[s->milestone & 7]++;
	s->slot = p->due - 1;
	s->act = SLOTS + role;
	return 1;
}

/* Whether any flow is held. */
static __always_inline int any_held(__u64 now)
{
	__u32 zero = 0;
	__u64 *until = bpf_map_lookup_elem(&holding, &zero);

	return until && *until > now;
}

/* Whether p's flow is held, and p has to stop. */
__noinline int held(struct pkt *p, __u64 now)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct scored *s = bpf_map_lookup_elem(&scored_now, &zero);
	struct flow_key k;
	struct hold *h;
	__u64 w;

	if (!p || !c || !s || !c->scoring)
		return 0;
	k = p->key;
	h = bpf_map_lookup_elem(&flow_holds, &k);
	if (!h)
		return 0;
	w = h->word;
	if (expired(w, now))
		return 0;
	p->held = 1;
	if (stale(c, now) || ((w & 0xff) == ACT_RATE && !over_by(&h->tat, p->ip_len, h->rate, now)))
		return 0;
	add(&h->packets, p->segs);
	add(&h->bytes, p->ip_len);
	s->dropped += p->segs;
	return 1;
}

/* The same of a slot that the caller holds, and lets go of if p has to stop. */
static __always_inline int stopped(struct slot *slot, struct pkt *p, __u64 now)
{
	int stop;

	slot->held = 0; /* first, so that who makes a hold meanwhile is not undone */
	stop = held(p, now);
	if (p->held)
		slot->held = 1;
	if (stop)
		unlock(&slot->seq);
	return stop;
}

#endif
