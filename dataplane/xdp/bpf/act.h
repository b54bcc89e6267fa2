/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from a score: the programs that a scorer goes on with when it
 * found something. The packet is the one that decided; it lies where it was.
 */
#ifndef HEDGEROW_ACT_H
#define HEDGEROW_ACT_H

#include "score.h"

/* For the code generator, which finds types by what is not inlined. */
const struct verdict *const verdict_type __attribute__((used));

/* Whether a host is of those that the trial decides for: as score.Share. */
static __always_inline int picks(const struct scoring *k, const struct addr *host)
{
	__u32 w0 = host->hi, w1 = host->hi >> 32, w2 = host->lo, w3 = host->lo >> 32;
	__u64 h = (k->key[0] + w0) * (k->key[1] + w1) + (k->key[2] + w2) * (k->key[3] + w3);

	return h >> 32 < k->below;
}

#define OUTCOME(by, outcome) ((by) | (outcome) << 8)

/* Tells userspace what by says, and what came of it. f may be missing. */
__noinline int tell_verdict(struct pkt *p, struct flow *f, __u32 what, __u64 until)
{
	__u32 zero = 0, by = what & 1, at;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct scored *s = bpf_map_lookup_elem(&scored_now, &zero);
	struct opinion *o;
	struct verdict *v;

	if (!p || !c || !n || !s)
		return 0;
	KNOWN(by);
	o = &s->by[by & 1];
	at = (by & 1) << 5 | (o->action & 3) << 3 | (what >> 8 & 7);
	KNOWN(at);
	s->verdicts[at & 63]++;
	v = over(&s->tat, c->event_rate, p->match.now) ? 0 : bpf_ringbuf_reserve(&events, sizeof(*v), 0);
	if (!v) {
		n->events_lost++;
		return 0;
	}
	v->e.at = p->match.now;
	v->e.reason = 0;
	v->e.kind = EV_VERDICT;
	v->e.end = v->e.pad = 0;
	v->e.mode = c->mode;
	fill(&v->e, p, f);
	v->model[0] = o->model[0];
	v->model[1] = o->model[1];
	v->model[2] = o->model[2];
	v->model[3] = o->model[3];
	v->until = until;
	v->version = o->version;
	v->score = o->score;
	v->trial = by & 1;
	v->milestone = s->milestone;
	v->action = o->action;
	v->outcome = what >> 8;
	__builtin_memset(v->pad, 0, sizeof(v->pad));
	bpf_ringbuf_submit(v, 0);
	return 0;
}

/* Holds p's flow from now on. Returns until when, in us of boot time; 0 when there is no room. */
__noinline __u64 hold_flow(struct pkt *p, struct scoring *k, __u32 action)
{
	__u32 zero = 0;
	__u64 *last = bpf_map_lookup_elem(&holding, &zero), until;
	struct hold h = {}, *was;
	struct flow_key key;

	if (!p || !k || !last)
		return 0;
	until = p->match.now / 1000 + k->hold;
	key = p->key;
	h.word = until << 8 | (action & 0xff);
	h.rate = k->rate;
	h.reason = k->reason;
	was = bpf_map_lookup_elem(&flow_holds, &key);
	if (was && !expired(was->word, p->match.now)) {
		h.tat = was->tat;
		h.packets = was->packets;
		h.bytes = was->bytes;
	}
	if (bpf_map_update_elem(&flow_holds, &key, &h, BPF_ANY))
		return 0;
	if (*last < until * 1000)
		*last = until * 1000;
	return until;
}

/* Where p's flow is in the table, -1 for nowhere. */
__noinline int slot_index(struct pkt *p)
{
	struct spot s = {};

	if (!p || flow_known(p, &s) != IN_SLOT)
		return -1;
	return s.at;
}

/* The slot of p's flow. */
static __always_inline struct slot *slot_of_flow(struct pkt *p)
{
	struct flow_key key = p->key;
	__s32 at;

	if (use_lru)
		return bpf_map_lookup_elem(&flows_lru, &key);
	at = slot_index(p);
	return at < 0 ? 0 : slot_at(at);
}

static __always_inline int is_of(struct slot *slot, struct pkt *p)
{
	return slot->live && same_key(&slot->key, &p->key);
}

/* Does what the scorer that decides says. Returns the outcome, and in until when a hold ends. */
static __always_inline __u32 outcome_of(struct config *c, struct scoring *k, struct pkt *p, __u32 action, int spared, __u64 *until)
{
	if (k->shadow)
		return OUT_SHADOW;
	if (spared)
		return OUT_SPARED;
	if (c->mode != MODE_ENFORCE || role == ROLE_SENSOR)
		return OUT_MONITOR;
	*until = hold_flow(p, k, action);
	return *until ? OUT_ACTED : OUT_CROWDED;
}

/* What becomes of p: says whether it is dropped. */
__noinline int act(struct pkt *p)
{
	__u32 zero = 0, at, action, outcome = OUT_SHADOW, by = BY_ACTIVE;
	struct config *c = bpf_map_lookup_elem(&settings, &zero);
	struct counters *n = bpf_map_lookup_elem(&totals, &zero);
	struct scored *s = bpf_map_lookup_elem(&scored_now, &zero);
	struct scoring *k;
	struct slot *slot;
	struct flow *f;
	__u64 until = 0;
	int drop;

	if (!p || !c || !n || !s || !c->scoring)
		return PASS;
	at = s->slot;
	k = bpf_map_lookup_elem(&scorings, &at);
	if (!k)
		return PASS;
	if (k->below && picks(k, s->host_b ? &p->key.b : &p->key.a))
		by = BY_TRIAL;
	action = by ? s->by[BY_TRIAL].action : s->by[BY_ACTIVE].action;
	slot = slot_of_flow(p);
	f = slot && lock(&slot->seq) ? &slot->flow : 0;
	if (f && !is_of(slot, p)) {
		unlock(&slot->seq);
		f = 0;
	}
	if (action)
		outcome = outcome_of(c, k, p, action, !k->shadow && maybe_spared(c, p) && never_block(p), &until);
	drop = action == ACT_SUSPEND && outcome != OUT_SHADOW && outcome != OUT_SPARED;
	if (drop)
		s->dropped += p->segs;
	if (f)
		f->dropped += drop ? p->segs : 0;
	if (slot && until) /* also where the lock was not to be had: it is a hint */
		slot->held = 1;
	if (action)
		tell_verdict(p, f, OUTCOME(by, outcome), until);
	if (by ? s->by[BY_ACTIVE].action : s->by[BY_TRIAL].action)
		tell_verdict(p, f, OUTCOME(!by, OUT_SHADOW), 0);
	if (slot && f)
		unlock(&slot->seq);
	if (action == ACT_SUSPEND && outcome == OUT_SPARED)
		n->never_saved += p->segs;
	return leave(c, n, p, drop);
}

SEC("xdp.frags")
int hedgerow_act_xdp(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct pkt *p = bpf_map_lookup_elem(&scratch_now, &zero);

	return p && act(p) == DROP ? XDP_DROP : XDP_PASS;
}

SEC("tcx/egress")
int hedgerow_act_tcx(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct pkt *p = bpf_map_lookup_elem(&scratch_now, &zero);

	return p && act(p) == DROP ? TCX_DROP : TCX_NEXT;
}

#endif
