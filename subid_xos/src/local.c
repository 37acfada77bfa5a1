/* SPDX-License-Identifier: Apache-2.0
 * The machine's own subordinate ids, from the files of subuid(5): once a module
 * is asked, nobody else looks at them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xos_subid.h"

/* A file that is longer is not read. */
#define MOST_BYTES (16 << 20)

enum answer lines_open(struct lines *l, enum kind kind)
{
	const char *path = kind == SUBUID ? "/etc/subuid" : "/etc/subgid";
	int fd = xos_high_fd(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
	struct stat st;
	size_t n = 0;

	*l = (struct lines){NULL, 0, NULL};
	if (fd < 0)
		return errno == ENOENT ? OK : FAILED;
	/* Who may write it decides whose ids anybody gets. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == 0 &&
	    (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 && st.st_size <= MOST_BYTES)
		l->text = malloc((size_t)st.st_size + 1);
	while (l->text != NULL && n < (size_t)st.st_size) {
		ssize_t k = read(fd, l->text + n, (size_t)st.st_size - n);

		if (k > 0) {
			n += (size_t)k;
		} else if (k == 0) {
			break;
		} else if (errno != EINTR) {
			free(l->text);
			l->text = NULL;
		}
	}
	close(fd);
	l->at = l->text;
	l->left = n;
	return l->text != NULL ? OK : FAILED;
}

/* Reads a number of digits alone, which no more than most. */
static int number(const char *s, size_t n, unsigned long most, unsigned long *v)
{
	size_t i;

	*v = 0;
	for (i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return 0;
		*v = *v * 10 + (unsigned long)(s[i] - '0');
		if (*v > most)
			return 0;
	}
	return n > 0;
}

static int parse(const char *s, size_t n, struct line *line)
{
	const char *first = memchr(s, ':', n), *second;

	if (first == NULL || first == s || memchr(s, 0, n) != NULL)
		return 0;
	line->owner = (struct xos_str){s, (uint32_t)(first - s)};
	n -= (size_t)(++first - s);
	second = memchr(first, ':', n);
	if (second == NULL)
		return 0;
	return number(first, (size_t)(second - first), HIGHEST, &line->range.start) &&
	       number(second + 1, n - (size_t)(second + 1 - first), HIGHEST, &line->range.count) &&
	       line->range.count > 0 && line->range.count - 1 <= HIGHEST - line->range.start;
}

int lines_next(struct lines *l, struct line *line)
{
	while (l->left > 0) {
		const char *s = l->at, *end = memchr(s, '\n', l->left);
		size_t n = end != NULL ? (size_t)(end - s) : l->left;

		l->at += n + (end != NULL);
		l->left -= n + (end != NULL);
		if (parse(s, n, line))
			return 1;
	}
	return 0;
}

void lines_close(struct lines *l)
{
	free(l->text);
	l->text = NULL;
	l->left = 0;
}

/* A user's uid by name; 0: there is none. */
static int named(const char *name, uid_t *uid)
{
	char buffer[4096];
	struct passwd pw, *p = NULL;

	if (getpwnam_r(name, &pw, buffer, sizeof buffer, &p) != 0 || p == NULL)
		return 0;
	*uid = p->pw_uid;
	return 1;
}

int uid_of(struct xos_str owner, uid_t *uid)
{
	char name[256];
	unsigned long v;

	if (number(owner.s, owner.len, HIGHEST, &v)) {
		*uid = (uid_t)v;
		return 1;
	}
	return owner.len < sizeof name && named(xos_str_copy(name, owner), uid);
}

int is_same_user(struct xos_str owner, const char *name)
{
	struct xos_str other = {name, (uint32_t)strlen(name)};
	unsigned long v;
	uid_t a, b;

	if (xos_str_is(owner, name))
		return 1;
	/* Two names are two users; only a number may be another word for one. */
	if (!number(owner.s, owner.len, HIGHEST, &v) && !number(name, other.len, HIGHEST, &v))
		return 0;
	return uid_of(owner, &a) && uid_of(other, &b) && a == b;
}
