/* SPDX-License-Identifier: Apache-2.0
 * usage: names ROUNDS MILLISECONDS SOURCE...
 * Looks users up in several sources of the name service switch by turns, each
 * in a process of its own that stays, and prints for each round the nanoseconds
 * that a lookup took from each: the median of many short batches, so that a batch
 * in which the machine did something else does not count. A source is
 *
 *	SERVICES,PASSWD,UID,GID,KEY
 *
 * what /etc/nsswitch.conf has for passwd; the file to have as /etc/passwd, or
 * nothing; whom to look up as; and a name, or a number to look up as a uid. With
 * SERVICES "=xos" the C library is left out: its module's function is called.
 * A KEY that begins with '!' must not be found. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST 32
/* Lookups between two looks at the clock, and batches of a round. */
#define BATCH 16
#define BATCHES 4096

struct source {
	char *services, *passwd, *key;
	uid_t uid;
	gid_t gid;
	int missing, ask[2], answer[2];
};

typedef enum nss_status by_name(const char *, struct passwd *, char *, size_t, int *);
typedef enum nss_status by_uid(uid_t, struct passwd *, char *, size_t, int *);
static by_name *direct_name;
static by_uid *direct_uid;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void look(const struct source *s)
{
	static char b[4096];
	struct passwd pw, *p = NULL;
	int e = 0, is_uid = s->key[0] >= '0' && s->key[0] <= '9';
	uid_t uid = is_uid ? (uid_t)strtoul(s->key, NULL, 10) : 0;

	if (direct_uid != NULL && is_uid)
		p = direct_uid(uid, &pw, b, sizeof b, &e) == NSS_STATUS_SUCCESS ? &pw : NULL;
	else if (direct_name != NULL)
		p = direct_name(s->key, &pw, b, sizeof b, &e) == NSS_STATUS_SUCCESS ? &pw : NULL;
	else if (is_uid)
		e = getpwuid_r(uid, &pw, b, sizeof b, &p);
	else
		e = getpwnam_r(s->key, &pw, b, sizeof b, &p);
	if ((p == NULL) != s->missing)
		errx(1, "%s in %s: found %d, error %d", s->key, s->services, p != NULL, e);
}

static void overlay(const char *text, const char *file, const char *at)
{
	char temporary[] = "/run/names-XXXXXX";

	if (text != NULL) {
		int fd = mkstemp(temporary);

		if (fd < 0 || dprintf(fd, "passwd: %s\ngroup: files\n", text) < 0 || fchmod(fd, 0644))
			err(1, "%s", temporary);
		close(fd);
		file = temporary;
	}
	if (mount(file, at, NULL, MS_BIND, NULL) != 0)
		err(1, "%s on %s", file, at);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void serve(struct source *s, double length)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		err(1, "unshare");
	if (*s->passwd != '\0')
		overlay(NULL, s->passwd, "/etc/passwd");
	if (s->services[0] == '=') {
		char file[64], symbol[64];
		void *m;

		snprintf(file, sizeof file, "libnss_%s.so.2", s->services + 1);
		m = dlopen(file, RTLD_NOW);
		if (m == NULL)
			errx(1, "%s", dlerror());
		snprintf(symbol, sizeof symbol, "_nss_%s_getpwnam_r", s->services + 1);
		direct_name = (by_name *)dlsym(m, symbol);
		snprintf(symbol, sizeof symbol, "_nss_%s_getpwuid_r", s->services + 1);
		direct_uid = (by_uid *)dlsym(m, symbol);
	} else {
		overlay(s->services, NULL, "/etc/nsswitch.conf");
	}
	if (setgroups(1, &s->gid) != 0 || setgid(s->uid) != 0 || setuid(s->uid) != 0)
		err(1, "becoming %u", s->uid);
	/* The first lookup loads, connects and maps. */
	look(s);
	for (;;) {
		static double took[BATCHES];
		double start, before, after, each;
		int n = 0;
		char c;

		if (read(s->ask[0], &c, 1) != 1)
			exit(0);
		start = before = now();
		do {
			int i;

			for (i = 0; i < BATCH; i++)
				look(s);
			after = now();
			took[n++] = after - before;
			before = after;
		} while (after - start < length && n < BATCHES);
		qsort(took, (size_t)n, sizeof *took, compare);
		each = took[n / 2] / BATCH;
		if (write(s->answer[1], &each, sizeof each) != sizeof each)
			exit(1);
	}
}

static void start(struct source *s, char *text, double length)
{
	char *uid, *gid;
	pid_t pid;

	s->services = strsep(&text, ",");
	s->passwd = strsep(&text, ",");
	uid = strsep(&text, ",");
	gid = strsep(&text, ",");
	s->key = text;
	if (text == NULL)
		errx(2, "a source has five fields");
	s->uid = (uid_t)strtoul(uid, NULL, 10);
	s->gid = (gid_t)strtoul(gid, NULL, 10);
	s->missing = s->key[0] == '!';
	s->key += s->missing;
	if (pipe(s->ask) != 0 || pipe(s->answer) != 0 || (pid = fork()) < 0)
		err(1, "starting");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(s->ask[1]);
		close(s->answer[0]);
		serve(s, length);
	}
	close(s->ask[0]);
	close(s->answer[1]);
}

int main(int argc, char **argv)
{
	static struct source s[MOST];
	int n = argc - 3, rounds, round, i;

	if (n < 1 || n > MOST)
		return 2;
	rounds = atoi(argv[1]);
	for (i = 0; i < n; i++)
		start(&s[i], argv[i + 3], atof(argv[2]) * 1e6);
	/* The first round warms up. */
	for (round = -1; round < rounds; round++) {
		double took[MOST];

		for (i = 0; i < n; i++) {
			int at = (i + round + 1) % n;

			if (write(s[at].ask[1], "", 1) != 1 ||
			    read(s[at].answer[0], &took[at], sizeof took[at]) != sizeof took[at])
				errx(1, "%s in %s: no answer", s[at].key, s[at].services);
		}
		for (i = 0; round >= 0 && i < n; i++)
			printf("%.1f%c", took[i], i < n - 1 ? ' ' : '\n');
	}
	return 0;
}
