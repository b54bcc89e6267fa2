// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel's packet path: one decision function behind two hooks. XDP sees
 * what enters the interface, TCX egress what leaves it. Semantics are those of
 * package dataplane and are held to by dataplane/planetest.
 */
#include "rules.h"
#include "flows.h"

/* Which way packets at each hook travel; set once, before loading. */
const volatile __u8 xdp_hook = FROM_INSIDE;
const volatile __u8 tcx_hook = TO_INSIDE;

/* The only way out: nothing is dropped unless the mode says so. */
static __always_inline int leave(const struct config *c, struct counters *n, const struct pkt *p, int drop)
{
	if (!drop)
		return 0;
	if (c->mode != MODE_ENFORCE) {
		n->would_drop += p->segs;
		return 0;
	}
	n->dropped += p->segs;
	return 1;
}

/* Counts the drop at its flow; the first of a rule in a mode is told. */
__noinline int tell_drop(struct match *m, struct pkt *p)
{
	__u32 zero = 0, bit;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct flow_key key;
	struct flow *f = 0;
	struct rule *r;

	if (!c || !m || !p)
		return 0;
	key = p->key;
	if (p->have & HAVE_L4)
		f = bpf_map_lookup_elem(&flows, &key);
	if (f)
		add(&f->dropped, p->segs);
	bit = c->mode == MODE_ENFORCE ? 2 : 1;
	if (m->told & bit)
		return 0;
	r = rule_at(p, m->by);
	if (!r || __sync_fetch_and_or(&r->told, bit) & bit)
		return 0;
	return emit(p, f, m->now, WHAT(EV_FIRST_DROP, 0, m->reason));
}

/* Whether to drop p. */
static __always_inline int decide(struct pkt *p)
{
	struct match m = {};
	struct counters *n;
	struct config *c;
	struct flow *f = 0;
	__u32 zero = 0;
	int drop, born = 0;

	c = bpf_map_lookup_elem(&settings, &zero);
	n = bpf_map_lookup_elem(&totals, &zero);
	if (!c || !n)
		return 0;
	n->packets += p->segs;
	n->bytes += p->segs > 1 ? p->payload + (__u64)p->segs * p->hdr_len : p->ip_len;
	if (p->bad) {
		if (p->bad < N_BAD)
			n->bad[p->bad]++;
		p->have &= ~HAVE_L4;
	}
	if (!(p->have & HAVE_IP))
		return 0;
	if (p->have & LATER_FRAG)
		n->later_fragments++;
	m.now = bpf_ktime_get_boot_ns();
	m.now_us = m.now / 1000;
	match_rules(&m, p);
	drop = m.action >= ACT_SUSPEND;
	if (!drop && p->have & HAVE_L4) {
		f = bpf_map_lookup_elem(&flows, &p->key);
		born = !f && !(p->proto == P_TCP && p->flags & T_RST);
		if (m.budgets)
			drop = over_budget(&m, p, born);
	}
	if (drop && never_block(p, m.now)) {
		n->never_saved += p->segs;
		if (p->have & HAVE_L4 && !f)
			f = bpf_map_lookup_elem(&flows, &p->key);
		born = p->have & HAVE_L4 && !f && !(p->proto == P_TCP && p->flags & T_RST);
		drop = 0;
	}
	if (drop) {
		tell_drop(&m, p);
		return leave(c, n, p, drop);
	}
	if (born)
		f = new_flow(p, n, m.now);
	if (f && account(f, p, m.now) && !bpf_map_delete_elem(&flows, &p->key))
		n->flows_ended++;
	return leave(c, n, p, drop);
}

SEC("xdp.frags")
int hedgerow_xdp(struct xdp_md *ctx)
{
	struct pkt p = {.segs = 1, .hook = xdp_hook};

	parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, bpf_xdp_get_buff_len(ctx), 0, &p);
	return decide(&p) ? XDP_DROP : XDP_PASS;
}

__noinline int parse_skb(struct __sk_buff *skb, struct pkt *p)
{
	if (!p)
		return 0;
	__builtin_memset(p, 0, sizeof(*p));
	p->segs = 1;
	p->hook = tcx_hook;
	p->linear = (long)skb->data_end - (long)skb->data;
	parse((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, skb->gso_size, p);
	return p->bad;
}

/*
 * Headers may lie outside the linear part, rarely; payload often does. Only
 * the first is worth a pull, which may copy.
 */
SEC("tcx/egress")
int hedgerow_tcx(struct __sk_buff *skb)
{
	struct pkt p = {};
	__u32 len = skb->len;

	if (parse_skb(skb, &p) && p.linear < len && p.linear < 256 &&
	    !bpf_skb_pull_data(skb, len < 256 ? len : 256))
		parse_skb(skb, &p);
	if (p.proto == P_TCP && p.payload >= 4 && !p.first4 && p.payload <= len)
		bpf_skb_load_bytes(skb, len - p.payload, &p.first4, 4);
	if (skb->gso_size && p.payload > skb->gso_size) {
		p.mss = skb->gso_size;
		p.segs = (p.payload + p.mss - 1) / p.mss;
	}
	return decide(&p) ? TCX_DROP : TCX_NEXT;
}

char _license[] SEC("license") = "Apache-2.0";
