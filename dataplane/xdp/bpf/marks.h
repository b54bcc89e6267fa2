/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses single rules name, so that a packet of others meets no rule
 * table at all: nearly all packets, and each table that is asked in vain costs
 * more than these two looks. A mark may stand for more than was meant, never for
 * less. Userspace sets it ahead of a rule and takes it back after.
 */
#ifndef HEDGEROW_MARKS_H
#define HEDGEROW_MARKS_H

#include "maps.h"
#include "parse.h"

#define MARK_WORDS 8192		/* of addresses: 64 KB */
#define MARK_NETS 1024		/* words of a bit for each /16 */
#define NEVER_WORDS 512		/* of addresses that are never blocked */

struct marks {
	__u64 addrs[MARK_WORDS];	/* two bits of one word for each address */
	__u64 nets4[MARK_NETS], nets6[MARK_NETS];	/* any prefix that touches the /16 */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct marks);
} rule_marks SEC(".maps");

/*
 * The same for the never-block list: single addresses of which every port is on
 * it, those of which some are, the ports that any entry names, and what wider
 * entries touch.
 */
struct never_bits {
	__u64 addrs[NEVER_WORDS], some[NEVER_WORDS];
	__u64 nets4[MARK_NETS], nets6[MARK_NETS];
	__u64 ports[1024];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct never_bits);
} never_marks SEC(".maps");

/* The same as in marks.go; words is a power of two. */
static __always_inline int mark_of(const __u64 *marks, __u32 words, const struct addr *a)
{
	__u64 x = (a->lo ^ a->hi * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL, w;

	x ^= x >> 32;
	x *= 0x94d049bb133111ebULL;
	w = marks[x >> 51 & (words - 1)];
	return w >> (x >> 8 & 63) & w >> (x >> 16 & 63) & 1;
}

static __always_inline int net_mark_of(const __u64 *nets4, const __u64 *nets6, const struct addr *a)
{
	__u32 top;

	if (a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW) {
		top = ntohl((__u32)(a->lo >> 32)) >> 16;
		return nets4[top >> 6 & (MARK_NETS - 1)] >> (top & 63) & 1;
	}
	top = be64(a->hi) >> 48;
	return nets6[top >> 6 & (MARK_NETS - 1)] >> (top & 63) & 1;
}

static __always_inline int named(const struct marks *k, const struct addr *a)
{
	return mark_of(k->addrs, MARK_WORDS, a);
}

static __always_inline int in_net(const struct marks *k, const struct addr *a)
{
	return net_mark_of(k->nets4, k->nets6, a);
}

static __always_inline int port_marked(const struct never_bits *k, __u16 port)
{
	return k->ports[port >> 6 & 1023] >> (port & 63) & 1;
}

/* Whether the list may name p, by its source or its destination. */
static __always_inline int never_marked(const struct never_bits *k, const struct pkt *p)
{
	int by_port = port_marked(k, p->sport) | port_marked(k, p->dport);
	int wide = net_mark_of(k->nets4, k->nets6, &p->src) | net_mark_of(k->nets4, k->nets6, &p->dst);
	int all = mark_of(k->addrs, NEVER_WORDS, &p->src) | mark_of(k->addrs, NEVER_WORDS, &p->dst);
	int some = mark_of(k->some, NEVER_WORDS, &p->src) | mark_of(k->some, NEVER_WORDS, &p->dst);

	return wide | all | (some & by_port);
}

#endif
