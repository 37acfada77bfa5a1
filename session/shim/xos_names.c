/* SPDX-License-Identifier: Apache-2.0
 * The grammar of grid names: a name that does not follow it costs a host
 * process nothing but this. */
#include <string.h>

#include "xos_shim.h"

const struct xos_place xos_here = {XOS_SOCKET, XOS_SNAP_DIR, 0, NULL};

int xos_is_part(const char *s, size_t n)
{
	size_t i;

	if (n == 0 || n > XOS_MAX_NAME || s[0] < 'a' || s[0] > 'z')
		return 0;
	for (i = 1; i < n; i++)
		if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9') ||
		      s[i] == '_' || s[i] == '-' || s[i] == '.'))
			return 0;
	return s[n - 1] != '.' && s[n - 1] != '-';
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
