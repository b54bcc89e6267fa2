/* SPDX-License-Identifier: Apache-2.0 */
/* From a frame to struct pkt. What becomes of which frame is in docs/packets.md. */
#ifndef HEDGEROW_PARSE_H
#define HEDGEROW_PARSE_H

#include "types.h"

/* Whether frames begin with the IP header; set once, before loading. */
const volatile __u8 link_raw = 0;

#define MAX_EXT 6
enum { P_ICMP = 1, P_TCP = 6, P_UDP = 17, P_ICMP6 = 58 };
enum { T_FIN = 1, T_SYN = 2, T_RST = 4, T_PSH = 8, T_ACK = 16 };

struct eth {
	__u8 dst[6], src[6];
	__u16 proto;
} __attribute__((packed));
struct vlan {
	__u16 tci, proto;
} __attribute__((packed));
struct pppoe {
	__u8 vtype, code;
	__u16 session, len, proto; /* the last is PPP's, and counted by len */
} __attribute__((packed));
struct ip4 {
	__u8 vihl, tos;
	__u16 len, id, frag;
	__u8 ttl, proto;
	__u16 sum;
	__u32 src, dst;
} __attribute__((packed));
struct ip6 {
	__u32 vtf;
	__u16 len;
	__u8 next, hops;
	__u64 src[2], dst[2];
} __attribute__((packed));
struct ext {
	__u8 next, len;
	__u16 frag;
	__u32 id;
} __attribute__((packed));
struct tcp {
	__u16 sport, dport;
	__u32 seq, ack;
	__u8 off, flags;
	__u16 window, sum, urg;
} __attribute__((packed));

/*
 * Where headers are read: NEAR in the linear part, bounded by end, which is
 * where they are but for odd drivers; else by a helper that copies, for what
 * lies outside. where is a
 * constant wherever this is inlined.
 */
enum { NEAR, FAR_XDP, FAR_SKB };
struct view {
	void *data, *end, *ctx;
	__u32 where, gso; /* gso: the length field of IP is stale */
};

static __always_inline void *head(const struct view *v, __u32 off, __u32 n, void *buf)
{
	void *at;

	if (v->where == FAR_XDP)
		return bpf_xdp_load_bytes(v->ctx, off, buf, n) ? 0 : buf;
	if (v->where == FAR_SKB)
		return bpf_skb_load_bytes(v->ctx, off, buf, n) ? 0 : buf;
	at = v->data + off;
	return at + n > v->end ? 0 : at;
}

/* In one store, as keys are read in words: narrower stores would hold up those reads. */
static __always_inline void key_tail(struct flow_key *k, __u16 aport, __u16 bport, __u8 proto)
{
	*(__u64 *)&k->aport = aport | (__u32)bport << 16 | (__u64)proto << 32;
}

/* Gives p its key; parsing does not, as not all packets need one. */
static __always_inline void canonical(struct pkt *p)
{
	__u64 sh = be64(p->src.hi), dh = be64(p->dst.hi);
	__u64 sl = be64(p->src.lo), dl = be64(p->dst.lo);
	int above = sh != dh ? sh > dh : sl != dl ? sl > dl : p->sport > p->dport;

	p->from_b = above;
	if (above) {
		p->key.a = p->dst;
		p->key.b = p->src;
		key_tail(&p->key, p->dport, p->sport, p->proto);
	} else {
		p->key.a = p->src;
		p->key.b = p->dst;
		key_tail(&p->key, p->sport, p->dport, p->proto);
	}
}

/* The transport header is at off; left is what the IP packet holds from there. */
static __always_inline void parse_l4(const struct view *v, __u32 off, __u32 left, struct pkt *p)
{
	__u32 hdr = 0;

	if (p->proto == P_TCP) {
		struct tcp buf, *t = head(v, off, sizeof(buf), &buf);
		if (!t || left < sizeof(*t))
			goto bad;
		hdr = (t->off >> 4) * 4;
		if (hdr < sizeof(*t) || hdr > left)
			goto bad;
		p->sport = ntohs(t->sport);
		p->dport = ntohs(t->dport);
		p->seq = ntohl(t->seq);
		p->ack = ntohl(t->ack);
		p->flags = t->flags;
		p->window = ntohs(t->window);
	} else if (p->proto == P_UDP || p->proto == P_ICMP || p->proto == P_ICMP6) {
		__u16 buf[4], *w = head(v, off, sizeof(buf), buf);
		hdr = 8;
		if (!w || left < 8)
			goto bad;
		if (p->proto == P_UDP) {
			p->sport = ntohs(w[0]);
			p->dport = ntohs(w[1]);
		} else {
			p->icmp_type = w[0] & 0xff;
			p->icmp_code = w[0] >> 8;
		}
	}
	p->payload = left - hdr;
	p->hdr_len = p->ip_len - p->payload;
	p->body = off + hdr;
	p->have |= HAVE_L4;
	if (p->proto == P_TCP && p->payload >= 4) {
		__u32 buf, *w = head(v, off + (hdr & 0x3c), sizeof(buf), &buf);
		if (w)
			p->first4 = *w;
	}
	return;
bad:
	p->bad = p->proto == P_TCP ? BAD_TCP : p->proto == P_UDP ? BAD_UDP : BAD_ICMP;
}

/*
 * A fragment that is not the first. Nobody needs one that begins inside the TCP
 * header (RFC 3128) or ends above what a packet can hold.
 */
static __always_inline void later_fragment(__u32 at, __u32 n, struct pkt *p)
{
	p->have |= LATER_FRAG;
	if ((at < 20 && p->proto == P_TCP) || at + n > 0xffff)
		p->bad = BAD_FRAG;
}

/*
 * How long an IP packet is: field says 0 where segmentation or reassembly by
 * the kernel made it longer than the field can say.
 */
static __always_inline __u32 ip_length(const struct view *v, __u32 field, __u32 fixed, __u32 left)
{
	return v->gso || (!field && left > 0xffff + fixed) ? left : field + fixed;
}

static __always_inline void parse_ip4(const struct view *v, __u32 off, __u32 left, struct pkt *p)
{
	struct ip4 buf, *ip = head(v, off, sizeof(buf), &buf);
	__u32 ihl, len, frag;

	p->bad = BAD_IPV4;
	if (!ip || (ip->vihl >> 4) != 4)
		return;
	ihl = (ip->vihl & 15) * 4;
	if (ihl < sizeof(*ip))
		return;
	len = ip_length(v, ntohs(ip->len), 0, left);
	p->bad = BAD_IPV4_LEN;
	if (len < ihl || len > left)
		return;
	p->bad = BAD_NONE;
	p->src.lo = V4_LOW | (__u64)ip->src << 32;
	p->dst.lo = V4_LOW | (__u64)ip->dst << 32;
	p->proto = ip->proto;
	p->ttl = ip->ttl;
	p->ip_len = len;
	p->l3 = off;
	p->have |= HAVE_IP;
	frag = ntohs(ip->frag);
	if (frag & 0x1fff) {
		later_fragment((frag & 0x1fff) * 8, len - ihl, p);
		return;
	}
	parse_l4(v, off + (ihl & 0x3c), len - ihl, p);
	if (p->bad && frag & 0x2000)
		p->bad = BAD_FRAG;
}

static __always_inline void parse_ip6(const struct view *v, __u32 off, __u32 left, struct pkt *p)
{
	struct ip6 buf, *ip = head(v, off, sizeof(buf), &buf);
	__u32 len, used = sizeof(*ip), more = 0;
	__u8 next, ends = 0;

	p->bad = BAD_IPV6;
	if (!ip || (*(__u8 *)ip >> 4) != 6)
		return;
	len = ip_length(v, ntohs(ip->len), sizeof(*ip), left);
	p->bad = BAD_IPV6_LEN;
	if (len > left)
		return;
	p->bad = BAD_NONE;
	p->src.hi = ip->src[0];
	p->src.lo = ip->src[1];
	p->dst.hi = ip->dst[0];
	p->dst.lo = ip->dst[1];
	p->ttl = ip->hops;
	p->ip_len = len;
	p->l3 = off;
	p->have |= HAVE_IP;
	next = ip->next;
	off += sizeof(*ip);
	/* Unrolled, since Linux 6.1 refuses a loop that the compiler closes without a jump. */
#pragma unroll
	for (int i = 0; i <= MAX_EXT; i++) {
		struct ext ebuf, *e;
		__u32 n;

		p->proto = next;
		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60) {
			ends = 1;
			break;
		}
		e = head(v, off, sizeof(ebuf), &ebuf);
		if (i == MAX_EXT || !e)
			break;
		if (next == 44)
			n = 8;
		else if (next == 51)
			n = ((__u32)e->len + 2) * 4;
		else
			n = ((__u32)e->len + 1) * 8;
		used += n;
		if (used > len)
			break;
		if (next == 44) {
			__u32 at = ntohs(e->frag) & 0xfff8;
			if (at) {
				p->proto = e->next;
				later_fragment(at, len - used, p);
				return;
			}
			more |= ntohs(e->frag) & 1;
		}
		next = e->next;
		off += n;
	}
	if (ends) {
		parse_l4(v, off, len - used, p);
		if (p->bad && more)
			p->bad = BAD_FRAG;
		return;
	}
	p->bad = BAD_EXT;
}

/* PPPoE on the Ethernet below (RFC 2516): the session's IP is accounted. */
static __always_inline void parse_pppoe(const struct view *v, __u32 off, __u32 left, struct pkt *p)
{
	struct pppoe buf, *s = head(v, off, sizeof(buf), &buf);
	__u32 len;

	p->bad = BAD_PPPOE;
	if (!s || s->vtype != 0x11 || s->code)
		return;
	len = v->gso ? left - 6 : ntohs(s->len);
	if (len < 2 || len > left - 6)
		return;
	p->bad = BAD_NONE;
	if (s->proto == ntohs(0x0021))
		parse_ip4(v, off + sizeof(*s), len - 2, p);
	else if (s->proto == ntohs(0x0057))
		parse_ip6(v, off + sizeof(*s), len - 2, p);
}

static __always_inline void parse_eth(const struct view *v, __u32 full, struct pkt *p)
{
	struct eth buf, *eth = head(v, 0, sizeof(buf), &buf);
	__u32 off = sizeof(*eth);
	__u16 proto;

	if (!eth) {
		p->bad = BAD_ETH;
		return;
	}
	proto = eth->proto;
	for (int i = 0; i < 3; i++) {
		struct vlan tag, *t;
		if (proto != ntohs(0x8100) && proto != ntohs(0x88a8))
			break;
		t = head(v, off, sizeof(tag), &tag);
		if (i == 2 || !t) {
			p->bad = BAD_VLAN;
			return;
		}
		proto = t->proto;
		off += sizeof(*t);
	}
	if (proto == ntohs(0x0800))
		parse_ip4(v, off, full - off, p);
	else if (proto == ntohs(0x86dd))
		parse_ip6(v, off, full - off, p);
	else if (proto == ntohs(0x8864))
		parse_pppoe(v, off, full - off, p);
}

/* A link without a header of its own: the IP version says what follows. */
static __always_inline void parse_raw(const struct view *v, __u32 full, struct pkt *p)
{
	__u8 buf, *first = head(v, 0, 1, &buf);
	__u8 version = first ? *first >> 4 : 0;

	if (version == 4)
		parse_ip4(v, 0, full, p);
	else if (version == 6)
		parse_ip6(v, 0, full, p);
	else
		p->bad = BAD_LINK;
}

/* Ready to be parsed again. */
static __always_inline void reset(struct pkt *p)
{
	struct pkt again = {.segs = 1, .hook = p->hook, .linear = p->linear};
	*p = again;
}

/* full is the frame's length. */
static __always_inline void parse(const struct view *v, __u32 full, struct pkt *p)
{
	if (link_raw)
		parse_raw(v, full, p);
	else
		parse_eth(v, full, p);
}

#endif
