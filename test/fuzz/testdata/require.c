/* SPDX-License-Identifier: Apache-2.0
 * What must hold whatever the modules read. */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

#include "../../../session/shim/xos_shim.h"

void broken(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: this must hold: %s\n", file, line, what);
	abort();
}

void require_line(const char *text, int lines)
{
	for (; *text != '\0'; text++)
		require(((unsigned char)*text >= ' ' && *text != 0x7f) || (*text == '\n' && lines));
}

/* A string in the memory that the caller gave. */
static void require_field(const char *s, const char *mem, size_t n)
{
	require(s >= mem && s < mem + n && memchr(s, 0, (size_t)(mem + n - s)) != NULL);
	require_line(s, 0);
}

static int is_grid_id(uint32_t id)
{
	return id >= XOS_FIRST_ID && id <= XOS_LAST_ID;
}

void require_passwd(const struct passwd *pw, const char *mem, size_t n)
{
	const char *fields[] = {pw->pw_name, pw->pw_passwd, pw->pw_gecos, pw->pw_dir, pw->pw_shell};
	const char *vo;
	size_t i;

	for (i = 0; i < sizeof fields / sizeof *fields; i++) {
		require_field(fields[i], mem, n);
		require(strchr(fields[i], ':') == NULL);
	}
	require(is_grid_id(pw->pw_uid) && is_grid_id(pw->pw_gid) && xos_is_login(pw->pw_name, &vo));
	require(strcmp(pw->pw_passwd, "*") == 0);
}

void require_group(const struct group *gr, const char *mem, size_t n)
{
	char **member;
	const char *vo;
	size_t vo_len;
	int plain;

	require_field(gr->gr_name, mem, n);
	require_field(gr->gr_passwd, mem, n);
	require(is_grid_id(gr->gr_gid) && strcmp(gr->gr_passwd, "*") == 0);
	require(xos_is_group(gr->gr_name, &vo, &vo_len, &plain));
	for (member = gr->gr_mem;; member++) {
		require((char *)member >= mem && (char *)(member + 1) <= mem + n);
		if (*member == NULL)
			break;
		require_field(*member, mem, n);
		require(xos_is_login(*member, &vo));
	}
}
