/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow table: a fixed array of slots, 12 to a bucket, each flow in one of
 * two buckets. A flow's first packet makes an egg, of which a bucket has four;
 * the second makes the flow. A flood of single packets thus only ever pushes
 * out eggs. Where a bucket has no room, rank and silence decide who goes: see
 * silence(). Resets that belong to no flow are eggs as well, but push out
 * nothing and never hatch: see bury().
 *
 * Who may write what, on whichever processor:
 *  - a slot, and its tag and its word in seen: who holds the slot's seq;
 *  - eggs, and the hands: who holds the bucket's seq;
 *  - a flow of key k is made only by who holds the seq of k's first bucket.
 * A slot is waited for while a bucket is held, never the other way round. All
 * waiting is bounded; who waited in vain leaves the packet uncounted in its
 * flow, and says so in flows_untracked.
 */
#ifndef HEDGEROW_FLOWTABLE_H
#define HEDGEROW_FLOWTABLE_H

#include "flows.h"
#include "place.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct bucket);
} flow_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 64 * WAYS);
	__type(key, __u32);
	__type(value, struct slot);
} flow_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 64 * EGGS);
	__type(key, __u32);
	__type(value, struct egg);
} flow_eggs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seed);
} flow_seed SEC(".maps");

/* The kernel's own table in place of ours: what ours is measured against. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct slot);
} flows_lru SEC(".maps");

/* Room for what the stack has none for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pkt);
} scratch_pkt SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct egg);
} scratch_egg SEC(".maps");

const volatile __u32 n_buckets = 64;	/* as large as the maps are */
const volatile __u8 use_lru = 0;
const volatile __u8 stores_in_order = 0; /* x86 */

/* Begins to fetch a cache line that will be needed, while others are on their way. */
#define TOUCH(x)                                   \
	do {                                       \
		__u32 touched_ = *(volatile __u32 *)&(x); \
		KNOWN(touched_);                   \
	} while (0)

enum { NOWHERE, IN_EGG, IN_SLOT };

/* The bucket of the slot that s names. Both are read, as a spot may lie on the stack. */
static __always_inline __u32 home(const struct spot *s)
{
	__u32 one = s->bucket[0], two = s->bucket[1];

	KNOWN(one);
	KNOWN(two);
	return s->side ? two : one;
}

#define PATIENCE 128	/* tries for a lock: a few times as long as anybody holds one */

__noinline int wait_for(__u32 *seq)
{
	if (!seq)
		return 0;
	for (int i = 0; i < PATIENCE; i++) {
		__u32 was = *(volatile __u32 *)seq;
		if (!(was & 1) && __sync_val_compare_and_swap(seq, was, was + 1) == was)
			return 1;
	}
	return 0;
}

static __always_inline int lock(__u32 *seq)
{
	__u32 was = *(volatile __u32 *)seq;

	if (likely(!(was & 1) && __sync_val_compare_and_swap(seq, was, was + 1) == was))
		return 1;
	return wait_for(seq);
}

/*
 * Nothing before it may be seen after it. Where processors keep stores in
 * order that is a store; elsewhere an exchange, which waits for them.
 */
static __always_inline void unlock(__u32 *seq)
{
	__u32 next = *seq + 1;

	if (stores_in_order) {
		asm volatile("" ::: "memory");
		*(volatile __u32 *)seq = next;
	} else {
		(void)__sync_lock_test_and_set(seq, next);
	}
}

static __always_inline struct bucket *bucket_at(__u32 i)
{
	return bpf_map_lookup_elem(&flow_buckets, &i);
}

static __always_inline struct slot *slot_at(__u32 i)
{
	return bpf_map_lookup_elem(&flow_slots, &i);
}

/*
 * Where the slots of a bucket lie: those of one way of all buckets together.
 * As a bucket fills from its first way on, a table that is not full is dense:
 * what is in use spans few pages.
 */
static __always_inline __u32 slot_of(__u32 bucket, __u32 way)
{
	return way * n_buckets + bucket;
}

static __always_inline struct egg *egg_at(__u32 i)
{
	return bpf_map_lookup_elem(&flow_eggs, &i);
}

static __always_inline int same_key(const struct flow_key *x, const struct flow_key *y)
{
	const __u64 *a = (const __u64 *)x, *b = (const __u64 *)y;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]));
}

/*
 * Chooses a place by the upper bits: multiply-shift (Dietzfelbinger et al., "A
 * reliable randomized algorithm for the closest-pair problem", 1997). What was
 * multiplied with secrets before is folded first: neighbouring addresses are
 * equal steps, and equal steps of an unlucky secret would fall on few places.
 */
static __always_inline __u64 scatter(__u64 x, __u64 secret)
{
	return (x ^ x >> 32) * (secret | 1);
}

/*
 * Multilinear-HM twice (Lemire and Kaser, "Strongly universal string hashing
 * is fast", 2014), of the key's ten 32-bit words: whoever does not know the
 * seed cannot choose keys that meet more often than chance has it.
 */
static __always_inline void hash(const struct flow_key *key, const struct seed *s, __u32 *one, __u32 *two)
{
	const __u32 *w = (const __u32 *)key;
	__u64 x = 0, y = 0;

	for (int i = 0; i < 10; i += 2) {
		x += (s->k[i] + w[i]) * (s->k[i + 1] + w[i + 1]);
		y += (s->k[i + 10] + w[i]) * (s->k[i + 11] + w[i + 1]);
	}
	*one = scatter(x, s->k[20]) >> 32;
	*two = scatter(y, s->k[21]) >> 32;
}

/* One bit for each 16-bit lane of word that equals tag's; false ones are rare. */
static __always_inline __u32 lanes(__u64 word, __u64 tags)
{
	__u64 x = word ^ tags;

	x = (x - 0x0001000100010001ULL) & ~x & 0x8000800080008000ULL;
	return (x >> 15) * 0x0001000200040008ULL >> 48 & 15;
}

/*
 * The lowest bit of 16, by a de Bruijn sequence (Leiserson, Prokop and Randall,
 * "Using de Bruijn sequences to index a 1 in a computer word", 1998). Without
 * branches: verifiers would follow each result by itself.
 */
static const __u8 bit_at[16] = {0, 1, 2, 5, 3, 9, 6, 11, 15, 4, 8, 10, 14, 7, 13, 12};

static __always_inline __u32 lowest(__u32 m)
{
	return bit_at[((m & -m) * 0x09af & 0xffff) >> 12] & 15;
}

static const __u8 ones[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};

/* One bit for each slot of b whose tag is tag; false ones are rare, and none is the lowest. */
static __always_inline __u32 fits_tag(const struct bucket *b, __u16 tag)
{
	__u64 tags = tag * 0x0001000100010001ULL;
	const __u64 *w = (const __u64 *)b->tags;

	return lanes(w[0], tags) | lanes(w[1], tags) << 4 | lanes(w[2], tags) << 8;
}

/* Looks for p's flow at the slots of a bucket whose tags fit. */
__noinline int seek_slots(struct pkt *p, struct spot *s, __u32 found)
{
	if (!p || !s)
		return NOWHERE;
	for (int i = 0; i < WAYS && found; i++) {
		__u32 way = lowest(found), at = slot_of(home(s), way);
		struct slot *slot = slot_at(at);

		if (!slot)
			return NOWHERE;
		TOUCH(slot->flow.d[p->from_b & 1].packets);
		if (slot->live && same_key(&slot->key, &p->key)) {
			s->at = at;
			s->way = way;
			return IN_SLOT;
		}
		found &= found - 1;
	}
	return NOWHERE;
}

__noinline int seek_eggs(struct pkt *p, struct spot *s, __u32 found)
{
	if (!p || !s)
		return NOWHERE;
	for (int i = 0; i < EGGS && found; i++) {
		__u32 way = lowest(found), at = s->bucket[0] * EGGS + way;
		struct egg *egg = egg_at(at);

		if (egg && !(egg->flags & T_RST) && same_key(&egg->key, &p->key)) {
			s->at = at;
			s->way = way;
			return IN_EGG;
		}
		found &= found - 1;
	}
	return NOWHERE;
}

/* Looks for p's flow in the buckets of s. Unlocked, the answer is a hint. */
__noinline int look(struct pkt *p, struct spot *s)
{
	struct bucket *b, *other;
	__u32 found;

	if (!p || !s)
		return NOWHERE;
	b = bucket_at(s->bucket[0]);
	other = bucket_at(s->bucket[1]);
	if (!b || !other)
		return NOWHERE;
	TOUCH(other->seq);
	found = fits_tag(b, s->tag);
	s->side = 0;
	if (found && seek_slots(p, s, found))
		return IN_SLOT;
	found = lanes(((const __u64 *)b->tags)[3], s->tag * 0x0001000100010001ULL);
	if (found && seek_eggs(p, s, found))
		return IN_EGG;
	found = fits_tag(other, s->tag);
	s->side = 1;
	if (found && seek_slots(p, s, found))
		return IN_SLOT;
	return NOWHERE;
}

/* By itself, as the key would weigh on the stack of all who ask: Linux 6.1 counts it in steps of 32. */
__noinline int known_lru(struct pkt *p)
{
	struct flow_key key;

	if (!p)
		return NOWHERE;
	key = p->key;
	return bpf_map_lookup_elem(&flows_lru, &key) ? IN_SLOT : NOWHERE;
}

/* Where p's flow may be. */
static __always_inline void flow_spot(const struct pkt *p, struct spot *s)
{
	__u32 zero = 0, one, two;
	struct seed *seed = bpf_map_lookup_elem(&flow_seed, &zero);

	if (!seed)
		return;
	hash(&p->key, seed, &one, &two);
	s->bucket[0] = (__u64)one * n_buckets >> 32;
	s->bucket[1] = (__u64)two * n_buckets >> 32;
	/* The low bits, which chose no bucket: tables have less than 2^20. */
	s->tag = (one & 0xff) | (two & 0xff) << 8;
	s->tag += !s->tag;
}

/* Says whether p's flow is known. s is for flow_track. */
__noinline int flow_known(struct pkt *p, struct spot *s)
{
	if (!p || !s)
		return 0;
	if (use_lru)
		return known_lru(p);
	flow_spot(p, s);
	return look(p, s);
}

static __always_inline void untracked(void)
{
	__u32 zero = 0;
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);

	if (n)
		n->flows_untracked++;
}

/*
 * How well a flow is founded, and so how long it is kept: 0 one side only, 1
 * both sides, 2 more than a few packets of both, 3 both proved their addresses.
 */
static __always_inline __u8 rank_of(const struct flow *f, const struct pkt *p, __u8 was)
{
	const struct dir *me = dir_of((struct flow *)f, p->from_b);

	if (was == 3)
		return 3;
	if (!f->marks[0] || !f->marks[1])
		return 0;
	if (me->validated && f->d[0].validated && f->d[1].validated)
		return 3;
	return f->packets >= 8 ? 2 : 1;
}

#define TICKS 0x1fff
#define TICK(now) ((__u16)((now) >> 30) & TICKS)

/* Counts p in a slot that the caller holds, lets go of it. Says whether the flow ended. */
static __always_inline int settle_here(struct slot *slot, struct pkt *p, struct spot *s, __u64 now)
{
	struct bucket *b;
	__u16 seen;
	__u32 way;
	int ended;

	if (!counts(&slot->flow, p)) {
		unlock(&slot->seq);
		return 0;
	}
	slot->flow.clean = p->clean;
	ended = account_here(&slot->flow, p, now);
	b = bucket_at(home(s));
	way = s->way;
	KNOWN(way);
	if (b && way < WAYS) {
		if (ended) {
			slot->live = 0;
			b->tags[way] = 0;
		} else {
			slot->rank = rank_of(&slot->flow, p, slot->rank);
			seen = slot->rank << 13 | TICK(now);
			if (b->seen[way] != seen)
				b->seen[way] = seen;
		}
	}
	unlock(&slot->seq);
	return ended;
}

__noinline int settle(struct slot *slot, struct pkt *p, struct spot *s, __u64 now)
{
	return slot && p && s ? settle_here(slot, p, s, now) : 0;
}

/* Takes hold of the slot at s, if p's flow is in it. */
static __always_inline struct slot *grasp(struct pkt *p, struct spot *s)
{
	struct slot *slot = slot_at(s->at);

	if (!slot || !lock(&slot->seq))
		return 0;
	if (slot->live && same_key(&slot->key, &p->key))
		return slot;
	unlock(&slot->seq);
	return 0;
}

/* Sets what the first packet says of who began the flow. */
static __always_inline void found_by(struct flow *f, const struct pkt *p)
{
	f->init_b = p->from_b;
	if (answers(p)) {
		f->init_b = !p->from_b;
		f->init_sure = 1;
	}
}

/* Makes a flow of an egg: its packets are counted as of when the first came. */
__noinline int hatch(struct egg *e, struct flow *f)
{
	__u32 zero = 0;
	struct pkt *q = bpf_map_lookup_elem(&scratch_pkt, &zero);

	if (!e || !f || !q)
		return 0;
	__builtin_memset(f, 0, sizeof(*f));
	f->id = e->id;
	f->start = f->last_payload = e->at;
	f->dropped = e->dropped;
	__builtin_memset(q, 0, sizeof(*q));
	q->key = e->key;
	q->proto = e->key.proto;
	q->segs = 1 + e->more;
	q->ip_len = e->ip_len;
	q->hdr_len = e->hdr_len;
	q->payload = e->payload;
	q->seq = e->seq;
	q->first4 = e->first4;
	q->window = e->window;
	q->flags = e->flags;
	q->ttl = e->ttl;
	q->from_b = e->from_b;
	q->hook = e->hook;
	q->way = e->way;
	found_by(f, q);
	counts(f, q); /* notes who saw it; the first always counts */
	enter(f, q, e->at);
	*marks_of(f, e->from_b) |= e->again;
	if (e->flags & T_RST) {
		struct dir *d = dir_of(f, e->from_b);
		struct rare *r = rare_of(f, e->from_b);

		d->last += e->span * 1000ULL;
		r->rst += e->more;
	}
	return 1;
}

/* As counts() of place.h, of a flow that is an egg. */
static __always_inline int egg_counts(struct egg *e, const struct pkt *p)
{
	__u16 marks = side_mark_at(e->hook) | (e->way & WAY_BOTH ? M_RECEIVER_IN : 0) | e->again;

	if (p->way & WAY_PASS)
		return 0;
	if (p->way & WAY_JOIN)
		return e->way & WAY_OWN;
	if (!(p->way & WAY_AGAIN) || p->from_b != e->from_b || !(marks & side_mark_at(xdp_hook)))
		return 1;
	e->again |= side_mark_at(tcx_hook);
	if (p->flags & e->flags & T_SYN && p->seq == e->seq)
		e->again |= M_ISN_AT << (tcx_hook & 1);
	return 0;
}

static __always_inline void lay(struct egg *e, const struct pkt *p, __u64 id, __u64 now)
{
	e->key = p->key;
	e->at = now;
	e->id = id;
	e->ip_len = p->ip_len;
	e->hdr_len = p->hdr_len;
	e->payload = p->payload;
	e->seq = p->seq;
	e->first4 = p->first4;
	e->dropped = 0;
	e->window = p->window;
	e->flags = p->flags;
	e->ttl = p->ttl;
	e->from_b = p->from_b;
	e->hook = p->hook;
	e->way = p->way;
	e->again = 0;
	e->more = e->span = 0;
}

/*
 * How much a slot is wanted for another flow, 0 not at all: who is silent for
 * longest, where a second without rank weighs as much
 * as 4, 16 or 64 with it. A flow with rank goes only after that time, so that
 * no flood displaces what it cannot equal.
 */
static __always_inline __u32 silence(__u16 seen, __u16 tick, __u32 rank)
{
	__u32 age = (tick - seen) & TICKS, has = seen >> 13;

	if (has > rank && !(age >> 2 * (has & 3)))
		return 0;
	return (age >> 2 * (has & 3)) << 16 | (3 - (has & 3)) << 13 | age;
}

/*
 * Points s at the slot of its bucket that is wanted most, the first of empty
 * ones. Returns how much: with any empty the more, the more of them.
 */
__noinline __u32 choose(struct spot *s, __u32 side, __u64 now, __u32 rank)
{
	__u32 best = 0, from, room;
	struct bucket *b;

	if (!s)
		return 0;
	b = bucket_at(s->bucket[side & 1]);
	if (!b)
		return 0;
	s->side = side;
	room = fits_tag(b, 0);
	if (room) {
		s->way = lowest(room);
		s->at = slot_of(s->bucket[side & 1], s->way);
		return ~0U - WAYS + ones[room & 15] + ones[room >> 4 & 15] + ones[room >> 8 & 15];
	}
	from = b->hand;
	for (__u32 i = 0; i < WAYS; i++) {
		__u32 way = i + from, want;

		if (way >= WAYS)
			way -= WAYS;
		KNOWN(way);
		if (way >= WAYS)
			break;
		want = silence(b->seen[way], TICK(now), rank);
		if (want > best) {
			best = want;
			s->way = way;
		}
	}
	s->at = slot_of(s->bucket[side & 1], s->way);
	return best;
}

/* What leaves for want of room is counted; of who had rank, userspace is told. */
__noinline int evict(struct slot *slot, __u64 now)
{
	__u32 zero = 0;
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct pkt *q = bpf_map_lookup_elem(&scratch_pkt, &zero);

	if (!slot || !n || !q)
		return 0;
	n->flows_evicted++;
	if (slot->rank < 2)
		return 0;
	q->key = slot->key;
	return emit(q, &slot->flow, now, WHAT(EV_END, END_EVICTED, 0));
}

#define ROOMY 5	/* empty slots of a bucket that leave no wish to look at the other */

/*
 * Finds a slot for a flow of p: the first bucket's while that is roomy, so that
 * most are found there; then the emptier one's, or else the one that is wanted
 * most. Returns it held, empty and marked as p's, or nothing.
 */
static __always_inline struct slot *claim(struct pkt *p, struct spot *s, __u64 now, __u32 rank)
{
	struct spot one = *s, two = *s;
	struct bucket *b;
	struct slot *slot;
	__u32 a, c, way;

	a = choose(&one, 0, now, rank);
	if (a < ~0U - WAYS + ROOMY) {
		c = choose(&two, 1, now, rank);
		if (!a && !c)
			return 0;
		if (c > a)
			one = two;
	}
	s->side = one.side;
	s->way = way = one.way;
	s->at = one.at;
	b = bucket_at(home(s));
	slot = slot_at(s->at);
	KNOWN(way);
	if (!b || !slot || way >= WAYS || !lock(&slot->seq))
		return 0;
	if (slot->live)
		evict(slot, now);
	slot->key = p->key;
	slot->live = 1;
	slot->rank = 0;
	slot->held = p->held;
	b->tags[way] = s->tag;
	b->seen[way] = TICK(now);
	b->hand = way == WAYS - 1 ? 0 : way + 1;
	return slot;
}

/* The second packet of a flow: a slot for what is in the egg at s. The caller holds the bucket. */
__noinline int promote(struct pkt *p, struct spot *s, __u64 now)
{
	struct bucket *b;
	struct slot *slot;
	struct egg *egg;
	__u32 way;

	if (!p || !s)
		return 0;
	way = s->way;
	b = bucket_at(s->bucket[0]);
	egg = egg_at(s->at);
	KNOWN(way);
	if (!b || !egg || way >= EGGS)
		return 0;
	slot = claim(p, s, now, egg->from_b != p->from_b);
	if (!slot)
		return 0;
	b->tags[WAYS + way] = 0;
	return 1;
}

static __always_inline __u64 next_id(struct counters *n)
{
	return (__u64)bpf_get_smp_processor_id() << 48 | ++n->flows_total;
}

/* The first of a bucket's eggs from not_before on that has the tag, or EGGS. */
static __always_inline __u32 egg_place(const struct bucket *b, __u16 tag, __u32 not_before)
{
	for (__u32 way = 0; way < EGGS; way++)
		if (way >= not_before && b->tags[WAYS + way] == tag)
			return way;
	return EGGS;
}

/* Whether p goes on with the resets of e, which are counted as one burst. */
static __always_inline int goes_on(const struct egg *e, const struct pkt *p, __u64 now)
{
	return !((p->flags ^ e->flags) & 0x3f) && !(p->flags & (T_SYN | T_FIN | T_PSH)) && p->from_b == e->from_b &&
	       p->hdr_len == e->hdr_len && !p->payload && !e->payload && e->more < 0xfffe && now - e->at < 1000ULL << 32;
}

/*
 * What came of p's key after its flow ended, or without one, and was nothing but
 * resets: p is counted with them if it is another, which is what 1 says. Else
 * they are told, and leave their place. The caller holds the bucket.
 */
__noinline int bury(struct pkt *p, struct spot *s, __u64 now)
{
	__u32 zero = 0, way = 0;
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct slot *slot = bpf_map_lookup_elem(&scratch, &zero);
	struct bucket *b;
	struct egg *e;

	if (!p || !s || !n || !slot)
		return 0;
	b = bucket_at(s->bucket[0]);
	if (!b)
		return 0;
	for (int i = 0; i < EGGS; i++, way++) {
		way = egg_place(b, s->tag, way);
		KNOWN(way);
		if (way >= EGGS)
			return 0;
		e = egg_at(s->bucket[0] * EGGS + way);
		if (!e || !(e->flags & T_RST) || !same_key(&e->key, &p->key))
			continue;
		if (goes_on(e, p, now)) {
			e->more++;
			e->span = micros(now - e->at);
			return 1;
		}
		b->tags[WAYS + way] = 0;
		n->flows_ended++;
		hatch(e, &slot->flow);
		emit(p, &slot->flow, now, WHAT(EV_END, END_RST, 0));
		return 0;
	}
	return 0;
}

/*
 * A place for an egg: an empty one, or that of the oldest. Resets take only an
 * empty one, the one that is wanted last; EGGS says that there is none.
 */
static __always_inline __u32 egg_for(struct bucket *b, int reset)
{
	__u32 way;

	for (__u32 i = 0; i < EGGS; i++) {
		way = (b->next_egg + (reset ? EGGS - 1 - i : i)) & (EGGS - 1);
		KNOWN(way);
		way &= EGGS - 1;
		if (!b->tags[WAYS + way])
			goto found;
	}
	if (reset)
		return EGGS;
	way = b->next_egg & (EGGS - 1);
found:
	if (!reset)
		b->next_egg = way + 1;
	return way;
}

/* A new flow of the first packet p. The caller holds the bucket. Says whether it has a slot. */
__noinline int begin(struct pkt *p, struct spot *s, __u64 now)
{
	__u32 zero = 0, way;
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct bucket *b;
	struct slot *slot;
	struct egg *egg;

	if (!p || !s || !n)
		return 0;
	if (p->segs > 1) { /* no egg can hold it, and no stranger can send it */
		slot = claim(p, s, now, 0);
		if (!slot) {
			n->flows_untracked++;
			return 0;
		}
		__builtin_memset(&slot->flow, 0, sizeof(slot->flow));
		slot->flow.id = next_id(n);
		slot->flow.start = slot->flow.last_payload = now;
		found_by(&slot->flow, p);
		return 1;
	}
	b = bucket_at(s->bucket[0]);
	if (!b)
		return 0;
	way = egg_for(b, p->proto == P_TCP && p->flags & T_RST);
	if (way >= EGGS) {
		n->flows_untracked++;
		return 0;
	}
	KNOWN(way);
	way &= EGGS - 1;
	egg = egg_at(s->bucket[0] * EGGS + way);
	if (!egg)
		return 0;
	if (b->tags[WAYS + way])
		n->flows_evicted++;
	lay(egg, p, next_id(n), now);
	b->tags[WAYS + way] = s->tag;
	if (p->payload && !answers(p))
		p->show = shows(p, 0, hint(p->first4));
	return 0;
}

/* Holds the bucket, so that nobody else makes or hatches this flow meanwhile. */
__noinline int track_slowly(struct pkt *p, struct spot *s, __u64 now)
{
	struct bucket *b;
	struct slot *slot;
	struct egg *egg;
	int held = 0, missed = 0;

	if (!p || !s)
		return 0;
	b = bucket_at(s->bucket[0]);
	if (!b || !lock(&b->seq)) {
		untracked();
		return 0;
	}
	switch (look(p, s)) {
	case IN_EGG:
		egg = egg_at(s->at);
		if (!egg || !egg_counts(egg, p))
			break;
		held = promote(p, s, now);
		missed = !held;
		slot = slot_at(s->at);
		if (held && slot)
			hatch(egg, &slot->flow);
		break;
	case IN_SLOT:
		held = !!grasp(p, s);
		missed = !held;
		break;
	default:
		if ((makes_flow(p) || leftover(p)) && !bury(p, s, now))
			held = begin(p, s, now);
	}
	unlock(&b->seq);
	if (missed)
		untracked();
	slot = slot_at(s->at);
	return held && slot ? settle(slot, p, s, now) : 0;
}

__noinline int track_lru(struct pkt *p, __u64 now)
{
	__u32 zero = 0;
	struct flow_key key;
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct slot *slot, *fresh = bpf_map_lookup_elem(&scratch, &zero);
	int ended;

	if (!p || !n || !fresh)
		return 0;
	key = p->key;
	slot = bpf_map_lookup_elem(&flows_lru, &key);
	if (!slot) {
		if (!makes_flow(p))
			return 0;
		__builtin_memset(fresh, 0, sizeof(*fresh));
		fresh->live = 1;
		fresh->held = p->held;
		fresh->key = key;
		fresh->flow.id = next_id(n);
		fresh->flow.start = fresh->flow.last_payload = now;
		found_by(&fresh->flow, p);
		if (bpf_map_update_elem(&flows_lru, &key, fresh, BPF_NOEXIST))
			n->flows_total--;
		slot = bpf_map_lookup_elem(&flows_lru, &key);
	}
	if (!slot || !lock(&slot->seq)) {
		n->flows_untracked++;
		return 0;
	}
	ended = !slot->flow.ended && counts(&slot->flow, p) && account(&slot->flow, p, now);
	unlock(&slot->seq);
	if (ended)
		bpf_map_delete_elem(&flows_lru, &key);
	return ended;
}

/* Points s at the first slot whose tag fits, and begins to fetch it. side is a constant. */
static __always_inline int quick_side(struct pkt *p, struct spot *s, __u32 side)
{
	struct bucket *b = bucket_at(s->bucket[side]);
	struct slot *slot;
	__u32 found;

	if (!b)
		return 0;
	found = fits_tag(b, s->tag);
	if (!found)
		return 0;
	s->side = side;
	s->way = lowest(found);
	s->at = slot_of(s->bucket[side], s->way);
	slot = slot_at(s->at);
	if (!slot)
		return 0;
	TOUCH(slot->seq);
	TOUCH(slot->flow.d[p->from_b & 1].packets);
	return 1;
}

/*
 * Points s at where p's flow probably is, if it is known, and begins to fetch
 * that, so that the clock can be read meanwhile. It is what most packets need,
 * and written out where it is used. 0 may mean anything: then look says.
 */
static __always_inline int flow_quick(struct pkt *p, struct spot *s)
{
	return !use_lru && (quick_side(p, s, 0) || quick_side(p, s, 1));
}

#define LOOKED 1	/* pkt.look: what follows was done */
#define AT_QUICK 2	/* flow_quick found something */

/*
 * Looks for p's flow ahead of the lists, since most packets have one that says
 * that this bulk set lists neither end. What it says holds for its key, so both
 * are read as of one time, and that only where loads are in order, too.
 */
static __always_inline void look_ahead(struct pkt *p, struct spot *s, __u32 bulk)
{
	struct slot *slot;
	__u32 seq, same;

	canonical(p);
	flow_spot(p, s);
	p->look = LOOKED;
	if (!flow_quick(p, s))
		return;
	p->look = LOOKED | AT_QUICK;
	slot = slot_at(s->at);
	if (!stores_in_order || !slot)
		return;
	seq = *(volatile __u32 *)&slot->seq;
	asm volatile("" ::: "memory");
	same = !(seq & 1) && slot->flow.clean == bulk && same_key(&slot->key, &p->key);
	asm volatile("" ::: "memory");
	if (same && *(volatile __u32 *)&slot->seq == seq)
		p->clean = bulk;
}

/* Counts p in its flow, makes it if there is none. s is of flow_known. Says whether the flow ended. */
static __always_inline int flow_track(struct pkt *p, struct spot *s, int known, __u64 now)
{
	struct slot *slot;

	if (use_lru)
		return track_lru(p, now);
	if (known == IN_SLOT) {
		slot = grasp(p, s);
		if (slot)
			return settle(slot, p, s, now);
	}
	return track_slowly(p, s, now);
}

__noinline int dropped_lru(struct pkt *p, __u32 n, __u64 now, __u64 what)
{
	struct flow_key key;
	struct slot *slot;

	if (!p)
		return 0;
	key = p->key;
	slot = bpf_map_lookup_elem(&flows_lru, &key);
	if (!slot || !lock(&slot->seq))
		return 0;
	slot->flow.dropped += n;
	if (what)
		emit(p, &slot->flow, now, what);
	unlock(&slot->seq);
	return 1;
}

/* Counts n drops at the egg at s and copies it to the scratch one. Says whether it is still p's. */
__noinline int dropped_egg(struct pkt *p, struct spot *s, __u32 n)
{
	struct bucket *b;
	struct egg *egg, *copy;
	__u32 zero = 0;
	int same;

	if (!p || !s)
		return 0;
	b = bucket_at(s->bucket[0]);
	if (!b || !lock(&b->seq))
		return 0;
	egg = egg_at(s->at);
	copy = bpf_map_lookup_elem(&scratch_egg, &zero);
	same = egg && copy && same_key(&egg->key, &p->key);
	if (same) {
		egg->dropped += n;
		*copy = *egg;
	}
	unlock(&b->seq);
	return same;
}

/* Counts n drops at p's flow, and tells userspace if what is not 0. */
__noinline int flow_dropped(struct pkt *p, __u32 n, __u64 now, __u64 what)
{
	struct spot s = {};
	struct slot *slot = 0;
	struct egg *egg;
	__u32 zero = 0;
	int where;

	if (!p)
		return 0;
	where = p->have & HAVE_L4 ? flow_known(p, &s) : NOWHERE;
	if (where && use_lru && dropped_lru(p, n, now, what))
		return 0;
	if (where == IN_SLOT && !use_lru) {
		slot = grasp(p, &s);
		if (slot) {
			slot->flow.dropped += n;
			if (what)
				emit(p, &slot->flow, now, what);
			unlock(&slot->seq);
			return 0;
		}
	}
	if (where == IN_EGG && dropped_egg(p, &s, n)) {
		slot = bpf_map_lookup_elem(&scratch, &zero);
		egg = bpf_map_lookup_elem(&scratch_egg, &zero);
		if (!what || !slot || !egg)
			return 0;
		hatch(egg, &slot->flow);
	}
	if (what)
		emit(p, slot ? &slot->flow : 0, now, what);
	return 0;
}

#endif
