/* SPDX-License-Identifier: Apache-2.0
 * One request to the session service, with one deadline for all of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* struct ucred, MSG_CMSG_CLOEXEC */
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "xos_shim.h"

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int fail(int err)
{
	errno = err;
	return -1;
}

int xos_high_fd(int fd)
{
	int high, err;

	if (fd < 0 || fd > 2)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	err = errno;
	close(fd);
	errno = err;
	return high;
}

/* Waits for the socket to become ready; ETIMEDOUT when it does not. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = {fd, events, 0};

	for (;;) {
		int64_t left = deadline - now_ms();
		int n;

		if (left <= 0)
			return fail(ETIMEDOUT);
		n = poll(&p, 1, (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -1;
	}
}

/* Connects. A full queue of the server makes connect(2) wait, for which the
 * socket's send timeout is the limit. It is tried in any case: on a machine that
 * is busy with others the time may be over before this process has done so much. */
static int connect_to(const struct xos_place *at, int64_t deadline)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t n = sizeof peer;
	int fd, err, tried = 0;

	if (strlen(at->socket) >= sizeof a.sun_path)
		return fail(ENAMETOOLONG);
	strcpy(a.sun_path, at->socket);
	fd = xos_high_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return -1;
	for (;;) {
		int64_t left = deadline - now_ms();
		struct timeval t;

		if (left <= 0 && tried) {
			err = ETIMEDOUT;
			break;
		}
		tried = 1;
		left = left > 0 ? left : 1;
		t.tv_sec = left / 1000;
		t.tv_usec = left % 1000 * 1000;
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
		if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
			if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
			    n == sizeof peer && peer.uid == at->owner)
				return fd;
			err = EPERM;
			break;
		}
		err = errno;
		if (err != EINTR)
			break;
	}
	close(fd);
	return fail(err);
}

static int send_all(int fd, const unsigned char *p, size_t n, int64_t deadline)
{
	while (n > 0) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k >= 0) {
			p += k;
			n -= (size_t)k;
		} else if (errno == EAGAIN) {
			if (wait_for(fd, POLLOUT, deadline) < 0)
				return -1;
		} else if (errno != EINTR) {
			return -1;
		}
	}
	return 0;
}

/* Keeps the first descriptor that came with a message, if there is none yet,
 * and closes all others. */
static void keep_fd(struct msghdr *m, int *keep)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		size_t i, n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (*keep < 0)
				*keep = xos_high_fd(fd);
			else
				close(fd);
		}
	}
}

static int receive_all(int fd, unsigned char *p, size_t n, int64_t deadline, int *keep)
{
	while (n > 0) {
		union {
			struct cmsghdr align;
			char b[CMSG_SPACE(4 * sizeof(int))];
		} control;
		struct iovec v = {p, n};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1,
		                   .msg_control = control.b,
		                   .msg_controllen = sizeof control.b};
		ssize_t k = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (k > 0) {
			keep_fd(&m, keep);
			p += k;
			n -= (size_t)k;
		} else if (k == 0) {
			return fail(ECONNRESET);
		} else if (errno == EAGAIN) {
			if (wait_for(fd, POLLIN, deadline) < 0)
				return -1;
		} else if (errno != EINTR) {
			return -1;
		}
	}
	return 0;
}

static int exchange(int fd, int op, const struct xos_out *q, int64_t deadline, struct xos_reply *r)
{
	unsigned char h[XOS_HEADER];
	uint32_t n;

	if (send_all(fd, q->b, q->len, deadline) < 0 ||
	    receive_all(fd, h, sizeof h, deadline, &r->fd) < 0)
		return -1;
	n = xos_le32(h + 8);
	if (xos_le32(h) != XOS_MAGIC || h[4] != XOS_VERSION || h[5] != 0 ||
	    (h[6] | h[7] << 8) != op || n > XOS_MAX_BODY)
		return fail(EPROTO);
	r->status = xos_le32(h + 12);
	r->body = malloc(n > 0 ? n : 1);
	if (r->body == NULL)
		return -1;
	r->in.p = r->body;
	r->in.left = n;
	return receive_all(fd, r->body, n, deadline, &r->fd);
}

int xos_call(const struct xos_place *at, int op, struct xos_out *q, int ms, struct xos_reply *r)
{
	return xos_call_on(at, op, q, ms, r, NULL);
}

/* Whether an answer that was lost with the service that was to give it may be
 * asked for again: nothing has been opened, closed or tried by it. */
static int question(int op)
{
	switch (op) {
	case XOS_OP_PAM_AUTH:
	case XOS_OP_PAM_OPEN:
	case XOS_OP_PAM_CLOSE:
		return 0;
	}
	return 1;
}

int xos_call_on(const struct xos_place *at, int op, struct xos_out *q, int ms, struct xos_reply *r,
                int *line)
{
	int64_t start = now_ms();
	struct xos_out h = {q->b, 0, XOS_HEADER, 0};
	int fd, rc, err, again = question(op);
	int64_t connected;

	memset(r, 0, sizeof *r);
	r->fd = -1;
	if (line != NULL)
		*line = -1;
	if (q->bad || q->len - XOS_HEADER > XOS_MAX_BODY)
		return fail(EMSGSIZE);
	xos_put_u32(&h, XOS_MAGIC);
	xos_put_u32(&h, XOS_VERSION | (uint32_t)op << 16);
	xos_put_u32(&h, (uint32_t)(q->len - XOS_HEADER));
	xos_put_u32(&h, 0);

	for (connected = start;; connected = now_ms()) {
		fd = connect_to(at, connected + XOS_CONNECT_MS);
		if (fd < 0)
			return -1;
		rc = exchange(fd, op, q, start + ms, r);
		if (rc == 0 && line != NULL) {
			*line = fd;
			return 0;
		}
		err = errno;
		close(fd);
		errno = err;
		/* Its successor has the same socket. */
		if (rc == 0 || !again || (err != ECONNRESET && err != EPIPE))
			return rc;
		again = 0;
		xos_reply_free(r);
		memset(r, 0, sizeof *r);
		r->fd = -1;
	}
}

void xos_hang_up(int line, int ms)
{
	int64_t deadline = now_ms() + ms;
	int err = errno;
	ssize_t k;
	char c;

	shutdown(line, SHUT_WR);
	while (wait_for(line, POLLIN, deadline) == 0) {
		k = recv(line, &c, 1, MSG_DONTWAIT);
		if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
			break;
	}
	close(line);
	errno = err;
}

void xos_reply_free(struct xos_reply *r)
{
	int err = errno;

	free(r->body);
	if (r->fd >= 0)
		close(r->fd);
	r->body = NULL;
	r->fd = -1;
	errno = err;
}
