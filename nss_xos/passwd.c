/* SPDX-License-Identifier: Apache-2.0
 * The map "passwd": grid users by name and by uid. */
#include <string.h>

#include "xos_nss.h"

enum nss_status fill_passwd(struct xos_in *in, int is_known, struct passwd *pw, struct room r,
                            int *err)
{
	/* No password opens it, and there is no shadow entry to look for. */
	static const struct xos_str locked = XOS_STR("*");
	struct xos_str name = xos_get_str(in), gecos, home, shell;
	const char *vo;

	pw->pw_uid = xos_get_id(in);
	pw->pw_gid = xos_get_id(in);
	gecos = xos_get_str(in);
	home = xos_get_str(in);
	shell = xos_get_str(in);
	if (in->bad || !is_line(gecos) || !is_line(home) || !is_line(shell)) {
		*err = EPROTO;
		return NSS_STATUS_UNAVAIL;
	}
	pw->pw_name = room_str(&r, name);
	pw->pw_passwd = room_str(&r, locked);
	pw->pw_gecos = room_str(&r, gecos);
	pw->pw_dir = room_str(&r, home);
	pw->pw_shell = room_str(&r, shell);
	if (pw->pw_name == NULL || pw->pw_passwd == NULL || pw->pw_gecos == NULL ||
	    pw->pw_dir == NULL || pw->pw_shell == NULL) {
		*err = ERANGE;
		return NSS_STATUS_TRYAGAIN;
	}
	if (!is_known && !xos_is_login(pw->pw_name, &vo)) {
		*err = EPROTO;
		return NSS_STATUS_UNAVAIL;
	}
	return NSS_STATUS_SUCCESS;
}

/* Fills pw from a snapshot's record, which it frees. */
static enum nss_status from_record(struct xos_record *rec, int is_known, struct passwd *pw,
                                   struct room r, int *err)
{
	enum nss_status s = NSS_STATUS_NOTFOUND;

	*err = ENOENT;
	if (rec->kind == XOS_SNAP_USER)
		s = fill_passwd(&rec->in, is_known, pw, r, err);
	xos_record_free(rec);
	return s;
}

/* Fills pw from the session service's answer about `name`, or about `uid`
 * where there is no name. */
static enum nss_status from_service(const struct xos_place *at, int op, const char *name,
                                    uid_t uid, struct passwd *pw, struct room r, int *err)
{
	unsigned char mem[128];
	struct xos_reply reply;
	struct xos_out q;
	enum nss_status s;

	xos_out_init(&q, mem, sizeof mem);
	if (name != NULL)
		xos_put_str(&q, name);
	else
		xos_put_u32(&q, uid);
	s = ask(at, op, &q, &reply, err);
	if (s == NSS_STATUS_SUCCESS) {
		s = fill_passwd(&reply.in, 0, pw, r, err);
		if (s == NSS_STATUS_SUCCESS &&
		    (!xos_in_end(&reply.in) ||
		     (name != NULL ? strcmp(pw->pw_name, name) != 0 : pw->pw_uid != uid))) {
			s = NSS_STATUS_UNAVAIL;
			*err = EPROTO;
		}
	}
	xos_reply_free(&reply);
	return s;
}

enum nss_status passwd_by_name(const struct xos_place *at, const char *name, struct passwd *pw,
                               struct room r, int *err)
{
	struct xos_record rec;
	const char *vo;
	enum xos_find f;

	*err = ENOENT;
	if (!xos_is_login(name, &vo))
		return NSS_STATUS_NOTFOUND;
	f = xos_find_name(at, vo, strlen(vo), name, &rec);
	if (f == XOS_FOUND)
		return from_record(&rec, 1, pw, r, err);
	switch (after(f, 0)) {
	case ASK:
		return from_service(at, XOS_OP_GETPWNAM, name, 0, pw, r, err);
	case UNAVAILABLE:
		return NSS_STATUS_UNAVAIL;
	default:
		return NSS_STATUS_NOTFOUND;
	}
}

enum nss_status passwd_by_id(const struct xos_place *at, uid_t uid, struct passwd *pw,
                             struct room r, int *err)
{
	struct xos_record rec;
	enum xos_find f;

	*err = ENOENT;
	if (!xos_is_id(uid))
		return NSS_STATUS_NOTFOUND;
	f = xos_find_id(at, uid, &rec);
	if (f == XOS_FOUND)
		return from_record(&rec, 0, pw, r, err);
	switch (after(f, 0)) {
	case ASK:
		return from_service(at, XOS_OP_GETPWUID, NULL, uid, pw, r, err);
	case UNAVAILABLE:
		return NSS_STATUS_UNAVAIL;
	default:
		return NSS_STATUS_NOTFOUND;
	}
}

EXPORT enum nss_status _nss_xos_getpwnam_r(const char *name, struct passwd *pw, char *buf,
                                           size_t len, int *errnop)
{
	struct entry e = enter();
	int err;
	enum nss_status s = passwd_by_name(&here, name, pw, (struct room){buf, len}, &err);

	return leave(e, s, err, errnop);
}

EXPORT enum nss_status _nss_xos_getpwuid_r(uid_t uid, struct passwd *pw, char *buf, size_t len,
                                           int *errnop)
{
	struct entry e = enter();
	int err;
	enum nss_status s = passwd_by_id(&here, uid, pw, (struct room){buf, len}, &err);

	return leave(e, s, err, errnop);
}
