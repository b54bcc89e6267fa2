/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a TLS client says first, shown to userspace while the site wants it: of a
 * flow's first payload packets those of the initiator, if they begin as a TLS
 * handshake or may hold an Initial packet of QUIC. See shows() in flows.h, which
 * keeps it to few packets of each flow.
 */
#ifndef HEDGEROW_HELLO_H
#define HEDGEROW_HELLO_H

#include "dns.h"

/* A second, processor and direction: who floods from outside takes nothing from inside hosts. */
#define HELLO_RATE 500

/* Long headers of type Initial, of QUIC 1 (RFC 9000), its draft 29 and 2 (RFC 9369). w are a datagram's first bytes. */
static __always_inline int quic_initial(__u64 w)
{
	__u32 version = ntohl(w >> 8 & 0xffffffff), kind = w & 0xf0;

	return ((version == 1 || version == 0xff00001d) && kind == 0xc0) || (version == 0x6b3343cf && kind == 0xd0);
}

/* For the code generator, which finds types by what is not inlined. */
const struct hello_part *const hello_type __attribute__((used));

static __noinline void heading(struct hello_part *h, struct pkt *p)
{
	h->key = p->key;
	h->at = p->match.now;
	h->seq = p->seq;
	h->size = 0;
	h->first = p->show == 1;
	__builtin_memset(h->pad, 0, sizeof(h->pad));
}

static __always_inline void hear_hello(void *ctx, int where, __u32 full, struct pkt *p)
{
	__u32 zero = 0, n = p->payload;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct counters *k = bpf_map_lookup_elem(&totals, &zero);
	struct hello_part *h;
	__u64 head = 0, size;

	if (!c || !k || !c->hellos || p->body >= full)
		return;
	if (p->proto == P_UDP && (take(ctx, where, p->body, &head, sizeof(head)) || !quic_initial(head)))
		return;
	if (over(&k->hello_tat[p->hook & 1], HELLO_RATE, p->match.now)) {
		k->hellos_lost++;
		return;
	}
	if (n > full - p->body)
		n = full - p->body;
	h = bpf_ringbuf_reserve(&events, sizeof(*h), 0);
	if (!h) {
		k->hellos_lost++;
		return;
	}
	heading(h, p);
	/* As in dns.h: Linux 6.1 follows each bound by itself. */
	size = n;
	asm volatile("" : "+r"(size));
	if (size > HELLO_MAX)
		size = HELLO_MAX;
	asm volatile("" : "+r"(size));
	/* Signed, as it learns no bound from what is not 0. */
	if ((__s64)size > 0 && !take(ctx, where, p->body, h->bytes, size))
		h->size = size;
	bpf_ringbuf_submit(h, 0);
}

__noinline int hello_xdp(struct xdp_md *ctx, struct pkt *p)
{
	if (!p)
		return 0;
	hear_hello(ctx, FAR_XDP, bpf_xdp_get_buff_len(ctx), p);
	return 0;
}

__noinline int hello_skb(struct __sk_buff *skb, struct pkt *p)
{
	if (!p)
		return 0;
	hear_hello(skb, FAR_SKB, skb->len, p);
	return 0;
}

#endif
