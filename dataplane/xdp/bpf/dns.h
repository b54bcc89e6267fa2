/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS answers, shown to userspace while the site has domains to look for. Only
 * an answer to a query that an inside host was seen to send is shown, once:
 * nobody outside can fill the ring, nor put an answer into a host's mouth
 * without guessing what that host would believe as well.
 */
#ifndef HEDGEROW_DNS_H
#define HEDGEROW_DNS_H

#include "maps.h"
#include "parse.h"
#include "place.h"

#define DNS_PORT 53
#define DNS_HEAD 12
#define DNS_WAIT (10 * SECOND) /* an answer that comes later is none */
#define DNS_RATE 1000	       /* answers a second and processor */

struct query_key {
	struct addr client, resolver;
	__u16 port, id;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct query_key);
	__type(value, __u64);
} queries SEC(".maps");

/*
 * Not at the outside: there all hosts behind a translation are one, and a pair
 * with it would be a block for all of them.
 */
static __always_inline int is_dns(const struct pkt *p)
{
	if (role == ROLE_OUTSIDE || p->proto != P_UDP || !(p->have & HAVE_L4) || p->payload < DNS_HEAD)
		return 0;
	return p->hook == FROM_INSIDE ? p->dport == DNS_PORT : p->sport == DNS_PORT;
}

/* Notes a query; of an answer, says whether it is the first to one. */
__noinline int asked(struct pkt *p, __u32 head, __u64 now)
{
	struct query_key k = {};
	__u64 *at;

	if (!p)
		return 0;
	k.id = head & 0xffff;
	if (p->hook == FROM_INSIDE) {
		if (head & 0x800000) /* QR: this is an answer */
			return 0;
		k.client = p->src;
		k.resolver = p->dst;
		k.port = p->sport;
		bpf_map_update_elem(&queries, &k, &now, BPF_ANY);
		return 0;
	}
	if (!(head & 0x800000))
		return 0;
	k.client = p->dst;
	k.resolver = p->src;
	k.port = p->dport;
	at = bpf_map_lookup_elem(&queries, &k);
	if (!at || now - *at > DNS_WAIT)
		return 0;
	return !bpf_map_delete_elem(&queries, &k);
}

static __always_inline long take(void *ctx, int where, __u32 off, void *to, __u32 n)
{
	return where == FAR_XDP ? bpf_xdp_load_bytes(ctx, off, to, n) : bpf_skb_load_bytes(ctx, off, to, n);
}

static __noinline void address(struct dns_answer *a, struct pkt *p, __u64 now)
{
	a->client = p->dst;
	a->resolver = p->src;
	a->at = now;
	a->size = 0;
	a->pad = 0;
}

/* Shows p to userspace when it answers a query. Of a long one, the beginning. */
static __always_inline void hear_dns(void *ctx, int where, __u32 full, struct pkt *p)
{
	__u32 zero = 0, head = 0, n = p->payload;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct counters *k = bpf_map_lookup_elem(&totals, &zero);
	struct dns_answer *a;
	__u64 now, size;

	if (!c || !k || !c->names || take(ctx, where, p->body, &head, sizeof(head)))
		return;
	now = bpf_ktime_get_boot_ns();
	if (!asked(p, head, now))
		return;
	if (over(&k->answer_tat, DNS_RATE, now) || p->body >= full) {
		k->answers_lost++;
		return;
	}
	if (n > full - p->body)
		n = full - p->body;
	a = bpf_ringbuf_reserve(&events, sizeof(*a), 0);
	if (!a) {
		k->answers_lost++;
		return;
	}
	address(a, p, now);
	/* Linux 6.1 follows each bound by itself, on 64 bits, and not a range in one. */
	size = n;
	asm volatile("" : "+r"(size));
	if (size > DNS_MAX)
		size = DNS_MAX;
	asm volatile("" : "+r"(size));
	if (size >= DNS_HEAD && !take(ctx, where, p->body, a->message, size))
		a->size = size;
	bpf_ringbuf_submit(a, 0);
}

__noinline int dns_xdp(struct xdp_md *ctx, struct pkt *p)
{
	if (!p)
		return 0;
	hear_dns(ctx, FAR_XDP, bpf_xdp_get_buff_len(ctx), p);
	return 0;
}

__noinline int dns_skb(struct __sk_buff *skb, struct pkt *p)
{
	if (!p)
		return 0;
	hear_dns(skb, FAR_SKB, skb->len, p);
	return 0;
}

#endif
