// SPDX-License-Identifier: Apache-2.0
/*
 * For tests and benchmarks only: looks up many addresses in one run, in the
 * bulk set and in the kernel's own maps, which serve as oracle and as peer.
 */
#include "bulk.h"

#define PROBES (1 << 20)

struct probe_job {
	__u32 n, first, slot, now;
};

struct lpm4_key {
	__u32 bits, addr;	/* addr as on the wire */
};

struct lpm6_key {
	__u32 bits;
	__u32 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PROBES);
	__type(key, __u32);
	__type(value, struct addr);
} probes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PROBES);
	__type(key, __u32);
	__type(value, __u64);
} answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct probe_job);
} jobs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u32);
	__type(value, __u32);
} hash4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct addr);
	__type(value, __u32);
} hash6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 21);
	__type(key, struct lpm4_key);
	__type(value, __u32);
} lpm4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 21);
	__type(key, struct lpm6_key);
	__type(value, __u32);
} lpm6 SEC(".maps");

/* The kernel has bpf_loop from 5.17 on. */
static long (*bpf_loop)(__u32 n, void *f, void *ctx, __u64 flags) = (void *)181;

/* carry is always 0, which the compiler cannot know: each look waits for the last. */
struct walk {
	struct probe_job job;
	__u32 carry, found;
};

static __always_inline struct addr *probe_at(__u32 i, struct walk *w, __u32 *at)
{
	*at = (w->job.first + i + w->carry) & (PROBES - 1);
	return bpf_map_lookup_elem(&probes, at);
}

static __always_inline long answer(struct walk *w, __u32 at, __u32 said)
{
	__u64 *to = bpf_map_lookup_elem(&answers, &at);

	if (to)
		*to = said;
	w->found += !!said;
	w->carry = said == 0xffffffff;
	return 0;
}

static long step_floor(__u32 i, struct walk *w)
{
	__u32 at;
	struct addr *a = probe_at(i, w, &at);

	return a ? answer(w, at, a->hi == 1) : 1;
}

static long step_bulk(__u32 i, struct walk *w)
{
	struct bulk_head *h = bulk_head_of(w->job.slot);
	__u32 at, meta;
	struct addr *a = probe_at(i, w, &at);

	if (!a || !h)
		return 1;
	meta = bulk_find(h, w->job.slot, a, w->job.now - h->base, 0);
	return answer(w, at, meta ? h->reasons[meta & (BULK_REASONS - 1)] + 1 : 0);
}

static __always_inline __u32 in_hash(const struct addr *a)
{
	struct addr k = *a;
	__u32 k4 = a->lo >> 32, *v;

	v = a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW ? bpf_map_lookup_elem(&hash4, &k4) : bpf_map_lookup_elem(&hash6, &k);
	return v ? *v + 1 : 0;
}

static __always_inline __u32 in_lpm(const struct addr *a)
{
	__u32 *v;

	if (a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW) {
		struct lpm4_key k = {.bits = 32, .addr = a->lo >> 32};
		v = bpf_map_lookup_elem(&lpm4, &k);
	} else {
		struct lpm6_key k = {.bits = 128, .addr = {a->hi, a->hi >> 32, a->lo, a->lo >> 32}};
		v = bpf_map_lookup_elem(&lpm6, &k);
	}
	return v ? *v + 1 : 0;
}

static long step_hash(__u32 i, struct walk *w)
{
	__u32 at;
	struct addr *a = probe_at(i, w, &at);

	return a ? answer(w, at, in_hash(a)) : 1;
}

static long step_lpm(__u32 i, struct walk *w)
{
	__u32 at;
	struct addr *a = probe_at(i, w, &at);

	return a ? answer(w, at, in_lpm(a)) : 1;
}

/* Both: addresses in the hash, prefixes in the trie, as a firewall on them would. */
static long step_both(__u32 i, struct walk *w)
{
	__u32 at, said;
	struct addr *a = probe_at(i, w, &at);

	if (!a)
		return 1;
	said = in_hash(a);
	return answer(w, at, said ? said : in_lpm(a));
}

#define PROBE(name)                                                       \
	SEC("xdp")                                                        \
	int probe_##name(struct xdp_md *ctx)                              \
	{                                                                 \
		struct walk w = {};                                       \
		__u32 zero = 0;                                           \
		struct probe_job *j = bpf_map_lookup_elem(&jobs, &zero);  \
		if (!j)                                                   \
			return 0;                                         \
		w.job = *j;                                               \
		bpf_loop(w.job.n, step_##name, &w, 0);                    \
		return w.found;                                           \
	}

PROBE(floor)
PROBE(bulk)
PROBE(hash)
PROBE(lpm)
PROBE(both)

/*
 * Stands before the shipped program and gives each run's packet another
 * destination, so that a repeated test run is traffic of many peers.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} behind SEC(".maps");

SEC("xdp.frags")
int probe_front(struct xdp_md *ctx)
{
	__u32 zero = 0, at, *dst = (void *)(long)ctx->data + 30;
	struct probe_job *j = bpf_map_lookup_elem(&jobs, &zero);
	struct addr *a;

	if (!j || (void *)(dst + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	at = (j->first++ % j->n) & (PROBES - 1);
	a = bpf_map_lookup_elem(&probes, &at);
	if (!a)
		return XDP_PASS;
	*dst = a->lo >> 32;
	bpf_tail_call(ctx, &behind, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
