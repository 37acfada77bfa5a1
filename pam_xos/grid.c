/* SPDX-License-Identifier: Apache-2.0
 * Who is a grid user, and how the session service is asked about her. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "pam_xos.h"

int grid_user(pam_handle_t *pamh, const char **user)
{
	struct passwd *pw;
	const char *vo;
	int rc = pam_get_user(pamh, user, NULL);

	if (rc != PAM_SUCCESS)
		return rc;
	if (*user == NULL || !xos_is_login(*user, &vo))
		return PAM_IGNORE;
	pw = pam_modutil_getpwnam(pamh, *user);
	if (pw != NULL && !xos_is_id(pw->pw_uid))
		return PAM_IGNORE;
	return PAM_SUCCESS;
}

static void put_item(pam_handle_t *pamh, int item, struct xos_out *q)
{
	const void *value = NULL;

	if (pam_get_item(pamh, item, &value) != PAM_SUCCESS)
		value = NULL;
	xos_put_str(q, value);
}

void request_start(pam_handle_t *pamh, const char *user, struct xos_out *q)
{
	xos_out_init(q, malloc(XOS_HEADER + XOS_MAX_BODY), XOS_HEADER + XOS_MAX_BODY);
	xos_put_str(q, user);
	put_item(pamh, PAM_SERVICE, q);
	put_item(pamh, PAM_RHOST, q);
	put_item(pamh, PAM_TTY, q);
}

void request_free(struct xos_out *q)
{
	if (q->b != NULL)
		explicit_bzero(q->b, q->len); /* there may be a password in it */
	free(q->b);
	q->b = NULL;
}

/* Copies a message of the session service to memory of XOS_MAX_MESSAGE + 1
 * bytes, without what could command a terminal or forge a line of a log. */
static const char *legible(char *line, struct xos_str text, int lines)
{
	uint32_t i;

	if (text.len > XOS_MAX_MESSAGE)
		text.len = XOS_MAX_MESSAGE;
	xos_str_copy(line, text);
	for (i = 0; i < text.len; i++)
		if (((unsigned char)line[i] < ' ' && (line[i] != '\n' || !lines)) || line[i] == 0x7f)
			line[i] = '?';
	return line;
}

void show(pam_handle_t *pamh, int flags, int style, struct xos_str text)
{
	char line[XOS_MAX_MESSAGE + 1];

	if (text.len > 0 && (flags & PAM_SILENT) == 0)
		pam_prompt(pamh, style, NULL, "%s", legible(line, text, 1));
}

void malformed(pam_handle_t *pamh, const char *user)
{
	pam_syslog(pamh, LOG_ERR, "%s: malformed reply of the session service", user);
}

int consult(pam_handle_t *pamh, int flags, const char *user, int op, struct xos_out *q, int ms,
            struct xos_reply *reply)
{
	int line, status = consult_on(pamh, flags, user, op, q, ms, reply, &line);

	if (line >= 0)
		close(line);
	return status;
}

int consult_on(pam_handle_t *pamh, int flags, const char *user, int op, struct xos_out *q, int ms,
               struct xos_reply *reply, int *line)
{
	static const struct xos_str down =
		XOS_STR("the session service of this machine (xos-node) does not answer: try again "
	                "in a minute, then tell the administrator");
	char why[XOS_MAX_MESSAGE + 1];
	struct xos_in in;
	struct xos_str text;

	if (xos_call_on(&xos_here, op, q, ms, reply, line) < 0) {
		pam_syslog(pamh, LOG_ERR, "%s: session service: %s", user, strerror(errno));
		show(pamh, flags, PAM_ERROR_MSG, down);
		return -1;
	}
	if (reply->status == XOS_ST_OK)
		return XOS_ST_OK;
	in = reply->in;
	text = xos_get_str(&in);
	if (!xos_in_end(&in)) {
		malformed(pamh, user);
		return -1;
	}
	pam_syslog(pamh, LOG_NOTICE, "%s: refused, status %u: %s", user, reply->status,
	           legible(why, text, 0));
	show(pamh, flags, PAM_ERROR_MSG, text);
	return reply->status > XOS_ST_INTERNAL ? XOS_ST_INTERNAL : (int)reply->status;
}
