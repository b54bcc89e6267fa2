/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one flow cannot tell: how many like it there are. A request of a flood is
 * anybody's request, and so are the first packets of an injection; that their sender
 * asks the same service a hundred times in ten seconds is not. So flows that come to
 * their fourth packet are counted by initiator and service, those of an initiator that
 * proved its address apart, so that nobody can count for another. It is a cache of fixed size,
 * chosen by a secret hash, where the newest takes the place: what is lost thus makes a
 * count too low, and nothing costs anything before a fourth packet.
 */
#ifndef HEDGEROW_FELLOWS_H
#define HEDGEROW_FELLOWS_H

#include "flowtable.h"

#define FELLOW_BITS 14
#define FELLOW_SHIFT 33 /* its window is 2^33 ns, 8.6 s */

/* now: in this window; last: in the one before. */
struct fellow {
	__u32 tag, window;
	__u16 now, last;
	__u32 spare;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << FELLOW_BITS);
	__type(key, __u32);
	__type(value, struct fellow);
} fellows SEC(".maps");

/* As one half of hash(), with all that it gives: two would weigh on the stack. */
static __always_inline __u64 hash_once(const struct flow_key *key, const struct seed *s)
{
	const __u32 *w = (const __u32 *)key;
	__u64 x = 0;

	for (int i = 0; i < 10; i += 2)
		x += (s->k[i] + w[i]) * (s->k[i + 1] + w[i + 1]);
	return scatter(x, s->k[20]);
}

/* Counts f, which came to its fourth packet by p, among those like it, and notes how many there were. */
__noinline int meet(struct flow *f, struct pkt *p, __u64 now)
{
	__u32 zero = 0, at, tag, past, sum;
	__u64 h;
	struct seed *seed = bpf_map_lookup_elem(&flow_seed, &zero);
	struct pkt *q = bpf_map_lookup_elem(&scratch_pkt, &zero); /* the stack is short here */
	struct flow_key *k;
	struct fellow *c;

	if (!f || !p || !seed || !q)
		return 0;
	k = &q->key;
	*k = p->key;
	if (f->init_b)
		k->bport = 0;
	else
		k->aport = 0;
	k->pad[0] = 1 + !!f->init_b; /* of no flow's key, and each end may serve the other */
	k->pad[1] = dir_of(f, f->init_b)->validated;
	h = hash_once(k, seed);
	at = h >> (64 - FELLOW_BITS);
	tag = h >> 16;
	c = bpf_map_lookup_elem(&fellows, &at);
	if (!c)
		return 0;
	past = (__u32)(now >> FELLOW_SHIFT) - c->window;
	if (c->tag != tag || (past > 1 && past != ~0U)) {
		c->tag = tag;
		c->now = c->last = 0;
	} else if (past == 1) {
		c->last = c->now;
		c->now = 0;
	}
	if (past != ~0U) /* another processor is in the next window already */
		c->window += past;
	sum = (__u32)c->now + c->last;
	f->fellows = sum > 0xffff ? 0xffff : sum;
	inc16(&c->now);
	return 0;
}

#endif
