/* SPDX-License-Identifier: Apache-2.0
 * Session: hands the certificate to the session service, which opens the
 * session, and enters the mount namespace that it made for it.
 *
 * A failure here does not end an ssh connection, nor sudo, so the session service
 * ends the login process itself when it refuses, and gives no rights before. It
 * lets this module show why, which says so by hanging up: the host program goes on
 * only where the service wants no end of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* setns */
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "pam_xos.h"

#define DATA "xos_session"
#define MAX_ENV 64
#define MAX_ID 256

static void forget(pam_handle_t *pamh UNUSED, void *data, int status UNUSED)
{
	free(data);
}

static int is_setting(struct xos_str s)
{
	const char *eq = memchr(s.s, '=', s.len);

	return eq != NULL && eq != s.s;
}

int read_open_reply(struct xos_reply *r, struct opened *o)
{
	struct xos_str id = xos_get_str(&r->in);
	uint32_t i;

	o->id = NULL;
	o->n_env = xos_get_count(&r->in, MAX_ENV);
	o->env = r->in;
	for (i = 0; i < o->n_env; i++)
		if (!is_setting(xos_get_str(&r->in)))
			return 0;
	o->message = xos_get_str(&r->in);
	o->descriptors = xos_get_u32(&r->in);
	if (!xos_in_end(&r->in) || id.len == 0 || id.len > MAX_ID || o->descriptors > 1 ||
	    (o->descriptors == 1) != (r->fd >= 0))
		return 0;
	o->id = malloc((size_t)id.len + 1);
	if (o->id == NULL)
		return 0;
	xos_str_copy(o->id, id);
	return 1;
}

/* Enters the IPC namespace that a session's mount namespace has in it, and on
 * which it is mounted; there is none where the guard made none. */
static int enter_ipc(void)
{
	int fd = open(XOS_IPC, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int rc;

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	rc = setns(fd, CLONE_NEWIPC);
	close(fd);
	return rc;
}

/* Enters the namespace; the working directory stays where it was by name, if
 * that is to be found there. */
static int enter_namespace(int fd)
{
	char cwd[PATH_MAX];
	int have = getcwd(cwd, sizeof cwd) != NULL && cwd[0] == '/';

	if (setns(fd, CLONE_NEWNS) != 0 || enter_ipc() != 0)
		return -1;
	if (have && chdir(cwd) == 0)
		return 0;
	return chdir("/");
}

static int set_environment(pam_handle_t *pamh, struct opened *o)
{
	uint32_t i;

	for (i = 0; i < o->n_env; i++) {
		struct xos_str s = xos_get_str(&o->env);
		char *line = malloc((size_t)s.len + 1);
		int rc = line != NULL ? pam_putenv(pamh, xos_str_copy(line, s)) : PAM_BUF_ERR;

		free(line);
		if (rc != PAM_SUCCESS)
			return rc;
	}
	return PAM_SUCCESS;
}

static int close_it(pam_handle_t *pamh, int flags, const char *user, const char *id)
{
	unsigned char mem[512];
	struct xos_reply reply;
	struct xos_out q;
	int status;

	xos_out_init(&q, mem, sizeof mem);
	xos_put_str(&q, id);
	status = consult(pamh, flags, user, XOS_OP_PAM_CLOSE, &q, XOS_CLOSE_MS, &reply);
	xos_reply_free(&reply);
	return status == XOS_ST_OK ? PAM_SUCCESS : PAM_SESSION_ERR;
}

/* Makes the opened session this process's, or closes it again. */
static int adopt(pam_handle_t *pamh, int flags, const char *user, struct opened *o, int fd)
{
	const void *former;
	int rc;

	if (o->descriptors == 1 && enter_namespace(fd) != 0) {
		pam_syslog(pamh, LOG_ERR, "%s: entering the session's namespace: %s", user,
		           strerror(errno));
		rc = PAM_SESSION_ERR;
	} else {
		rc = set_environment(pamh, o);
	}
	/* Of two that a program opens it closes one: the first ends here. */
	if (rc == PAM_SUCCESS && pam_get_data(pamh, DATA, &former) == PAM_SUCCESS && former != NULL)
		close_it(pamh, flags | PAM_SILENT, user, former);
	if (rc == PAM_SUCCESS)
		rc = pam_set_data(pamh, DATA, o->id, forget);
	if (rc != PAM_SUCCESS) {
		close_it(pamh, flags | PAM_SILENT, user, o->id);
		free(o->id);
		return PAM_SESSION_ERR;
	}
	show(pamh, flags, PAM_TEXT_INFO, o->message);
	return PAM_SUCCESS;
}

EXPORT int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc UNUSED,
                               const char **argv UNUSED)
{
	struct xos_reply reply;
	struct opened o;
	struct xos_out q;
	const char *user;
	int line, status, rc = grid_user(pamh, &user);

	if (rc != PAM_SUCCESS)
		return rc;
	request_start(pamh, user, &q);
	xos_put_str(&q, pam_getenv(pamh, "SSH_AUTH_INFO_0"));
	rc = PAM_SESSION_ERR;
	status = consult_on(pamh, flags, user, XOS_OP_PAM_OPEN, &q, XOS_OPEN_MS, &reply, &line);
	if (status == XOS_ST_OK) {
		close(line);
		if (read_open_reply(&reply, &o))
			rc = adopt(pamh, flags, user, &o, reply.fd);
		else
			malformed(pamh, user);
	} else if (line >= 0) {
		/* The service may end the program, and nobody else could say why: a
		 * host that wants silence, as sudo does, does not want that. */
		if (status > 0 && (flags & PAM_SILENT) != 0)
			show(pamh, flags & ~PAM_SILENT, PAM_ERROR_MSG, xos_get_str(&reply.in));
		xos_hang_up(line, XOS_END_MS);
	}
	request_free(&q);
	xos_reply_free(&reply);
	return rc;
}

EXPORT int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc UNUSED,
                                const char **argv UNUSED)
{
	const void *id;
	const char *user;
	int rc = grid_user(pamh, &user);

	/* Only a session that this handle has opened is closed: the environment,
	 * which the user may have had a hand in, is not asked. */
	if (pam_get_data(pamh, DATA, &id) != PAM_SUCCESS || id == NULL)
		return PAM_IGNORE;
	rc = close_it(pamh, flags, rc == PAM_SUCCESS ? user : "a user who is gone", id);
	pam_set_data(pamh, DATA, NULL, NULL);
	return rc;
}
