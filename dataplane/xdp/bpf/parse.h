/* SPDX-License-Identifier: Apache-2.0 */
/* From a frame to struct pkt. Reads the linear part only. */
#ifndef HEDGEROW_PARSE_H
#define HEDGEROW_PARSE_H

#include "types.h"

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

#define FITS(p, end) ((void *)((p) + 1) <= (end))

static __always_inline void canonical(struct pkt *p)
{
	__u64 sh = be64(p->src.hi), dh = be64(p->dst.hi);
	__u64 sl = be64(p->src.lo), dl = be64(p->dst.lo);
	int above = sh != dh ? sh > dh : sl != dl ? sl > dl : p->sport > p->dport;

	p->key.proto = p->proto;
	p->from_b = above;
	if (above) {
		p->key.a = p->dst;
		p->key.b = p->src;
		p->key.aport = p->dport;
		p->key.bport = p->sport;
	} else {
		p->key.a = p->src;
		p->key.b = p->dst;
		p->key.aport = p->sport;
		p->key.bport = p->dport;
	}
}

/* l4 starts at cur; left is what the IP packet holds from there. */
static __always_inline void parse_l4(void *cur, void *end, __u32 left, struct pkt *p)
{
	__u32 hdr = 0;

	if (p->proto == P_TCP) {
		struct tcp *t = cur;
		if (!FITS(t, end) || left < sizeof(*t))
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
		__u16 *w = cur;
		hdr = 8;
		if ((void *)(w + 4) > end || left < 8)
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
	p->have |= HAVE_L4;
	if (p->proto == P_TCP && p->payload >= 4) {
		__u32 *w = cur + (hdr & 0x3c);
		if ((void *)(w + 1) <= end)
			p->first4 = *w;
	}
	canonical(p);
	return;
bad:
	p->bad = p->proto == P_TCP ? BAD_TCP : p->proto == P_UDP ? BAD_UDP : BAD_ICMP;
}

static __always_inline void parse_ip4(void *cur, void *end, __u32 left, __u32 gso, struct pkt *p)
{
	struct ip4 *ip = cur;
	__u32 ihl, len;

	if (!FITS(ip, end))
		goto bad;
	ihl = (ip->vihl & 15) * 4;
	len = gso ? left : ntohs(ip->len);
	if ((ip->vihl >> 4) != 4 || ihl < sizeof(*ip) || len < ihl || len > left)
		goto bad;
	p->src.lo = V4_LOW | (__u64)ip->src << 32;
	p->dst.lo = V4_LOW | (__u64)ip->dst << 32;
	p->proto = ip->proto;
	p->ttl = ip->ttl;
	p->ip_len = len;
	p->have |= HAVE_IP;
	if (ip->frag & ntohs(0x1fff)) {
		p->have |= LATER_FRAG;
		return;
	}
	parse_l4(cur + (ihl & 0x3c), end, len - ihl, p);
	return;
bad:
	p->bad = BAD_IPV4;
}

static __always_inline void parse_ip6(void *cur, void *end, __u32 left, __u32 gso, struct pkt *p)
{
	struct ip6 *ip = cur;
	__u32 len, used = sizeof(*ip);
	__u8 next;

	if (!FITS(ip, end) || (*(__u8 *)cur >> 4) != 6)
		goto bad;
	len = gso ? left : ntohs(ip->len) + (__u32)sizeof(*ip);
	if (len > left)
		goto bad;
	p->src.hi = ip->src[0];
	p->src.lo = ip->src[1];
	p->dst.hi = ip->dst[0];
	p->dst.lo = ip->dst[1];
	p->ttl = ip->hops;
	p->ip_len = len;
	p->have |= HAVE_IP;
	next = ip->next;
	cur += sizeof(*ip);
	for (int i = 0; i <= MAX_EXT; i++) {
		struct ext *e = cur;
		__u32 n;

		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60) {
			p->proto = next;
			parse_l4(cur, end, len - used, p);
			return;
		}
		if (i == MAX_EXT || !FITS(e, end))
			break;
		if (next == 44) {
			if (e->frag & ntohs(0xfff8)) {
				p->proto = e->next;
				p->have |= LATER_FRAG;
				return;
			}
			n = 8;
		} else if (next == 51) {
			n = ((__u32)e->len + 2) * 4;
		} else {
			n = ((__u32)e->len + 1) * 8;
		}
		used += n;
		if (used > len)
			break;
		next = e->next;
		cur += n;
	}
	p->bad = BAD_EXT;
	return;
bad:
	p->bad = BAD_IPV6;
}

/* full is the frame's length; gso says that the IP length field is stale. */
static __always_inline void parse(void *data, void *end, __u32 full, __u32 gso, struct pkt *p)
{
	struct eth *eth = data;
	void *cur = data + sizeof(*eth);
	__u32 off = sizeof(*eth);
	__u16 proto;

	if (!FITS(eth, end)) {
		p->bad = BAD_ETH;
		return;
	}
	proto = eth->proto;
	for (int i = 0; i < 2; i++) {
		struct vlan *v = cur;
		if (proto != ntohs(0x8100) && proto != ntohs(0x88a8))
			break;
		if (!FITS(v, end)) {
			p->bad = BAD_VLAN;
			return;
		}
		proto = v->proto;
		cur += sizeof(*v);
		off += sizeof(*v);
	}
	p->l3 = off;
	if (proto == ntohs(0x0800))
		parse_ip4(cur, end, full - off, gso, p);
	else if (proto == ntohs(0x86dd))
		parse_ip6(cur, end, full - off, gso, p);
}

#endif
