/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of a flow, and when userspace is told. */
#ifndef HEDGEROW_FLOWS_H
#define HEDGEROW_FLOWS_H

#include "maps.h"
#include "parse.h"

static __always_inline __u16 *marks_of(struct flow *f, __u8 from_b)
{
	return &f->marks[from_b & 1];
}

/*
 * What is known of a direction. The barriers keep the compiler from putting an
 * offset into a pointer by OR, which verifiers refuse.
 */
static __always_inline struct dir *dir_of(struct flow *f, __u8 from_b)
{
	struct dir *d = &f->d[0];

	KNOWN(d);
	if (from_b)
		d++;
	KNOWN(d);
	return d;
}

static __always_inline struct rare *rare_of(struct flow *f, __u8 from_b)
{
	struct rare *r = &f->r[0];

	KNOWN(r);
	if (from_b)
		r++;
	KNOWN(r);
	return r;
}

static __always_inline __u16 side_mark_at(__u8 hook)
{
	return hook == FROM_INSIDE ? M_SENDER_IN : M_RECEIVER_IN;
}

static __always_inline __u16 side_mark(const struct pkt *p)
{
	return side_mark_at(p->hook);
}

/* For the code generator, which finds types by what is not inlined. */
const struct event *const event_type __attribute__((used));

/* Fills an event. Without a flow, the record holds only who and when. */
static __always_inline void fill(struct event *e, struct pkt *p, struct flow *f)
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
	*marks_of(&e->flow, p->from_b) = side_mark(p);
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

/* Divides by multiplication where that is exact: up to 4 seconds, which is nearly always. */
static __always_inline __u32 micros(__u64 ns)
{
	__u64 us;

	if (likely(ns <= 0xffffffffULL))
		return ns * 274877907 >> 38;
	us = ns / 1000;
	return us > 0xffffffffULL ? 0xffffffff : us;
}

static __always_inline void inc16(__u16 *p)
{
	if (*p != 0xffff)
		(*p)++;
}

/* Sizes, counts and gaps. An aggregated packet counts as what it is on the wire. */
static __always_inline void count(struct dir *d, struct rare *r, const struct pkt *p, __u64 now)
{
	__u32 full, last, n;
	__u64 sq, gap_sq;

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
		r->first = now;
		r->window = p->window;
		d->size_min = last;
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

#define SHOWN 3			/* payload packets of a flow that may be shown, see hello.h */
#define QUIC_LEAST 1200		/* bytes of a datagram that begins a QUIC connection, at least */

/*
 * Whether p, payload packet n of a flow counted from 0, may hold what a TLS
 * client says first: n + 1, or 0. is says what the first one looked like.
 */
static __always_inline __u8 shows(const struct pkt *p, __u32 n, __u8 is)
{
	if (n >= SHOWN || (p->proto != P_UDP && p->proto != P_TCP))
		return 0;
	if (p->proto == P_UDP)
		return p->payload >= QUIC_LEAST ? n + 1 : 0;
	return is == HINT_TLS && !(p->flags & T_RST) ? n + 1 : 0;
}

/* The first payload packets of a flow: who, how much, how long after the last. */
__noinline int first_payloads(struct flow *f, struct pkt *p, __u64 now)
{
	__u32 left;

	if (!f || !p)
		return 0;
	left = p->payload;
	if (p->from_b == f->init_b)
		p->show = shows(p, f->n_first, f->n_first ? f->hint : hint(p->first4));
	for (int i = 0; i < FIRST; i++) {
		__u32 size, slot;
		__u64 before;

		if (!left || f->n_first >= FIRST)
			break;
		size = p->segs > 1 && left > p->mss ? p->mss : left;
		left -= size;
		slot = f->n_first++;
		KNOWN(slot);
		before = f->last_payload;
		f->last_payload = now;
		if (size > 32767)
			size = 32767;
		f->sizes[slot & (FIRST - 1)] = p->from_b ? -(__s32)size : (__s32)size;
		f->gaps[slot & (FIRST - 1)] = now > before ? micros(now - before) : 0;
		if (slot == 0 && p->proto == P_TCP)
			f->hint = hint(p->first4);
	}
	return 0;
}

/*
 * What an ACK number proves: who answers the other side's initial number has
 * received it. Sets M_DONE when no later number can tell more.
 */
static __always_inline __u16 answered(struct flow *f, struct pkt *p, __u32 side, __u64 now)
{
	struct dir *me = dir_of(f, p->from_b);
	struct rare *theirs = rare_of(f, !p->from_b);
	__u32 us;

	if (p->ack == theirs->isn + 1) {
		us = now > theirs->syn_at ? micros(now - theirs->syn_at) : 0;
		if (side && p->flags & T_SYN && !f->synack_us)
			f->synack_us = us ?: 1;
		if (!side && !f->ack_us)
			f->ack_us = us ?: 1;
		/* The number must have left by the other hook: one that came in
		   by this one may be the sender's own, under a borrowed name. */
		if (*marks_of(f, !p->from_b) & M_ISN_AT << (~p->hook & 1)) {
			p->have |= me->validated ? 0 : PROVED;
			me->validated = 1;
		}
	}
	return me->validated && (side || f->ack_us) ? M_DONE : 0;
}

/* Sequence numbers, handshake and end. Returns how the flow ended, if it did. */
static __always_inline int track_tcp(struct flow *f, struct pkt *p, __u64 now)
{
	struct dir *me;
	struct rare *mine, *yours;
	__u32 side, end;
	__u16 marks, theirs;

	me = dir_of(f, p->from_b);
	mine = rare_of(f, p->from_b);
	yours = rare_of(f, !p->from_b);
	end = p->seq + p->payload + !!(p->flags & T_SYN) + !!(p->flags & T_FIN);
	if (!f->init_sure && (p->flags & (T_SYN | T_ACK)) == T_SYN) {
		f->init_b = p->from_b;
		f->init_sure = 1;
		f->marks[0] &= ~M_DONE;
		f->marks[1] &= ~M_DONE;
	}
	marks = *marks_of(f, p->from_b);
	theirs = *marks_of(f, !p->from_b);
	side = p->from_b != f->init_b;
	me->flags |= p->flags & 0x3f;
	if (p->flags & T_FIN)
		inc16(&mine->fin);
	if (p->flags & T_RST)
		inc16(&mine->rst);
	if (p->flags & T_PSH)
		inc16(&me->psh);
	if (p->payload && marks & M_SEQ && (__s32)(p->seq - me->seq_high) < 0)
		inc16(&me->retrans);
	if (!(marks & M_SEQ) || (__s32)(end - me->seq_high) > 0)
		me->seq_high = end;
	marks |= M_SEQ;
	if (p->flags & T_SYN) {
		inc16(&mine->syn);
		if (mine->isn != p->seq)
			marks &= ~(M_ISN_AT | M_ISN_AT << 1);
		mine->isn = p->seq;
		mine->syn_at = now;
		marks |= M_ISN | M_ISN_AT << (p->hook & 1);
	}
	if (p->flags & T_FIN) {
		mine->fin_end = end;
		marks |= M_FIN;
	}
	if (p->flags & T_ACK) {
		if (theirs & M_ISN && (!(marks & M_DONE) || p->flags & T_SYN))
			marks |= answered(f, p, side, now);
		if (theirs & M_FIN && (__s32)(p->ack - yours->fin_end) >= 0)
			marks |= M_ACKED_FIN;
	}
	*marks_of(f, p->from_b) = marks;
	if (p->flags & T_RST)
		return END_RST;
	if (marks & M_ACKED_FIN && theirs & M_ACKED_FIN)
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

int weigh(struct flow *f, struct pkt *p, __u64 now); /* score.h */
int meet(struct flow *f, struct pkt *p, __u64 now);  /* fellows.h */

/* Reports f if it reached a milestone since it had before packets, and has it scored. */
__noinline int pass_milestone(struct flow *f, struct pkt *p, __u32 before, __u64 now)
{
	if (!f || !p || milestone(before + p->segs) <= before)
		return 0;
	if (before < 4)
		meet(f, p, now);
	emit(p, f, now, WHAT(EV_MILESTONE, 0, 0));
	return weigh(f, p, now);
}

/* Adds p to its flow. Says how the flow ended, if it did. */
static __always_inline __u32 enter(struct flow *f, struct pkt *p, __u64 now)
{
	f->packets += p->segs;
	count(dir_of(f, p->from_b), rare_of(f, p->from_b), p, now);
	*marks_of(f, p->from_b) |= side_mark(p);
	if (p->payload && f->n_first < FIRST)
		first_payloads(f, p, now);
	return p->proto == P_TCP ? track_tcp(f, p, now) : END_OPEN;
}

/*
 * Adds p to its flow and reports it when that is due. Says whether the flow
 * ended. The caller has the flow for himself.
 */
static __always_inline int account_here(struct flow *f, struct pkt *p, __u64 now)
{
	__u32 before = f->packets, end = enter(f, p, now);

	if (end) {
		f->ended = 1;
		emit(p, f, now, WHAT(EV_END, end, 0));
		return 1;
	}
	if (unlikely((before ^ (before + p->segs)) > before)) /* a power of two was passed */
		pass_milestone(f, p, before, now);
	return 0;
}

/* By itself, for all but the packets of flows that are known, which are most. */
__noinline int account(struct flow *f, struct pkt *p, __u64 now)
{
	return f && p ? account_here(f, p, now) : 0;
}

#endif
