/* SPDX-License-Identifier: Apache-2.0
 * See principals.go for what this is. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "../../session/shim/xos_shim.h"

#ifndef XOS_RELEASE
#define XOS_RELEASE "dev"
#endif

/* Writes at most `most` bytes of a text in quotes, so that it can neither end
 * the line it stands in nor speak to a terminal. */
static void quote(char *to, size_t room, const char *s, size_t most)
{
	static const char hex[] = "0123456789abcdef";
	char *end = to + room - 8; /* the longest escape, a quote, a NUL */

	*to++ = '"';
	for (; *s != '\0' && most > 0 && to < end; s++, most--) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\') {
			*to++ = '\\';
			*to++ = (char)c;
		} else if (c == '\n') {
			*to++ = '\\';
			*to++ = 'n';
		} else if (c < ' ' || c > '~') {
			*to++ = '\\';
			*to++ = 'x';
			*to++ = hex[c >> 4];
			*to++ = hex[c & 15];
		} else {
			*to++ = (char)c;
		}
	}
	*to++ = '"';
	*to = '\0';
}

/* Ends the program, with the reason in the log: nobody is let in. */
static void __attribute__((noreturn, format(printf, 3, 4)))
refuse(int priority, const char *user, const char *format, ...)
{
	char who[512], why[XOS_MAX_MESSAGE + 256];
	unsigned char *p;
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	for (p = (unsigned char *)why; *p != '\0'; p++)
		if (*p < ' ' || *p == 0x7f)
			*p = ' ';
	quote(who, sizeof who, user, 80);
	openlog("xos-principals", LOG_PID, LOG_AUTH);
	syslog(priority, "%s refused: %s", who, why);
	exit(1);
}

/* The service's own words about a refusal. */
static void __attribute__((noreturn)) refused(const char *user, struct xos_reply *reply)
{
	char text[XOS_MAX_MESSAGE + 1];
	struct xos_str s = xos_get_str(&reply->in);

	if (!xos_in_end(&reply->in) || s.len > XOS_MAX_MESSAGE)
		refuse(LOG_ERR, user, "malformed reply of the session service");
	xos_str_copy(text, s);
	switch (reply->status) {
	case XOS_ST_NOTFOUND:
	case XOS_ST_DENIED:
	case XOS_ST_INVALID:
	case XOS_ST_NOTSUPPORTED:
	case XOS_ST_EXPIRED:
		refuse(LOG_INFO, user, "%s", text);
	default:
		refuse(LOG_ERR, user, "%s", text);
	}
}

int main(int argc, char **argv)
{
	static unsigned char memory[XOS_HEADER + XOS_MAX_BODY];
	struct xos_out request;
	struct xos_reply reply;
	struct xos_str principal;
	const char *user, *vo;

	if (argc == 2 && strcmp(argv[1], "-version") == 0)
		return puts(XOS_RELEASE) < 0 || fflush(stdout) != 0;
	if (argc != 4) {
		fputs("usage: xos-principals USER KEYTYPE KEY\n", stderr);
		return 64;
	}
	user = argv[1];
	if (!xos_is_login(user, &vo))
		refuse(LOG_INFO, user, "no such name");
	xos_out_init(&request, memory, sizeof memory);
	xos_put_str(&request, user);
	xos_put_str(&request, argv[2]);
	xos_put_str(&request, argv[3]);
	if (request.bad)
		refuse(LOG_INFO, user, "its key of %zu bytes cannot be sent", strlen(argv[3]));
	if (xos_call(&xos_here, XOS_OP_PRINCIPALS, &request, XOS_ACCOUNT_MS, &reply) < 0)
		refuse(LOG_ERR, user, "no answer from the session service (xos-node): %s", strerror(errno));
	if (reply.status != XOS_ST_OK)
		refused(user, &reply);

	/* The user's own name and never another: each line that sshd reads lets
	 * in, and may hold options. */
	principal = xos_get_str(&reply.in);
	if (!xos_in_end(&reply.in))
		refuse(LOG_ERR, user, "malformed reply of the session service");
	if (!xos_str_is(principal, user)) {
		char text[256], quoted[512];

		if (principal.len > 80)
			principal.len = 80;
		xos_str_copy(text, principal);
		quote(quoted, sizeof quoted, text, 80);
		refuse(LOG_ERR, user, "the session service gave the principal %s", quoted);
	}
	if (puts(user) < 0 || fflush(stdout) != 0)
		refuse(LOG_ERR, user, "printing the principal: %s", strerror(errno));
	return 0;
}
