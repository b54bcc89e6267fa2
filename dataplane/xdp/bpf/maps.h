/* SPDX-License-Identifier: Apache-2.0 */
/* The tables, and what works on them everywhere. */
#ifndef HEDGEROW_MAPS_H
#define HEDGEROW_MAPS_H

#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} totals SEC(".maps");

/* The bucket that bounds what the built-in never-block entries save. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} budget SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct rule);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct rule_key);
	__type(value, struct rule);
} addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct pair_key);
	__type(value, struct rule);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix_key);
	__type(value, struct rule);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct never_key);
	__type(value, struct never);
} nevers SEC(".maps");

/* What a quarantined host may still reach, by the other end. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct never_key);
	__type(value, struct never);
} remedies SEC(".maps");

/* The protected networks, for hooks that see both directions. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct never_key);
	__type(value, __u32);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

/*
 * Functions that are neither static nor inlined are verified one by one, for
 * any argument. That keeps the verifier's work linear, and is why each of them
 * checks its pointers although no caller passes none.
 */
#define SECOND 1000000000ULL
#define add(p, v) ((void)__sync_fetch_and_add(p, v))

/*
 * Between an index and its bound: the compiler must neither read the index
 * again nor reason the bound away, since the verifier does not follow it.
 */
#define KNOWN(i) asm volatile("" : "+r"(i))

/*
 * Seconds of boot time, for what needs no more: the clock is read once a tick of
 * the kernel's and processor, as reading it costs more than all else that is done
 * with a packet that a list drops.
 */
static __always_inline __u32 seconds_now(struct counters *n)
{
	__u64 tick = bpf_jiffies64();

	if (unlikely(n->tick != tick)) {
		n->tick = tick;
		n->seconds = bpf_ktime_get_boot_ns() / SECOND;
	}
	return n->seconds;
}

/*
 * A token bucket in one word (GCRA): *tat is when the bucket will be full
 * again; it holds one second's worth. Says whether cost more are over it. What
 * costs more than a second's worth finds room in a full bucket, and pays later.
 */
static __always_inline int over_by(__u64 *tat, __u32 cost, __u32 rate, __u64 now)
{
	__u64 step = cost * SECOND / (rate ?: 1);

	for (int i = 0; i < 4; i++) {
		__u64 was = *(volatile __u64 *)tat;
		__u64 next = (was > now ? was : now) + step;
		if (was > now && next > now + SECOND)
			return 1;
		if (__sync_val_compare_and_swap(tat, was, next) == was)
			return 0;
	}
	return 1;
}

static __always_inline int over(__u64 *tat, __u32 rate, __u64 now)
{
	return over_by(tat, 1, rate, now);
}

#endif
