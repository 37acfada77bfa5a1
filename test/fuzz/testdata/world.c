/* SPDX-License-Identifier: Apache-2.0
 * See world.h. The host's side of pluggable authentication is here as well. */
#include "fuzz.h"

#undef socket
#undef connect
#undef getsockopt
#undef geteuid
#undef mmap
#undef munmap
#undef syslog

#include <fcntl.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <security/pam_modutil.h>

struct world world;

int world_socket(int domain, int type, int protocol)
{
	int ends[2];

	require(socketpair(domain, type, protocol, ends) == 0);
	/* An answer is longer than a socket holds only if it is no answer. */
	if (world.n > 0 && world.descriptor) {
		union {
			struct cmsghdr align;
			char b[CMSG_SPACE(sizeof(int))];
		} control = {.b = {0}};
		struct iovec v = {(void *)(uintptr_t)world.reply, world.n};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.b,
		                   .msg_controllen = sizeof control.b};
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

		*c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof null), .cmsg_level = SOL_SOCKET,
		                      .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(c), &null, sizeof null);
		require(sendmsg(ends[1], &m, MSG_DONTWAIT) == (ssize_t)world.n);
		close(null);
	} else if (world.n > 0) {
		require(send(ends[1], world.reply, world.n, MSG_DONTWAIT) == (ssize_t)world.n);
	}
	shutdown(ends[1], SHUT_WR);
	if (world.service >= 0)
		close(world.service);
	world.service = ends[1];
	return ends[0];
}

int world_connect(int fd, const struct sockaddr *a, socklen_t n)
{
	(void)fd, (void)a, (void)n;
	return 0;
}

int world_getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
	int rc = getsockopt(fd, level, name, value, n);

	if (rc == 0 && level == SOL_SOCKET && name == SO_PEERCRED)
		((struct ucred *)value)->uid = 0;
	return rc;
}

uid_t world_geteuid(void)
{
	return 0;
}

void *world_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	unsigned char *p;

	if (fd < 0)
		return mmap(at, n, prot, flags, fd, offset);
	if ((flags & MAP_FIXED) != 0)
		free(at); /* it comes in its place, elsewhere */
	p = malloc(n);
	require(p != NULL && pread(fd, p, n, offset) == (ssize_t)n);
	return p;
}

int world_munmap(void *p, size_t n)
{
	(void)n;
	free(p);
	return 0;
}

void world_syslog(int priority, const char *format, ...)
{
	char line[8192];
	va_list l;

	(void)priority;
	va_start(l, format);
	vsnprintf(line, sizeof line, format, l);
	va_end(l);
	require_line(line, 0);
}

void world_exit(int status)
{
	world.status = status;
	longjmp(world.end, 1);
}

int world_puts(const char *line)
{
	/* All that sshd is ever told. */
	require(strcmp(line, USER) == 0);
	world.printed = 1;
	return 0;
}

/* --- libpam, as far as the module uses it ---------------------------------- */

int pam_get_user(pam_handle_t *h, const char **user, const char *prompt)
{
	(void)h, (void)prompt;
	*user = USER;
	return PAM_SUCCESS;
}

struct passwd *pam_modutil_getpwnam(pam_handle_t *h, const char *user)
{
	(void)h, (void)user;
	return NULL;
}

int pam_get_item(const pam_handle_t *h, int item, const void **value)
{
	(void)h, (void)item;
	*value = "x";
	return PAM_SUCCESS;
}

const char *pam_getenv(pam_handle_t *h, const char *name)
{
	(void)h, (void)name;
	return "publickey ssh-ed25519 x\n";
}

int pam_prompt(pam_handle_t *h, int style, char **answer, const char *format, ...)
{
	char line[8192];
	va_list l;

	(void)h;
	va_start(l, format);
	vsnprintf(line, sizeof line, format, l);
	va_end(l);
	require_line(line, 1);
	if (style == PAM_PROMPT_ECHO_OFF)
		*answer = strdup("secret");
	return PAM_SUCCESS;
}

void pam_syslog(const pam_handle_t *h, int priority, const char *format, ...)
{
	char line[8192];
	va_list l;

	(void)h, (void)priority;
	va_start(l, format);
	vsnprintf(line, sizeof line, format, l);
	va_end(l);
	require_line(line, 0);
}

int pam_putenv(pam_handle_t *h, const char *setting)
{
	(void)h;
	require(strchr(setting, '=') > setting);
	return PAM_SUCCESS;
}

int pam_set_data(pam_handle_t *h, const char *name, void *data,
                 void (*clean)(pam_handle_t *, void *, int))
{
	(void)name;
	if (world.data != NULL)
		world.clean(h, world.data, 0);
	world.data = data;
	world.clean = clean;
	return PAM_SUCCESS;
}

int pam_get_data(const pam_handle_t *h, const char *name, const void **data)
{
	(void)h, (void)name;
	*data = world.data;
	return world.data != NULL ? PAM_SUCCESS : PAM_NO_MODULE_DATA;
}

int pam_fail_delay(pam_handle_t *h, unsigned delay)
{
	(void)h, (void)delay;
	return PAM_SUCCESS;
}
