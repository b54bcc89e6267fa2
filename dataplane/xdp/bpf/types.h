/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs share with userspace. Every layout is free of implicit
 * padding; a change here changes the ABI hash and with it the pin folder.
 */
#ifndef HEDGEROW_TYPES_H
#define HEDGEROW_TYPES_H

#include "kernel.h"

enum { MODE_MONITOR, MODE_ENFORCE };
enum { ACT_OBSERVE, ACT_RATE, ACT_SUSPEND, ACT_BLOCK, ACT_QUARANTINE };
enum { FROM_INSIDE, TO_INSIDE };
enum { EV_MILESTONE, EV_END, EV_FIRST_DROP, EV_FLOOD, EV_PROOF, EV_ANSWER, EV_VERDICT };
enum { END_OPEN, END_FIN, END_RST, END_IDLE, END_EVICTED };
enum { HINT_NONE, HINT_TLS, HINT_SSH, HINT_HTTP };
enum { CLASS_BLOCK, CLASS_OBSERVE };
enum {
	BAD_NONE, BAD_LINK, BAD_ETH, BAD_VLAN, BAD_PPPOE, BAD_IPV4, BAD_IPV4_LEN, BAD_IPV6, BAD_IPV6_LEN,
	BAD_EXT, BAD_FRAG, BAD_TCP, BAD_UDP, BAD_ICMP, N_BAD
};

#define FIRST 8		/* payload packets whose size and gap are kept */
#define NEVER_TUPLES 16

/* 16 bytes in network order; IPv4 as ::ffff:a.b.c.d. */
struct addr {
	__u64 hi, lo;
};

#define V4_LOW 0xffff0000ULL /* 00 00 ff ff, bytes 8 to 11 of an IPv4-mapped address */

/* Ports in host order, addresses ordered as in Go's flow.NewKey. See key_tail. */
struct flow_key {
	struct addr a, b;
	__u16 aport, bport;
	__u8 proto, pad[3];
};

/* flow.marks, of each direction */
#define M_SEQ 1		/* seq_high is set */
#define M_ISN 2		/* isn is set */
#define M_FIN 4		/* fin_end is set */
#define M_ACKED_FIN 8	/* this side acknowledged the other's FIN */
#define M_SENDER_IN 16	/* sender seen on the protected side */
#define M_RECEIVER_IN 32 /* receiver seen on the protected side */
#define M_DONE 0x8000	/* ACK numbers of this side tell no more, see answered() */
#define M_ISN_AT 64	/* shifted left by the hook: isn was seen there */

/* What each packet of a direction changes: one cache line. */
struct dir {
	__u64 bytes, payload, size_sq, gap_sq, last;
	__u32 packets, gap_max, seq_high;
	__u16 size_min, size_max, psh, retrans;
	__u8 flags, ttl, validated, pad;
};

/* What few packets of a direction change. */
struct rare {
	__u64 first, syn_at;
	__u32 isn, fin_end;
	__u16 syn, fin, rst, window;
};

/*
 * d[0] is the direction from the key's a to b; sizes are positive from a. The
 * first 16 bytes, one of d and nothing else are what most packets touch: in a
 * slot they begin where the key's cache line ends.
 */
struct flow {
	__u32 packets, clean;	/* clean: config.bulk of the set that lists neither end; 0: unknown */
	__u8 n_first, ended, init_b, init_sure;	/* init_sure: a pure SYN was seen */
	__u16 marks[2];
	struct dir d[2];
	struct rare r[2];
	__u64 id, start, last_payload;
	__u32 synack_us, ack_us;
	__u32 gaps[FIRST];
	__s16 sizes[FIRST];
	__u8 hint, own, pad[2];	/* own: the gateway's, at its outside */
	__u32 dropped;
};

/*
 * A place for one flow. seq is odd while somebody changes it, who then has it
 * for himself; a reader that finds the same even number before and after has
 * read what was there at one time.
 */
struct slot {
	__u32 seq;
	__u8 live, rank, held, pad;	/* held: there may be a hold of the flow, see score.h */
	struct flow_key key;
	struct flow flow;
	__u8 spare[40];
};

/*
 * A flow of one packet: all that is needed to count that packet later. Resets
 * that belong to no flow stay eggs: more counts those that followed and are
 * like the first, span is how long after it the last of them came, in us.
 */
struct egg {
	struct flow_key key;
	__u64 at, id;
	__u32 ip_len, hdr_len, payload, seq, first4, dropped;
	__u16 window;
	__u8 flags, ttl, from_b, hook, way;
	__u8 again;	/* marks that the same packet earned at another hook */
	__u32 more, span;
};

#define WAYS 12		/* slots of a bucket */
#define EGGS 4		/* eggs of a bucket */

/*
 * One cache line that says where flows may be: tags of the bucket's slots and
 * eggs, 0 for an empty one, and of each slot its rank (upper 3 bits) and when
 * it last had a packet (ticks of 2^30 ns). All of it are hints but seq, which
 * is the lock of the bucket's eggs and of who may make a flow here.
 */
struct bucket {
	__u32 seq;
	__u8 hand, next_egg, pad[2];
	__u16 tags[WAYS + EGGS];
	__u16 seen[WAYS];
};

/* Keys of the hash that chooses buckets; random, and as old as the table. */
struct seed {
	__u64 k[22];
};

/*
 * word and cover: action in the low 8 bits, expiry in the upper 56, in
 * microseconds of boot time, so that both change in one store. cover is that
 * of the covering prefix that lives longest, for when this one has expired.
 */
struct rule {
	__u64 word, cover;
	__u64 packets, bytes;
	__u64 tat;	/* rate limit: when the bucket will be full again */
	__u32 reason, cover_reason;
	__u32 rate, told; /* of a pair, rate is 1 when the inside host is its b */
};

struct rule_key {
	struct addr addr;
	__u16 port;
	__u8 proto, toward, pad[4];
};

/* Two addresses in the order of flow_key, whichever of them is inside. */
struct pair_key {
	struct addr a, b;
};

struct prefix_key {
	__u32 bits;	/* 32 for class and family, then those of the address */
	__u16 class, family;
	struct addr addr;
};

struct never_key {
	__u32 bits, family;
	struct addr addr;
};

struct never_tuple {
	__u16 port;
	__u8 proto, any_side;
};

struct never {
	__u32 n, pad;
	struct never_tuple t[NEVER_TUPLES];
};

/* Counts let the programs skip empty tables. */
struct config {
	__u64 swept;	/* flows that userspace deleted */
	__u32 mode, event_rate;
	__u32 flow_rules, addr_rules, service_rules, block_prefixes, observe_prefixes, nevers;
	__u32 pair_rules, toward_rules, remedies, names;
	__u32 bulk, fail_closed;	/* bulk: the bulk set, see BULK_SLOT; 0: there is none */
	__u32 most, hellos;	/* most: the longest packet of the link, where XDP is shown aggregates; 0: it is not */
	__u64 beat, dead_after;	/* us of boot time, us: when the daemon was last there, how long it may be away */
	__u32 scoring, spare;	/* scoring: the slot of the scorer plus one; 0: there is none */
};

struct counters {
	__u64 packets, bytes, dropped, would_drop, never_saved;
	__u64 flows_total, flows_ended, flows_evicted, flows_untracked, events_lost, later_fragments;
	__u64 orphaned;	/* new and unwatched, see orphaned(): dropped, or would have been */
	__u64 bad[N_BAD];
	__u64 event_tat;
	__u64 answer_tat, answers_lost;
	__u64 hello_tat[2], hellos_lost;
	__u64 tick;		/* the kernel's own, when seconds was read */
	__u32 seconds;		/* of boot time */
	__u32 listed;		/* of the last packets, see LISTED_ALL */
};

struct event {
	struct flow_key key;
	__u64 at;
	__u32 reason;
	__u8 kind, mode, end, pad;
	struct flow flow;
};

/* A DNS answer; told from an event by its size. */
#define DNS_MAX 1232 /* what resolvers agree on as the longest that is not cut up */
struct dns_answer {
	struct addr client, resolver;
	__u64 at;
	__u32 size, pad;
	__u8 message[DNS_MAX];
};

/* Payload that may hold a ClientHello, or a part of one; told apart by its size, too. */
#define HELLO_MAX 2048
struct hello_part {
	struct flow_key key;
	__u64 at;
	__u32 seq, size;
	__u8 first, pad[7];	/* first: of the flow's payload packets */
	__u8 bytes[HELLO_MAX];
};

/* What a scorer looks at, in the order of Go's score.Vector. */
enum {
	V_PROTO, V_SERVICE, V_CLIENT, V_INIT_INSIDE, V_RESP_INSIDE, V_INIT_PROVED, V_RESP_PROVED, V_HINT, V_DURATION,
	V_SYNACK, V_ACK, V_ANSWER, V_FIRSTS, V_UPLOAD_SHARE, V_PACKET_SHARE, V_SIZE1, V_GAP1 = V_SIZE1 + FIRST,
	V_DIR = V_GAP1 + FIRST
};
enum {
	D_PACKETS, D_PAYLOAD, D_SIZE_MEAN, D_SIZE_SPREAD, D_SIZE_MIN, D_SIZE_MAX, D_GAP_MEAN, D_GAP_MAX, D_GAP_SPREAD,
	D_RATE, D_SYN, D_FIN, D_RST, D_PSH, D_RETRANS, D_WINDOW, D_TTL, N_DIR
};
#define FEATURES (V_DIR + 2 * N_DIR)
#define NEGATIVES 32768	/* how far below zero a feature may be: see Go's score.Floor */
#define MILESTONES 5
enum { BY_ACTIVE, BY_TRIAL, SCORERS };
enum { OUT_ACTED, OUT_SHADOW, OUT_MONITOR, OUT_SPARED, OUT_CROWDED };

/* What one scorer says; written by the scorer's own program. */
struct opinion {
	__s32 score;
	__u32 action, version, pad;
	__u64 model[4];
};

/* The flow at hand and what is thought of it, then totals. Of each processor. */
struct scored {
	__u32 fill, v[FEATURES]; /* features that may be negative are higher by NEGATIVES; fill: so that first sizes and gaps lie in pairs */
	struct opinion by[SCORERS];
	__u32 milestone, slot, act, host_b;	/* act: where the program goes on that acts */
	__u64 due[8], done[8];
	__u64 verdicts[64];	/* at scorer << 5 | action << 3 | outcome */
	__u64 dropped, tat;
};

struct model {
	__u64 hash[4];
	__u32 version, there;
};

/* What goes with a scorer. */
struct scoring {
	__u64 key[4], below;	/* which hosts the trial decides for, see picks() */
	__u64 hold;		/* us */
	__u32 rate, reason, shadow, pad;
	struct model models[SCORERS];
};

/* A flow that a verdict suspends or limits; word as that of a rule. */
struct hold {
	__u64 word, tat, packets, bytes;
	__u32 rate, reason;
};

/* Told from other samples by its size. */
struct verdict {
	struct event e;
	__u64 model[4], until;
	__u32 version;
	__s32 score;
	__u8 trial, milestone, action, outcome, pad[4];
};

/* Where the rule that decided was found. */
enum { BY_NONE, BY_FLOW, BY_SERVICE_SRC, BY_SERVICE_DST, BY_PAIR, BY_SRC, BY_DST, BY_SRC_PREFIX, BY_DST_PREFIX, BY_TOWARD };

/* What the rules say of a packet; budgets has a bit for each BY_* that limits it. */
struct match {
	__u64 now;
	__u32 action, reason, by, told;
	__u32 budgets, pad;
};

/* Where a flow is, or may be: its buckets, and its slot or egg when found. */
struct spot {
	__u32 bucket[2];
	__u32 at;
	__u16 tag;
	__u8 side, way;
};

/* A packet as parsed, and what was found for it. */
#define HAVE_IP 1	/* addresses are known */
#define HAVE_L4 2	/* ports are known: may be accounted */
#define LATER_FRAG 4
#define PROVED 8	/* its sender just proved its address */
struct pkt {
	struct flow_key key;
	struct addr src, dst;
	__u32 ip_len, hdr_len, payload;
	__u32 seq, ack, first4;
	__u32 segs, mss;
	__u32 due, held;	/* due: the slot of the scorer that it is shown to plus one; held: its flow is, see score.h */
	__u32 linear;	/* bytes that can be read directly */
	__u16 l3, body;	/* where the IP header and the payload begin in the frame */
	__u16 sport, dport, window;
	__u8 proto, flags, ttl, from_b;
	__u8 icmp_type, icmp_code, have, bad, hook, answer;
	__u32 number;	/* that an answer carries */
	__u8 can_answer, way, show, pad;	/* show: see shows() */
	__u32 clean, look;	/* clean: as of its flow; look: see look_ahead() */
	struct match match;
	struct spot spot;
};

#endif
