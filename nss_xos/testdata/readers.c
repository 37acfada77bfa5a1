/* SPDX-License-Identifier: Apache-2.0
 * Threads that look one user up in all ways while her snapshot is replaced.
 * Each snapshot has a number, which the user's fields hold; FILE holds that of
 * the last whose writing has ended, and a negative one at the end.
 *   usage: readers SNAPSHOTS FILE THREADS NAME [fork]
 * It prints what is wrong, and how many lookups there were. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../xos_nss.h"

static struct xos_cache cached;
static struct xos_place at = {"/nonexistent", NULL, 0, &cached};
static const char *name;
static volatile long *written;
static long lookups, wrong;

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
	va_list l;

	if (__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED) > 5)
		return;
	va_start(l, format);
	vprintf(format, l);
	va_end(l);
}

static long last(void)
{
	return __atomic_load_n(written, __ATOMIC_SEQ_CST);
}

/* Whether all fields are of one snapshot, and of none before `since`. */
static void check(const char *how, const struct passwd *pw, long since)
{
	char home[64];
	long n = atol(pw->pw_gecos);

	snprintf(home, sizeof home, "/home/%ld", n);
	if (strcmp(pw->pw_name, name) != 0 || strcmp(pw->pw_dir, home) != 0 ||
	    strcmp(pw->pw_shell, "/bin/sh") != 0 || pw->pw_uid != pw->pw_gid)
		complain("%s: %s:%u:%u:%s:%s:%s\n", how, pw->pw_name, pw->pw_uid, pw->pw_gid,
		         pw->pw_gecos, pw->pw_dir, pw->pw_shell);
	else if (n < since)
		complain("%s: snapshot %ld was there, this is of %ld\n", how, since, n);
}

static void look(void)
{
	struct passwd pw;
	struct group gr;
	char b[1024];
	long since = last(), n, used = 0, size = 0;
	gid_t *list = NULL;
	int err, status;

	status = passwd_by_name(&at, name, &pw, (struct room){b, sizeof b}, &err);
	if (status != NSS_STATUS_SUCCESS) {
		complain("by name: %d, %s\n", status, strerror(err));
		return;
	}
	check("by name", &pw, since);
	since = last();
	status = passwd_by_id(&at, pw.pw_uid, &pw, (struct room){b, sizeof b}, &err);
	if (status != NSS_STATUS_SUCCESS)
		complain("by id: %d, %s\n", status, strerror(err));
	else
		check("by id", &pw, since);
	/* The user is in as many groups as her snapshot's number says; the one
	 * that comes next may be there. */
	since = n = last();
	status = groups_of(&at, name, 0, (struct gids){&list, &used, &size, 0}, &err);
	free(list);
	while (used != n % 8 + 1 && n <= last())
		n++;
	if (status != NSS_STATUS_SUCCESS || (used != n % 8 + 1 && last() >= 0))
		complain("groups: %d, %ld of %ld\n", status, used, since);
	status = group_by_name(&at, strchr(name, '@') + 1, &gr, (struct room){b, sizeof b}, &err);
	if (status != NSS_STATUS_SUCCESS || strcmp(gr.gr_mem[0], name) != 0)
		complain("group: %d\n", status);
	__atomic_fetch_add(&lookups, 4, __ATOMIC_RELAXED);
}

static void *run(void *forks)
{
	int i;

	for (i = 0; last() >= 0; i++) {
		look();
		if (forks != NULL && i % 500 == 0) {
			int status = 0;
			pid_t pid = fork();

			if (pid == 0) {
				wrong = 0;
				for (i = 0; i < 20; i++)
					look();
				_exit(wrong != 0);
			}
			if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
				complain("a child: %x\n", status);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[64];
	int i, n, fd;

	if (argc < 5 || (n = atoi(argv[3])) > 64)
		return 99;
	setvbuf(stdout, NULL, _IONBF, 0);
	at.snapshots = argv[1];
	name = argv[4];
	fd = open(argv[2], O_RDWR | O_CLOEXEC);
	written = mmap(NULL, sizeof *written, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || written == MAP_FAILED)
		return 98;
	for (i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, run, i == 0 && argc > 5 ? &t : NULL) != 0)
			return 97;
	for (i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	if (wrong != 0)
		printf("%ld wrong\n", wrong);
	printf("%ld lookups\n", lookups);
	return wrong != 0;
}
