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

/* The same as in marks.go. */
static __always_inline int named(const struct marks *k, const struct addr *a)
{
	__u64 x = (a->lo ^ a->hi * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL, w;

	x ^= x >> 32;
	x *= 0x94d049bb133111ebULL;
	w = k->addrs[x >> 51 & (MARK_WORDS - 1)];
	return w >> (x >> 8 & 63) & w >> (x >> 16 & 63) & 1;
}

static __always_inline int in_net(const struct marks *k, const struct addr *a)
{
	__u32 top;

	if (a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW) {
		top = ntohl((__u32)(a->lo >> 32)) >> 16;
		return k->nets4[top >> 6 & (MARK_NETS - 1)] >> (top & 63) & 1;
	}
	top = be64(a->hi) >> 48;
	return k->nets6[top >> 6 & (MARK_NETS - 1)] >> (top & 63) & 1;
}

#endif
