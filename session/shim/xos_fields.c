/* SPDX-License-Identifier: Apache-2.0
 * Fields of messages and of snapshots' records. */
#include <string.h>

#include "xos_shim.h"

void xos_out_init(struct xos_out *o, void *mem, size_t cap)
{
	o->b = mem;
	o->cap = cap;
	o->len = XOS_HEADER;
	o->bad = mem == NULL || cap < XOS_HEADER;
}

static void put(struct xos_out *o, const void *p, size_t n)
{
	if (o->bad || n > o->cap - o->len) {
		o->bad = 1;
		return;
	}
	memcpy(o->b + o->len, p, n);
	o->len += n;
}

void xos_put_u32(struct xos_out *o, uint32_t v)
{
	unsigned char b[4] = {(unsigned char)v, (unsigned char)(v >> 8),
	                      (unsigned char)(v >> 16), (unsigned char)(v >> 24)};

	put(o, b, sizeof b);
}

void xos_put_str(struct xos_out *o, const char *s)
{
	size_t n = s != NULL ? strnlen(s, XOS_MAX_BODY + 1) : 0;

	xos_put_u32(o, (uint32_t)n);
	if (n > 0)
		put(o, s, n);
}

static const unsigned char *take(struct xos_in *in, size_t n)
{
	const unsigned char *p = in->p;

	if (in->bad || n > in->left) {
		in->bad = 1;
		return NULL;
	}
	in->p += n;
	in->left -= n;
	return p;
}

uint32_t xos_get_u32(struct xos_in *in)
{
	const unsigned char *p = take(in, 4);

	return p != NULL ? xos_le32(p) : 0;
}

uint32_t xos_get_id(struct xos_in *in)
{
	uint32_t id = xos_get_u32(in);

	if (!xos_is_id(id))
		in->bad = 1;
	return id;
}

struct xos_str xos_get_str(struct xos_in *in)
{
	struct xos_str s = {"", 0};
	uint32_t n = xos_get_u32(in);
	const unsigned char *p = take(in, n);

	if (p == NULL)
		return s;
	if (n > 0 && memchr(p, 0, n) != NULL) {
		in->bad = 1;
		return s;
	}
	s.s = (const char *)p;
	s.len = n;
	return s;
}

uint32_t xos_get_count(struct xos_in *in, uint32_t most)
{
	uint32_t n = xos_get_u32(in);

	/* An item has at least four bytes, so a count never promises more than
	 * there can be. */
	if (n > most || n > in->left / 4) {
		in->bad = 1;
		return 0;
	}
	return n;
}

int xos_in_end(const struct xos_in *in)
{
	return !in->bad && in->left == 0;
}

char *xos_str_copy(char *to, struct xos_str s)
{
	memcpy(to, s.s, s.len);
	to[s.len] = '\0';
	return to;
}

int xos_str_is(struct xos_str s, const char *c)
{
	return strlen(c) == s.len && memcmp(c, s.s, s.len) == 0;
}
