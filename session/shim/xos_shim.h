/* SPDX-License-Identifier: Apache-2.0
 *
 * What the modules share: names, fields, the client of the session service and
 * the reader of snapshots. All of it is safe in any thread, after any fork and
 * after any change of user: it keeps nothing between calls but mapped
 * snapshots (xos_map.c), and those without a lock. None of it starts threads,
 * handles signals or waits without a deadline. Functions return 0, or -1 with
 * errno set, where nothing else is said.
 */
#ifndef XOS_SHIM_H
#define XOS_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "xos_wire.h"

/* Where the session service and the snapshots are, and whose they must be.
 * The modules use xos_here; only tests look elsewhere. */
struct xos_place {
	const char *socket;
	const char *snapshots;
	uid_t owner;
	struct xos_cache *cache; /* of snapshots from there, or NULL */
};
extern const struct xos_place xos_here; /* without a cache */

/* --- names (xos_names.c) ------------------------------------------------ */

/* Whether s[0..n) may be a user's, VO's or group's name. */
int xos_is_part(const char *s, size_t n);
/* Whether s follows the grammar of login names; *vo is then its VO. */
int xos_is_login(const char *s, const char **vo);
/* Whether s follows the grammar of group names. *vo and *vo_len are then its
 * VO, *plain whether it is a VO's name alone, and so could be a local group's
 * as well. */
int xos_is_group(const char *s, const char **vo, size_t *vo_len, int *plain);
int xos_is_id(uint32_t id);

/* --- fields (xos_fields.c) ---------------------------------------------- */

/* Writes fields into memory of the caller, of which the first XOS_HEADER bytes
 * are left for the header. What does not fit sets bad. */
struct xos_out {
	unsigned char *b;
	size_t len, cap;
	int bad;
};
void xos_out_init(struct xos_out *o, void *mem, size_t cap);
void xos_put_u32(struct xos_out *o, uint32_t v);
void xos_put_str(struct xos_out *o, const char *s); /* NULL is "" */

/* Reads fields; the first malformed one sets bad, after which all are empty. */
struct xos_in {
	const unsigned char *p;
	size_t left;
	int bad;
};
/* A string field, which has no end mark. */
struct xos_str {
	const char *s;
	uint32_t len;
};
#define XOS_STR(literal) {literal, sizeof literal - 1}
uint32_t xos_get_u32(struct xos_in *in);
uint32_t xos_get_id(struct xos_in *in); /* malformed unless a grid id */
struct xos_str xos_get_str(struct xos_in *in);
uint32_t xos_get_count(struct xos_in *in, uint32_t most);
int xos_in_end(const struct xos_in *in); /* 1: well-formed, nothing left */
static inline uint32_t xos_le32(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
/* Copies a string to memory of at least len + 1 bytes. */
char *xos_str_copy(char *to, struct xos_str s);
int xos_str_is(struct xos_str s, const char *c);

/* --- client (xos_client.c) ---------------------------------------------- */

struct xos_reply {
	uint32_t status;
	struct xos_in in;    /* the fields */
	unsigned char *body; /* their memory */
	int fd;              /* a descriptor that came along, or -1 */
};
/* Sends a request and waits at most `ms` for its reply. Whatever it returns,
 * xos_reply_free must follow; it closes fd unless that was set to -1. */
int xos_call(const struct xos_place *at, int op, struct xos_out *request, int ms,
             struct xos_reply *reply);
void xos_reply_free(struct xos_reply *reply);
/* The same; where there is a reply, the connection stays open on *line, which is
 * -1 otherwise. */
int xos_call_on(const struct xos_place *at, int op, struct xos_out *request, int ms,
                struct xos_reply *reply, int *line);
/* Says that no more comes, waits at most `ms` until the service has hung up too, and
 * closes the connection. */
void xos_hang_up(int line, int ms);

/* Moves a descriptor above the standard ones, of which the host may have
 * closed some; on failure it is closed. */
int xos_high_fd(int fd);

/* --- snapshots (xos_snapshot.c) ------------------------------------------ */

struct xos_record {
	uint32_t kind; /* XOS_SNAP_USER, XOS_SNAP_GROUP or XOS_SNAP_GONE */
	struct xos_in in;
	unsigned char *body;     /* its memory, or NULL: */
	struct xos_mapped *held; /* it is in this mapping */
};
enum xos_find {
	XOS_FOUND,
	XOS_MISS,   /* the VO's snapshot does not have it */
	XOS_ABSENT, /* there is no such snapshot */
	XOS_BARRED, /* this process may not read it */
	XOS_BROKEN, /* it is no snapshot, or cannot be read */
};
/* Looks for a name in its VO's snapshot, and for an id in all that this
 * process may read. What is found is a user or a group, and xos_record_free
 * must follow. */
enum xos_find xos_find_name(const struct xos_place *at, const char *vo, size_t vo_len,
                            const char *name, struct xos_record *r);
enum xos_find xos_find_id(const struct xos_place *at, uint32_t id, struct xos_record *r);
void xos_record_free(struct xos_record *r);

/* --- files of snapshots (xos_open.c) -------------------------------------- */

/* Where a file's indexes are; no slots: there is no file. */
struct xos_index {
	uint32_t slots, names, ids;
};
/* One file of a snapshot, in memory or open. */
struct xos_part {
	const unsigned char *p; /* or NULL, and then */
	int fd;
	size_t size;
	struct xos_index index;
};
/* A snapshot that was opened. Its rights are those of the newest file. */
struct xos_opened {
	struct xos_part head, base; /* base.index.slots is 0 if there is none */
	struct stat st;             /* of the head */
	uint64_t generation;        /* of the head */
	uint64_t based;             /* generation of the base, or 0 */
};
/* Whether all of b[0..n) could be read. */
int xos_read_at(const struct xos_part *f, void *b, size_t n, uint32_t offset);
/* Opens the newest file of a VO's snapshot, of which nothing is read yet;
 * xos_close must follow XOS_FOUND. */
enum xos_find xos_open(const struct xos_place *at, const char *vo, size_t vo_len,
                       struct xos_opened *o);
/* Reads what was opened, and opens the base that it names. XOS_ABSENT: another
 * one has taken its place meanwhile. */
enum xos_find xos_open_all(const struct xos_place *at, const char *vo, size_t vo_len,
                           struct xos_opened *o);
void xos_close(struct xos_opened *o);

/* --- mapped snapshots (xos_map.c) ---------------------------------------- */

/* How many snapshots are kept, and for how many milliseconds a mapping may
 * serve before the kernel is asked again whether this process may. */
#define XOS_CACHED 16
#define XOS_TRUSTED_MS 100
/* Groups that a process may have; one with more reads the files. */
#define XOS_OWN_GROUPS 128

/* A snapshot in memory. All but state, way and checked stay as they are while
 * one holds it. */
struct xos_mapped {
	uint32_t state;
	uint32_t way; /* which id gave the right to it last */
	unsigned long checked; /* when it was last opened, in milliseconds */
	struct xos_part head, base; /* base.p is NULL if there is none */
	dev_t dev;                  /* of the head's file, as what follows */
	ino_t ino;
	uid_t owner;
	gid_t group;
	uint64_t generation;
	size_t vo_len;
	char vo[XOS_MAX_NAME];
};
/* All zero, it is empty. */
struct xos_cache {
	uint32_t *fork; /* see xos_fork.c; NULL until something is mapped */
	uint32_t filling; /* whether a thread maps a snapshot */
	uint32_t turn;
	size_t bytes;
	struct xos_mapped mapped[XOS_CACHED];
};
/* Whose right a lookup goes by: the ids of the calling thread, each asked for
 * once and only if need be; nothing else counts while known is 0. */
struct xos_ids {
	unsigned known; /* a bit for each of xos_right.c's ways */
	int n;
	uid_t user;
	gid_t group, groups[XOS_OWN_GROUPS];
};

/* Gives a VO's mapping, or the one at a place: one that its writer has not
 * given up and that the caller has the right to read. NULL if there is none;
 * xos_let_go must follow otherwise. */
struct xos_mapped *xos_hold(struct xos_cache *c, const char *vo, size_t vo_len,
                            struct xos_ids *who);
struct xos_mapped *xos_hold_at(struct xos_cache *c, unsigned i, struct xos_ids *who);
void xos_let_go(struct xos_mapped *m);
/* Whether it was opened so lately that it need not be now. */
int xos_is_fresh(const struct xos_mapped *m);
/* Whether st, of the file opened just now, is that of the mapping, which is
 * then fresh; otherwise nobody gets it any more. */
int xos_is_same(struct xos_mapped *m, const struct stat *st);
/* Maps a snapshot and holds it; NULL if that is not possible or wise. */
struct xos_mapped *xos_keep(struct xos_cache *c, const struct xos_opened *o, const char *vo,
                            size_t vo_len, struct xos_ids *who);
/* Takes back what is held by threads that this process does not have. Nobody
 * else may be at the cache. */
void xos_take_back(struct xos_cache *c);

/* --- rights (xos_right.c) ------------------------------------------------- */

/* Whether these ids give the right to read the mapping's file. */
int xos_has_right(struct xos_mapped *m, struct xos_ids *who);

/* --- files in memory (xos_part.c) ----------------------------------------- */

/* Maps the file that is open in f, if there is one, in place of what `to` has;
 * 0 if that fails, and then it has nothing. */
int xos_part_map(struct xos_cache *c, struct xos_part *to, const struct xos_part *f);
void xos_part_unmap(struct xos_cache *c, struct xos_part *f);

/* --- forks (xos_fork.c) --------------------------------------------------- */

/* Whether the cache can be used: what was held when this process was forked
 * has been taken back. The caller holds nothing of it. */
int xos_is_settled(struct xos_cache *c);
/* The same, for a cache that has not been used yet too. */
int xos_settle(struct xos_cache *c);

#endif
