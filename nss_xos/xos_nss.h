/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NSS_XOS_H
#define NSS_XOS_H

#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>

#include "../session/shim/xos_shim.h"

/* Where the next answer's strings go: the memory that the caller of getpwnam_r
 * and its like gave. */
struct room {
	char *p;
	size_t left;
};
/* A string with its end mark, or NULL when the room is too small. */
char *room_str(struct room *r, struct xos_str s);
/* n pointers, aligned, or NULL. */
char **room_ptrs(struct room *r, size_t n);

/* Translate fields into the caller's struct: success, TRYAGAIN with *err
 * ERANGE where the room is too small, or UNAVAIL with EPROTO where the fields
 * are not what they should be. is_known: the name is one that was looked for,
 * letter by letter, and so a login name. */
enum nss_status fill_passwd(struct xos_in *in, int is_known, struct passwd *pw, struct room r,
                            int *err);
enum nss_status fill_group(struct xos_in *in, struct group *gr, struct room r, int *err);
/* The private group of the user whose passwd fields these are; a user of
 * another gid than the uid has none. */
enum nss_status fill_private(struct xos_in *in, struct group *gr, struct room r, int *err);

/* Whether a string can stand in a line of fields between colons. */
int is_line(struct xos_str s);

/* What to answer when the snapshots did not have it: ask the session service,
 * which is for root only (everyone else's answers are in the snapshots), or a
 * final status. */
enum next { ASK, NOT_FOUND, UNAVAILABLE };
enum next after(enum xos_find f, int local_too);

/* Sends a request. On success the reply's fields are there to be read; in any
 * case xos_reply_free must follow. */
enum nss_status ask(const struct xos_place *at, int op, struct xos_out *request,
                    struct xos_reply *reply, int *err);

/* xos_here, with this process's cache of snapshots. */
extern const struct xos_place here;

/* Lookups proper; the exported functions call them with here. */
enum nss_status passwd_by_name(const struct xos_place *at, const char *name, struct passwd *pw,
                               struct room r, int *err);
enum nss_status passwd_by_id(const struct xos_place *at, uid_t uid, struct passwd *pw,
                             struct room r, int *err);
enum nss_status group_by_name(const struct xos_place *at, const char *name, struct group *gr,
                              struct room r, int *err);
enum nss_status group_by_id(const struct xos_place *at, gid_t gid, struct group *gr, struct room r,
                            int *err);

/* A growing list of gids, as initgroups_dyn is given one. */
struct gids {
	gid_t **list;
	long *used, *size, limit;
};
enum nss_status groups_of(const struct xos_place *at, const char *name, gid_t primary,
                          struct gids out, int *err);

/* Every exported function runs between these two: the host's errno survives a
 * success, *errnop (which is errno itself in glibc) is set otherwise, and a
 * cancelled thread leaves no descriptor open. */
struct entry {
	int saved, cancel;
};
struct entry enter(void);
enum nss_status leave(struct entry e, enum nss_status s, int err, int *errnop);

#define EXPORT __attribute__((visibility("default")))

#endif
