/* SPDX-License-Identifier: Apache-2.0
 * What all lookups have in common: entering and leaving, the caller's memory,
 * and when to ask the session service. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "xos_nss.h"

static struct xos_cache cache;
const struct xos_place here = {XOS_SOCKET, XOS_SNAP_DIR, 0, &cache};

struct entry enter(void)
{
	struct entry e = {errno, 0};

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &e.cancel);
	return e;
}

enum nss_status leave(struct entry e, enum nss_status s, int err, int *errnop)
{
	pthread_setcancelstate(e.cancel, NULL);
	errno = e.saved;
	if (s != NSS_STATUS_SUCCESS)
		*errnop = err;
	return s;
}

char *room_str(struct room *r, struct xos_str s)
{
	char *to = r->p;

	if (r->left <= s.len)
		return NULL;
	r->p += s.len + 1;
	r->left -= s.len + 1;
	return xos_str_copy(to, s);
}

char **room_ptrs(struct room *r, size_t n)
{
	size_t pad = -(uintptr_t)r->p % sizeof(char *);
	char **to;

	if (r->left < pad || (r->left - pad) / sizeof(char *) < n)
		return NULL;
	to = (char **)(void *)(r->p + pad);
	r->p += pad + n * sizeof(char *);
	r->left -= pad + n * sizeof(char *);
	return to;
}

int is_line(struct xos_str s)
{
	uint32_t i;

	for (i = 0; i < s.len; i++)
		if ((unsigned char)s.s[i] < ' ' || s.s[i] == ':' || s.s[i] == 0x7f)
			return 0;
	return 1;
}

enum next after(enum xos_find f, int local_too)
{
	/* Local group names look like VOs' names. The machine has a snapshot for
	 * each VO that it serves, so that without one a name is a local group's,
	 * and not worth a question. */
	if (f == XOS_ABSENT && local_too)
		return NOT_FOUND;
	if (geteuid() == 0)
		return ASK;
	return f == XOS_BROKEN ? UNAVAILABLE : NOT_FOUND;
}

enum nss_status ask(const struct xos_place *at, int op, struct xos_out *request,
                    struct xos_reply *reply, int *err)
{
	if (xos_call(at, op, request, XOS_LOOKUP_MS, reply) < 0) {
		*err = errno;
		/* TRYAGAIN is what glibc makes of EAGAIN, and hosts repeat it. */
		if (*err == EAGAIN || *err == ERANGE)
			*err = ETIMEDOUT;
		return NSS_STATUS_UNAVAIL;
	}
	switch (reply->status) {
	case XOS_ST_OK:
		return NSS_STATUS_SUCCESS;
	case XOS_ST_NOTFOUND:
	case XOS_ST_DENIED:
	case XOS_ST_EXPIRED:
	case XOS_ST_INVALID:
		*err = ENOENT;
		return NSS_STATUS_NOTFOUND;
	}
	*err = EIO;
	return NSS_STATUS_UNAVAIL;
}
