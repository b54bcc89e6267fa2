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
#define NEVER_FEW 8

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
 * entries touch. All of it is too much to be at hand for each packet that drops, so
 * a few lines of cache come first, which say no to nearly all.
 */
struct never_bits {
	__u64 few[NEVER_FEW];		/* of addresses of either kind */
	__u64 tops4[4], tops6[4];	/* any wider entry that touches the /8 */
	__u64 few_ports[NEVER_FEW];	/* by the low bits of a port */
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

/* The same as in marks.go. */
static __always_inline __u64 mark_hash(const struct addr *a)
{
	__u64 x = (a->lo ^ a->hi * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;

	x ^= x >> 32;
	return x * 0x94d049bb133111ebULL;
}

/* Of the address with hash x; words is a power of two. */
static __always_inline int mark_of(const __u64 *marks, __u32 words, __u64 x)
{
	__u64 w = marks[x >> 51 & (words - 1)];

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

static __always_inline int top_mark_of(const __u64 *tops4, const __u64 *tops6, const struct addr *a)
{
	__u32 top;

	if (a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW) {
		top = a->lo >> 32 & 0xff;
		return tops4[top >> 6] >> (top & 63) & 1;
	}
	top = a->hi & 0xff;
	return tops6[top >> 6] >> (top & 63) & 1;
}

/* Which ends of p rules name, the source 1 and the destination 2: most likely none. */
static __always_inline __u32 named(const struct marks *k, const struct pkt *p)
{
	__u64 x = mark_hash(&p->src), y = mark_hash(&p->dst);

	return mark_of(k->addrs, MARK_WORDS, x) | mark_of(k->addrs, MARK_WORDS, y) << 1;
}

static __always_inline __u32 in_net(const struct marks *k, const struct pkt *p)
{
	return net_mark_of(k->nets4, k->nets6, &p->src) | net_mark_of(k->nets4, k->nets6, &p->dst) << 1;
}

static __always_inline int port_marked(const struct never_bits *k, __u16 port)
{
	return k->few_ports[port >> 6 & (NEVER_FEW - 1)] >> (port & 63) & 1 && k->ports[port >> 6 & 1023] >> (port & 63) & 1;
}

/* Whether the list may name p by its end a. */
static __always_inline int never_end(const struct never_bits *k, const struct addr *a, const struct pkt *p)
{
	__u64 x = mark_hash(a);

	if (likely(!(mark_of(k->few, NEVER_FEW, x) | top_mark_of(k->tops4, k->tops6, a))))
		return 0;
	if (net_mark_of(k->nets4, k->nets6, a) | mark_of(k->addrs, NEVER_WORDS, x))
		return 1;
	return mark_of(k->some, NEVER_WORDS, x) && (port_marked(k, p->sport) || port_marked(k, p->dport));
}

/* Whether the list may name p, by its source or its destination. */
static __always_inline int never_marked(const struct never_bits *k, const struct pkt *p)
{
	return never_end(k, &p->src, p) || never_end(k, &p->dst, p);
}

#endif
