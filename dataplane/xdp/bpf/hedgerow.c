// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel's packet path: one decision function behind two hooks. XDP sees
 * what enters the interface, TCX egress what leaves it. Semantics are those of
 * package dataplane and are held to by dataplane/planetest.
 */
#include "types.h"
#include "parse.h"

/* Which way packets at each hook travel; set once, before loading. */
const volatile __u8 xdp_hook = FROM_INSIDE;
const volatile __u8 tcx_hook = TO_INSIDE;

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

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} scratch SEC(".maps");

/* The bucket that bounds what the built-in never-block entries save. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} budget SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

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
 * A token bucket in one word (GCRA): *tat is when the bucket will be full
 * again; it holds one second's worth. Says whether one more is over it.
 */
static __always_inline int over(__u64 *tat, __u32 rate, __u64 now)
{
	__u64 step = SECOND / (rate ?: 1);

	for (int i = 0; i < 4; i++) {
		__u64 was = *(volatile __u64 *)tat;
		__u64 next = (was > now ? was : now) + step;
		if (next > now + SECOND)
			return 1;
		if (__sync_val_compare_and_swap(tat, was, next) == was)
			return 0;
	}
	return 1;
}

/* Takes a rule into account, if it lives: the first of the strongest wins. */
__noinline int consider(struct rule *r, struct match *m, struct pkt *p, __u32 by)
{
	__u64 w;
	__u32 action, reason;

	if (!r || !m || !p)
		return 0;
	w = r->word;
	reason = r->reason;
	if (w >> 8 <= m->now_us) {
		w = r->cover;
		reason = r->cover_reason;
		if (w >> 8 <= m->now_us)
			return 0;
	}
	action = w & 0xff;
	if (action == ACT_RATE) {
		if (by == BY_SRC) {
			m->rate = r->rate;
			m->rate_reason = reason;
			m->rate_told = r->told;
		}
		return 0;
	}
	add(&r->packets, p->segs);
	add(&r->bytes, p->ip_len);
	if (action >= ACT_SUSPEND && action > m->action) {
		m->action = action;
		m->reason = reason;
		m->by = by;
		m->told = r->told;
	}
	return 0;
}

/* ::/16 must not cover all of IPv4, so prefixes are kept by family. */
static __always_inline __u16 family(const struct addr *a)
{
	return a->hi == 0 && (a->lo & 0xffffffff) == V4_LOW ? 4 : 6;
}

static __always_inline struct rule *addr_rule(const struct addr *a, __u16 port, __u8 proto)
{
	struct rule_key k = {.addr = *a, .port = port, .proto = proto};
	return bpf_map_lookup_elem(&addrs, &k);
}

/* Linux 6.1 wants keys on the caller's own stack. */
static __always_inline struct rule *flow_rule(const struct flow_key *key)
{
	struct flow_key k = *key;
	return bpf_map_lookup_elem(&verdicts, &k);
}

static __always_inline struct rule *prefix_rule(const struct addr *a, __u32 class)
{
	struct prefix_key k = {.bits = 160, .class = class, .family = family(a), .addr = *a};
	return bpf_map_lookup_elem(&prefixes, &k);
}

#define TRY(found, by)                             \
	do {                                       \
		struct rule *r_ = (found);         \
		if (r_)                            \
			consider(r_, m, p, (by));  \
	} while (0)

/* Fills m with the strongest rule that would drop p, and a budget of its source. */
__noinline int match_rules(struct match *m, struct pkt *p)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);

	if (!c || !m || !p)
		return 0;
	if (c->flow_rules && p->have & HAVE_L4)
		TRY(flow_rule(&p->key), BY_FLOW);
	if (c->service_rules && p->have & HAVE_L4) {
		if (p->sport)
			TRY(addr_rule(&p->src, p->sport, p->proto), BY_SERVICE_SRC);
		if (p->dport)
			TRY(addr_rule(&p->dst, p->dport, p->proto), BY_SERVICE_DST);
	}
	if (c->addr_rules) {
		TRY(addr_rule(&p->src, 0, 0), BY_SRC);
		TRY(addr_rule(&p->dst, 0, 0), BY_DST);
	}
	if (c->block_prefixes) {
		TRY(prefix_rule(&p->src, CLASS_BLOCK), BY_SRC_PREFIX);
		TRY(prefix_rule(&p->dst, CLASS_BLOCK), BY_DST_PREFIX);
	}
	if (c->observe_prefixes) {
		TRY(prefix_rule(&p->src, CLASS_OBSERVE), BY_SRC_PREFIX);
		TRY(prefix_rule(&p->dst, CLASS_OBSERVE), BY_DST_PREFIX);
	}
	return 0;
}

/* The rule that match_rules found at by, looked up again: only rarely needed. */
static __always_inline struct rule *rule_at(struct pkt *p, __u32 by)
{
	switch (by) {
	case BY_FLOW:
		return flow_rule(&p->key);
	case BY_SERVICE_SRC:
		return addr_rule(&p->src, p->sport, p->proto);
	case BY_SERVICE_DST:
		return addr_rule(&p->dst, p->dport, p->proto);
	case BY_SRC:
		return addr_rule(&p->src, 0, 0);
	case BY_DST:
		return addr_rule(&p->dst, 0, 0);
	case BY_SRC_PREFIX:
		return prefix_rule(&p->src, CLASS_BLOCK);
	case BY_DST_PREFIX:
		return prefix_rule(&p->dst, CLASS_BLOCK);
	}
	return 0;
}

/* Charges the source's budget for a new flow. */
__noinline int over_budget(struct match *m, struct pkt *p)
{
	struct rule *r;

	if (!m || !p)
		return 0;
	r = addr_rule(&p->src, 0, 0);
	if (!r || !over(&r->tat, m->rate, m->now))
		return 0;
	add(&r->packets, p->segs);
	add(&r->bytes, p->ip_len);
	m->action = ACT_RATE;
	m->reason = m->rate_reason;
	m->told = m->rate_told;
	m->by = BY_SRC;
	return 1;
}

static __always_inline int never_of(const struct addr *a, __u16 own, __u16 other, struct pkt *p)
{
	struct never_key k = {.bits = 160, .family = family(a), .addr = *a};
	struct never *n = bpf_map_lookup_elem(&nevers, &k);

	if (!n)
		return 0;
	for (__u32 i = 0; i < NEVER_TUPLES; i++) {
		struct never_tuple t;
		if (i >= n->n)
			break;
		t = n->t[i];
		if (t.proto && t.proto != p->proto)
			continue;
		if (!t.port)
			return 1;
		if (p->have & HAVE_L4 && (t.port == own || (t.any_side && t.port == other)))
			return 1;
	}
	return 0;
}

/* What keeps a link alive: neighbour discovery, path MTU, address leases. */
static __always_inline int vital(const struct pkt *p)
{
	if (!(p->have & HAVE_L4))
		return 0;
	if (p->proto == P_ICMP6)
		return p->icmp_type == 2 || (p->icmp_type >= 133 && p->icmp_type <= 137);
	if (p->proto == P_ICMP)
		return p->icmp_type == 3 && p->icmp_code == 4;
	if (p->proto != P_UDP)
		return 0;
	return ((p->sport == 67 || p->sport == 68) && (p->dport == 67 || p->dport == 68)) ||
	       ((p->sport == 546 || p->sport == 547) && (p->dport == 546 || p->dport == 547));
}

/* Asked only when p would drop. */
__noinline int never_block(struct pkt *p, __u64 now)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);

	if (!c || !p)
		return 0;
	if (vital(p)) {
		__u64 *tat = bpf_map_lookup_elem(&budget, &zero);
		if (tat && !over(tat, 1000, now))
			return 1;
	}
	if (!c->nevers)
		return 0;
	return never_of(&p->src, p->sport, p->dport, p) || never_of(&p->dst, p->dport, p->sport, p);
}

/* Fills an event. Without a flow, the record holds only who and when. */
static __noinline void fill(struct event *e, struct pkt *p, struct flow *f)
{
	e->key = p->key;
	if (f) {
		__builtin_memcpy(&e->flow, f, sizeof(*f));
		return;
	}
	__builtin_memset(&e->flow, 0, sizeof(e->flow));
	e->flow.start = e->at;
	e->flow.dropped = p->segs;
	e->flow.init_b = p->from_b;
	(p->from_b ? &e->flow.d[1] : &e->flow.d[0])->marks =
		p->hook == FROM_INSIDE ? M_SENDER_IN : M_RECEIVER_IN;
}

#define WHAT(kind, end, reason) ((kind) | (end) << 8 | (__u64)(reason) << 32)

/* Tells userspace. what is a WHAT; f may be missing. */
__noinline int emit(struct pkt *p, struct flow *f, __u64 now, __u64 what)
{
	__u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct event *e;

	if (!c || !n || !p)
		return 0;
	if (over(&n->event_tat, c->event_rate, now)) {
		n->events_lost++;
		return 0;
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		n->events_lost++;
		return 0;
	}
	e->at = now;
	e->reason = what >> 32;
	e->kind = what & 0xff;
	e->end = what >> 8 & 0xff;
	e->mode = c->mode;
	e->pad = 0;
	fill(e, p, f);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline __u32 micros(__u64 ns)
{
	__u64 us = ns / 1000;
	return us > 0xffffffffULL ? 0xffffffff : us;
}

static __always_inline void inc16(__u16 *p)
{
	if (*p != 0xffff)
		(*p)++;
}

static __always_inline struct flow *new_flow(const struct pkt *p, struct counters *n, __u64 now)
{
	__u32 zero = 0;
	struct flow *f = bpf_map_lookup_elem(&scratch, &zero);

	if (!f)
		return 0;
	__builtin_memset(f, 0, sizeof(*f));
	f->id = (__u64)bpf_get_smp_processor_id() << 48 | (n->flows_total + 1);
	f->start = now;
	f->last_payload = now;
	f->init_b = p->from_b;
	if (!bpf_map_update_elem(&flows, &p->key, f, BPF_NOEXIST))
		n->flows_total++;
	f = bpf_map_lookup_elem(&flows, &p->key);
	if (!f)
		n->flows_failed++;
	return f;
}

/* Sizes, counts and gaps. An aggregated packet counts as what it is on the wire. */
__noinline int count(struct dir *d, struct pkt *p, __u64 now)
{
	__u32 full, last, n;
	__u64 sq, gap_sq;

	if (!d || !p)
		return 0;
	full = last = p->ip_len;
	n = p->segs;
	if (n > 1) {
		full = p->hdr_len + p->mss;
		last = p->hdr_len + (p->payload - (n - 1) * p->mss);
	}
	if (full > 0xffff)
		full = 0xffff;
	if (last > 0xffff)
		last = 0xffff;
	sq = (__u64)full * full * (n - 1) + (__u64)last * last;
	if (!d->packets) {
		d->first = now;
		d->size_min = last;
		d->window = p->window;
		d->ttl = p->ttl;
	} else {
		__u32 gap = now > d->last ? micros(now - d->last) : 0;
		gap_sq = d->gap_sq + (__u64)gap * gap;
		d->gap_sq = gap_sq < d->gap_sq ? ~0ULL : gap_sq;
		if (gap > d->gap_max)
			d->gap_max = gap;
	}
	if (last < d->size_min)
		d->size_min = last;
	if (full > d->size_max)
		d->size_max = full;
	d->size_sq += sq;
	d->last = now;
	d->packets += n;
	d->bytes += p->payload + (__u64)n * p->hdr_len;
	d->payload += p->payload;
	return 0;
}

static __always_inline __u8 hint(__u32 w)
{
	switch (ntohl(w)) {
	case 0x5353482d: /* SSH- */
		return HINT_SSH;
	case 0x47455420: /* GET */
	case 0x504f5354: /* POST */
	case 0x48454144: /* HEAD */
	case 0x50555420: /* PUT */
	case 0x44454c45: /* DELE */
	case 0x4f505449: /* OPTI */
	case 0x50415443: /* PATC */
	case 0x434f4e4e: /* CONN */
	case 0x54524143: /* TRAC */
		return HINT_HTTP;
	}
	if ((w & 0xffff) == 0x0316 && (w >> 16 & 0xff) <= 4)
		return HINT_TLS;
	return HINT_NONE;
}

/* The first payload packets of a flow: who, how much, how long after the last. */
__noinline int first_payloads(struct flow *f, struct pkt *p, __u64 now)
{
	__u32 left;

	if (!f || !p)
		return 0;
	left = p->payload;
	for (int i = 0; i < FIRST; i++) {
		__u32 size, slot;
		__u64 before;

		if (!left || f->n_first >= FIRST)
			break;
		size = p->segs > 1 && left > p->mss ? p->mss : left;
		left -= size;
		slot = __sync_fetch_and_add(&f->n_first, 1);
		before = __sync_lock_test_and_set(&f->last_payload, now);
		if (slot >= FIRST)
			break;
		if (size > 32767)
			size = 32767;
		f->sizes[slot & (FIRST - 1)] = p->from_b ? -(__s32)size : (__s32)size;
		f->gaps[slot & (FIRST - 1)] = now > before ? micros(now - before) : 0;
		if (slot == 0 && p->proto == P_TCP)
			f->hint = hint(p->first4);
	}
	return 0;
}

/* Sequence numbers, handshake and end. Returns how the flow ended, if it did. */
__noinline int track_tcp(struct flow *f, struct pkt *p, __u64 now)
{
	struct dir *me, *you;
	__u32 side, end;
	__u8 marks;

	if (!f || !p)
		return END_OPEN;
	me = p->from_b ? &f->d[1] : &f->d[0];
	you = p->from_b ? &f->d[0] : &f->d[1];
	marks = me->marks;
	end = p->seq + p->payload + !!(p->flags & T_SYN) + !!(p->flags & T_FIN);
	if (!f->init_sure && (p->flags & (T_SYN | T_ACK)) == T_SYN) {
		f->init_b = p->from_b;
		f->init_sure = 1;
	}
	side = p->from_b != f->init_b;
	me->flags |= p->flags & 0x3f;
	if (p->flags & T_SYN)
		inc16(&me->syn);
	if (p->flags & T_FIN)
		inc16(&me->fin);
	if (p->flags & T_RST)
		inc16(&me->rst);
	if (p->flags & T_PSH)
		inc16(&me->psh);
	if (p->payload && marks & M_SEQ && (__s32)(p->seq - me->seq_high) < 0)
		inc16(&me->retrans);
	if (!(marks & M_SEQ) || (__s32)(end - me->seq_high) > 0)
		me->seq_high = end;
	marks |= M_SEQ;
	if (p->flags & T_SYN) {
		me->isn = p->seq;
		me->syn_at = now;
		marks |= M_ISN;
	}
	if (p->flags & T_FIN) {
		me->fin_end = end;
		marks |= M_FIN;
	}
	if (p->flags & T_ACK) {
		__u8 theirs = you->marks;
		if (theirs & M_ISN && p->ack == you->isn + 1) {
			__u32 us = now > you->syn_at ? micros(now - you->syn_at) : 0;
			if (side && p->flags & T_SYN && !f->synack_us)
				f->synack_us = us ?: 1;
			if (!side && !me->validated)
				f->ack_us = us ?: 1;
			me->validated = 1;
		}
		if (theirs & M_FIN && (__s32)(p->ack - you->fin_end) >= 0)
			marks |= M_ACKED_FIN;
	}
	me->marks = marks;
	if (p->flags & T_RST)
		return END_RST;
	if (marks & M_ACKED_FIN && you->marks & M_ACKED_FIN)
		return END_FIN;
	return END_OPEN;
}

/* The largest milestone up to n (see flow.Milestone), or 0. */
static __always_inline __u32 milestone(__u32 n)
{
	__u32 e = 0;

	if (n < 4)
		return 0;
	if (n >> 16)
		e = 16;
	if (n >> (e + 8))
		e += 8;
	if (n >> (e + 4))
		e += 4;
	if (n >> (e + 2))
		e += 2;
	if (n >> (e + 1))
		e += 1;
	if (e > 6 && e & 1)
		e--;
	return 1U << (e & 31);
}

/* Adds p to its flow and reports it when that is due. Says whether the flow ended. */
__noinline int account(struct flow *f, struct pkt *p, __u64 now)
{
	__u32 at, before, end = END_OPEN;
	struct dir *me;

	if (!f || !p)
		return 0;
	me = p->from_b ? &f->d[1] : &f->d[0];
	before = __sync_fetch_and_add(&f->packets, p->segs);
	count(me, p, now);
	me->marks |= p->hook == FROM_INSIDE ? M_SENDER_IN : M_RECEIVER_IN;
	if (p->payload && f->n_first < FIRST)
		first_payloads(f, p, now);
	if (p->proto == P_TCP)
		end = track_tcp(f, p, now);
	if (end) {
		if (__sync_lock_test_and_set(&f->ended, 1))
			return 0;
		emit(p, f, now, WHAT(EV_END, end, 0));
		return 1;
	}
	at = milestone(before + p->segs);
	if (at > before)
		emit(p, f, now, WHAT(EV_MILESTONE, 0, 0));
	return 0;
}

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
		if (born && m.rate)
			drop = over_budget(&m, p);
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
