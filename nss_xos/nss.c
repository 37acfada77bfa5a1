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

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))
/* Not 0 if one of a word's bytes is less than n, which is at most 128. */
#define ANY_LESS(word, n) (((word) - EACH(n)) & ~(word) & EACH(128))

/* Not 0 if one of eight characters cannot stand in a line. */
static uint64_t is_strange(const char *s)
{
	uint64_t word;

	memcpy(&word, s, sizeof word);
	return ANY_LESS(word, ' ') | ANY_LESS(word ^ EACH(':'), 1) | ANY_LESS(word ^ EACH(0x7f), 1);
}

int is_line(struct xos_str s)
{
	char few[8] = "xxxxxxxx";
	uint64_t strange = 0;
	uint32_t i;

	if (s.len < sizeof few) {
		for (i = 0; i < s.len; i++)
			few[i] = s.s[i];
		return is_strange(few) == 0;
	}
	for (i = 0; i < s.len - sizeof few; i += sizeof few)
		strange |= is_strange(s.s + i);
	return (strange | is_strange(s.s + s.len - sizeof few)) == 0;
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
