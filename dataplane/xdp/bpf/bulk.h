/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bulk set: a million listed addresses and prefixes in flat arrays, built
 * by userspace (bulkbuild.go) and never changed after that. A generation is
 * two inner maps, a head and cells, in one of two slots; settings.bulk names
 * the slot and the generation, and is read once a packet, so that a packet meets
 * one generation whole. Entries of a generation only ever expire: what it did
 * not list once, it never lists, and the flow table remembers that.
 *
 * What costs is a miss of cache or TLB. So the head holds what says "no" to
 * nearly every packet in a few small tables: a Bloom filter for addresses, and
 * for prefixes bitmaps of the /16 and the /24 that any of them touches. None
 * of them ever decides a drop. Behind them, an entry and its expiry lie in one
 * cell of 64 bytes, which is one line of cache. Other tables of the same form
 * hold the prefixes, hashed by masked address and length; each /16 knows which
 * lengths occur in it, and they are tried from the longest. An entry that has
 * expired is passed over, so that a wider one that lives decides.
 */
#ifndef HEDGEROW_BULK_H
#define HEDGEROW_BULK_H

#include "maps.h"
#include "parse.h"

#define BULK_SLOTS 2
#define BULK_REASONS 1024
#define BULK_LENGTHS 64		/* different lengths of IPv6 prefixes */
#define BULK_REGIONS 8192	/* of IPv6 /32, hashed */
#define BULK_BLOOM (1 << 18)	/* words: 2 MB */
#define BULK_HOPS 16		/* cells to look at, from an entry's place on */

/*
 * config.bulk: the slot plus one in two bits, above them how many sets there
 * were so far. One word, so that no packet takes one set for another.
 */
#define BULK_SLOT(use) (((use) & 3) - 1)

/* 8 entries: key in the low half of a word, meta in the upper. 0: free. See bulk_way. */
struct bulk_cell {
	__u64 w[8];
};

/* The same 64 bytes as 3 entries of IPv6. */
struct bulk_cell6 {
	__u64 hi[3], lo[3];
	__u32 meta[3];
	__u8 bits[4];
};

/* Where a table lies in the cells, and how many places it has. */
struct bulk_table {
	__u32 at, n;
};

/*
 * meta of an entry is the index of its reason in the low 10 bits, and above
 * them its expiry: seconds since base, or with the uppermost bit set, units of
 * 64 seconds.
 */
struct bulk_head {
	__u64 generation, entries;	/* entries: as intended */
	__u64 seed[4];			/* secret; 1 and 2 are odd */
	__u32 base;			/* seconds of boot time */
	__u32 bloom_words;
	struct bulk_table addrs, nets, bits24, v6;
	__u64 wide6;			/* lengths below 32, as in region6 */
	__u32 n_reasons, n_lengths6;
	__u8 lengths6[BULK_LENGTHS];	/* longest first */
	__u32 reasons[BULK_REASONS];
	__u32 told[BULK_REASONS];	/* as in struct rule; the only thing that programs write */
	__u64 bits16[1024];
	__u32 lengths[65536];		/* by /16; bit 32-n: some prefix of n bits */
	__u64 region6[BULK_REGIONS];	/* by hashed /32; bit n: some prefix of lengths6[n] */
	__u64 bloom[BULK_BLOOM];
};

/* Inner maps name sizes only, as BTF leaves out types behind two pointers. */
const struct bulk_head *const bulk_head_type __attribute__((used));
const struct bulk_cell *const bulk_cell_type __attribute__((used));
const struct bulk_cell6 *const bulk_cell6_type __attribute__((used));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, BULK_SLOTS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct bulk_head));
	});
} bulk_heads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, BULK_SLOTS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct bulk_cell));
	});
} bulk_cells SEC(".maps");

/* Packets by slot and reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BULK_SLOTS * BULK_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} bulk_hits SEC(".maps");

static __always_inline struct bulk_head *bulk_head_of(__u32 slot)
{
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&bulk_heads, &slot);

	return inner ? bpf_map_lookup_elem(inner, &zero) : 0;
}

static __always_inline void *bulk_cell_of(__u32 slot, __u32 at)
{
	void *inner = bpf_map_lookup_elem(&bulk_cells, &slot);

	return inner ? bpf_map_lookup_elem(inner, &at) : 0;
}

static __always_inline __u64 bulk_hash(const struct bulk_head *h, __u32 key)
{
	__u64 x = (key ^ h->seed[0]) * h->seed[1];

	x ^= x >> 32;
	return x * h->seed[2];
}

static __always_inline __u64 bulk_hash6(const struct bulk_head *h, __u64 hi, __u64 lo, __u32 bits)
{
	__u64 x = (hi ^ h->seed[0]) * h->seed[1];

	x ^= x >> 32;
	x = (x + lo) * h->seed[2];
	x ^= x >> 32;
	x = (x ^ h->seed[3] ^ bits) * h->seed[1];
	x ^= x >> 32;
	return x * h->seed[2];
}

/* The upper half of a hash, scaled to n places. */
static __always_inline __u32 scale(__u64 hash, __u32 n)
{
	return ((hash >> 32) * n) >> 32;
}

/* Four bits of one word: a look at the filter is one line of cache. */
static __always_inline int bloom_has(const struct bulk_head *h, __u64 hash)
{
	__u64 w = h->bloom[scale(hash, h->bloom_words) & (BULK_BLOOM - 1)];

	return w >> (hash >> 2 & 63) & w >> (hash >> 8 & 63) & w >> (hash >> 14 & 63) & w >> (hash >> 20 & 63) & 1;
}

/* now is in seconds since the head's base. */
static __always_inline int bulk_lives(__u32 meta, __u32 now)
{
	__u32 until = meta >> 10;

	if (until & 1 << 21)
		until = (until & ((1 << 21) - 1)) << 6;
	return until > now;
}

/* Where in its cell a key lies, if that was free: most do, and the branch is foretold. */
static __always_inline __u32 bulk_way(__u32 key)
{
	return key * 0x9e3779b1 >> 29;
}

/* The meta of a key whose place is cell at, or 0. It is no further than the first cell with room. */
__noinline __u32 bulk_probe(__u32 slot, __u32 at, __u32 key)
{
	for (__u32 hop = 0; hop < BULK_HOPS; hop++) {
		struct bulk_cell *c = bulk_cell_of(slot, at + hop);
		__u32 room = 0;
		__u64 w;

		if (!c)
			return 0;
		w = c->w[bulk_way(key) & 7];
		if ((__u32)w == key && w >> 32)
			return w >> 32;
#pragma unroll
		for (int i = 0; i < 8; i++) {
			w = c->w[i];
			if (!(w >> 32))
				room = 1;
			else if ((__u32)w == key)
				return w >> 32;
		}
		if (room)
			return 0;
	}
	return 0;
}

__noinline __u32 bulk_probe6(__u32 slot, __u32 at, __u64 hi, __u64 lo, __u32 bits)
{
	for (__u32 hop = 0; hop < BULK_HOPS; hop++) {
		struct bulk_cell6 *c = bulk_cell_of(slot, at + hop);

		if (!c)
			return 0;
#pragma unroll
		for (int i = 0; i < 3; i++)
			if (c->hi[i] == hi && c->lo[i] == lo && c->bits[i] == bits && c->meta[i])
				return c->meta[i];
		if (!c->meta[2])
			return 0;
	}
	return 0;
}

/*
 * The meta of the longest prefix of key that lives, or 0. A masked key has its
 * length in it: the first bit behind the prefix is set.
 */
__noinline __u32 bulk_nets4(__u32 slot, __u32 key, __u32 now)
{
	struct bulk_head *h = bulk_head_of(slot);
	struct bulk_cell *c;
	__u32 lengths;

	if (!h)
		return 0;
	c = bulk_cell_of(slot, h->bits24.at + (key >> 17));
	if (!c || !(c->w[key >> 14 & 7] >> (key >> 8 & 63) & 1))
		return 0;
	lengths = h->lengths[key >> 16];
	for (int i = 0; i < 31; i++) {
		__u32 b, masked, meta;

		if (!lengths)
			return 0;
		b = __builtin_ctz(lengths) & 31;
		lengths &= lengths - 1;
		masked = key >> b << b | 1U << b >> 1;
		meta = bulk_probe(slot, h->nets.at + scale(bulk_hash(h, masked), h->nets.n), masked);
		if (meta && bulk_lives(meta, now))
			return meta;
	}
	return 0;
}

/*
 * The meta of an address or of the longest prefix that holds it and lives, or 0.
 * What most packets of a listed source take is written out, as each call costs
 * as much as a look at a table. Who is likely listed is not looked for in the
 * filter first, as the table says the same.
 */
static __always_inline __u32 bulk_find4(struct bulk_head *h, __u32 slot, __u32 key, __u32 now, int likely_listed)
{
	__u64 hash = bulk_hash(h, key);

	if (likely_listed || bloom_has(h, hash)) {
		__u32 at = h->addrs.at + scale(hash, h->addrs.n), meta;
		struct bulk_cell *c = bulk_cell_of(slot, at);
		__u64 w = c ? c->w[bulk_way(key) & 7] : 0;

		meta = (__u32)w == key && w >> 32 ? w >> 32 : bulk_probe(slot, at, key);
		if (meta && bulk_lives(meta, now))
			return meta;
	}
	if (h->bits16[key >> 22] >> (key >> 16 & 63) & 1)
		return bulk_nets4(slot, key, now);
	return 0;
}

/* The meta of the longest IPv6 prefix that holds hi, lo and lives, or 0. */
__noinline __u32 bulk_find6(__u32 slot, __u64 hi, __u64 lo, __u32 now)
{
	struct bulk_head *h = bulk_head_of(slot);
	__u64 left;

	if (!h)
		return 0;
	left = h->wide6 | h->region6[bulk_hash(h, hi >> 32) >> 51 & (BULK_REGIONS - 1)];
	for (__u32 i = 0; i < BULK_LENGTHS; i++) {
		__u64 mhi = hi, mlo = lo, hash;
		__u32 bits, meta;

		if (!(left >> i))
			return 0;
		if (!(left >> i & 1))
			continue;
		bits = h->lengths6[i];
		if (bits <= 64) {
			mlo = 0;
			mhi = bits ? hi >> ((64 - bits) & 63) << ((64 - bits) & 63) : 0;
		} else {
			mlo = lo >> ((128 - bits) & 63) << ((128 - bits) & 63);
		}
		hash = bulk_hash6(h, mhi, mlo, bits);
		if (!bloom_has(h, hash))
			continue;
		meta = bulk_probe6(slot, h->v6.at + scale(hash, h->v6.n), mhi, mlo, bits);
		if (meta && bulk_lives(meta, now))
			return meta;
	}
	return 0;
}

static __always_inline __u32 bulk_find(struct bulk_head *h, __u32 slot, const struct addr *a, __u32 now, int likely_listed)
{
	if (a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW)
		return bulk_find4(h, slot, ntohl((__u32)(a->lo >> 32)), now, likely_listed);
	return bulk_find6(slot, be64(a->hi), be64(a->lo), now);
}

/*
 * The share of listed packets among this processor's last few dozen. What is
 * asked first follows it; what is found does not.
 */
#define LISTED_ALL 0x10000
#define LISTED_HALF (LISTED_ALL / 2)
#define LISTED_MOST (LISTED_ALL / 4 * 3)

static __always_inline void tally_listed(struct counters *n, int is)
{
	if (is)
		n->listed += (LISTED_ALL - n->listed) >> 6;
	else if (n->listed >> 6)
		n->listed -= n->listed >> 6;
}

/*
 * Asks the set of a slot about the source, and if it is not listed, about the
 * destination. Returns the place of the reason in bulk_hits plus one, or 0.
 */
static __always_inline __u32 ask_bulk(struct counters *n, const struct pkt *p, __u32 slot)
{
	struct bulk_head *h = bulk_head_of(slot);
	__u32 meta, now;

	if (!h)
		return 0;
	now = seconds_now(n) - h->base;
	meta = bulk_find(h, slot, &p->src, now, n->listed > LISTED_MOST);
	if (!meta)
		meta = bulk_find(h, slot, &p->dst, now, 0);
	if (likely(!meta))
		return 0;
	return slot * BULK_REASONS + (meta & (BULK_REASONS - 1)) + 1;
}

static __always_inline void count_listed(__u32 place, const struct pkt *p)
{
	__u64 *hits = bpf_map_lookup_elem(&bulk_hits, &place);

	if (hits)
		*hits += p->segs;
}

static __always_inline int is_told(const struct bulk_head *h, __u32 place, __u32 bit)
{
	return !h || h->told[place & (BULK_REASONS - 1)] & bit;
}

#endif
