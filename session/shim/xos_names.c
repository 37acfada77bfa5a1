/* SPDX-License-Identifier: Apache-2.0
 * The grammar of grid names: a name that does not follow it costs a host
 * process nothing but this. */
#include <string.h>

#include "xos_shim.h"

const struct xos_place xos_here = {XOS_SOCKET, XOS_SNAP_DIR, 0, NULL};

/* Where in a part of a name a character may stand. */
#define FIRST 1
#define INSIDE 2
#define LAST 4
static const unsigned char places[256] = {
	['a' ... 'z'] = FIRST | INSIDE | LAST,
	['0' ... '9'] = INSIDE | LAST,
	['_'] = INSIDE | LAST,
	['-'] = INSIDE,
	['.'] = INSIDE,
};

int xos_is_part(const char *s, size_t n)
{
	const unsigned char *c = (const unsigned char *)s;
	unsigned all = INSIDE;
	size_t i;

	if (n == 0 || n > XOS_MAX_NAME)
		return 0;
	for (i = 0; i < n; i++)
		all &= places[c[i]];
	return all != 0 && (places[c[0]] & FIRST) != 0 && (places[c[n - 1]] & LAST) != 0;
}

static int is_reserved(const char *s, size_t n)
{
	static const char names[][12] = XOS_RESERVED;
	size_t i;

	if (n >= sizeof *names)
		return 0;
	for (i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i][0] == s[0] && names[i][n] == '\0' && memcmp(names[i], s, n) == 0)
			return 1;
	return 0;
}

int xos_is_login(const char *s, const char **vo)
{
	size_t n = strnlen(s, 2 * XOS_MAX_NAME + 2);
	const char *at = memchr(s, '@', n);

	if (at == NULL || !xos_is_part(s, (size_t)(at - s)) || is_reserved(s, (size_t)(at - s)))
		return 0;
	*vo = at + 1;
	return xos_is_part(*vo, n - (size_t)(*vo - s));
}

int xos_is_group(const char *s, const char **vo, size_t *vo_len, int *plain)
{
	size_t n = strnlen(s, 2 * XOS_MAX_NAME + 2);
	const char *colon = memchr(s, ':', n);

	*plain = 0;
	if (xos_is_login(s, vo)) {
		*vo_len = strlen(*vo);
		return 1;
	}
	*vo = s;
	*vo_len = colon != NULL ? (size_t)(colon - s) : n;
	*plain = colon == NULL;
	if (!xos_is_part(s, *vo_len) || is_reserved(s, *vo_len))
		return 0;
	return colon == NULL || xos_is_part(colon + 1, n - *vo_len - 1);
}

int xos_is_id(uint32_t id)
{
	return id >= XOS_FIRST_ID && id <= XOS_LAST_ID;
}
