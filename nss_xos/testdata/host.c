/* SPDX-License-Identifier: Apache-2.0
 * A program as others are that look names up: forked, threaded, with its
 * standard descriptors closed.   usage: host MODE NAME [COUNT] */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *name;
static int count;

/* Whether all that is known of the name fits together. */
static int look(void)
{
	struct passwd pw, *p = NULL;
	struct group gr, *g = NULL;
	gid_t gids[64];
	char b[4096];
	int n = 64;

	return getpwnam_r(name, &pw, b, sizeof b, &p) == 0 && p != NULL &&
	       strcmp(p->pw_name, name) == 0 && getgrouplist(name, p->pw_gid, gids, &n) > 0 &&
	       getpwuid_r(pw.pw_uid, &pw, b, sizeof b, &p) == 0 && p != NULL &&
	       getgrgid_r(pw.pw_gid, &gr, b, sizeof b, &g) == 0 && g != NULL;
}

static int forks(void)
{
	int i, failed = 0, status;

	if (!look())
		return 1;
	for (i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(!look());
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
			failed++;
	}
	return failed;
}

static void *looks(void *failed)
{
	int i;

	for (i = 0; i < count; i++)
		if (!look())
			__atomic_add_fetch((int *)failed, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static int threads(void)
{
	pthread_t t[64];
	int i, failed = 0;

	for (i = 0; i < 64; i++)
		if (pthread_create(&t[i], NULL, looks, &failed) != 0)
			return 1;
	for (i = 0; i < 64; i++)
		pthread_join(t[i], NULL);
	return failed;
}

/* Every buffer that is too small says so, and changes nothing. */
static int rooms(void)
{
	struct passwd pw, *p;
	struct group gr, *g;
	size_t n;
	int rc;

	for (n = 1; n < 4096; n++) {
		char *b = malloc(n);

		rc = getpwnam_r(name, &pw, b, n, &p);
		free(b);
		if (rc == 0 && p != NULL)
			break;
		if (rc != ERANGE || p != NULL)
			return 1;
	}
	for (; n < 8192; n++) {
		char *b = malloc(n - 64);

		rc = getgrnam_r("physics", &gr, b, n - 64, &g);
		free(b);
		if (rc == 0 && g != NULL)
			return 0;
		if (rc != ERANGE || g != NULL)
			return 2;
	}
	return 3;
}

static int descriptors(char *open)
{
	int i, n = 0;

	for (i = 0; i < 256; i++)
		n += open[i] = fcntl(i, F_GETFD) != -1;
	return n;
}

/* The C library itself does not keep errno, so that the module is asked. */
static int keeps_errno(void)
{
	void *module = dlopen("libnss_xos.so.2", RTLD_NOW);
	enum nss_status (*look_up)(const char *, struct passwd *, char *, size_t, int *);
	struct passwd pw;
	char b[4096];

	if (module == NULL)
		return 0;
	*(void **)&look_up = dlsym(module, "_nss_xos_getpwnam_r");
	errno = 77;
	if (look_up(name, &pw, b, sizeof b, &errno) != NSS_STATUS_SUCCESS || errno != 77)
		return 0;
	return look_up("mallory@physics", &pw, b, sizeof b, &errno) == NSS_STATUS_NOTFOUND &&
	       errno == ENOENT;
}

/* The host's descriptors, errno, signals and directory are its own. */
static int state(void)
{
	char before[256], after[256];
	sigset_t mask[2];
	struct sigaction pipe[2];

	if (!look())
		return 1;
	close(0);
	close(1);
	close(2);
	descriptors(before);
	memset(mask, 0, sizeof mask);
	sigprocmask(SIG_BLOCK, NULL, &mask[0]);
	sigaction(SIGPIPE, NULL, &pipe[0]);
	if (!keeps_errno())
		return 2;
	if (!look())
		return 3;
	sigprocmask(SIG_BLOCK, NULL, &mask[1]);
	sigaction(SIGPIPE, NULL, &pipe[1]);
	descriptors(after);
	if (memcmp(before, after, sizeof before) != 0)
		return 4;
	if (memcmp(&mask[0], &mask[1], sizeof mask[0]) != 0 ||
	    pipe[0].sa_handler != pipe[1].sa_handler)
		return 5;
	return 0;
}

static int bench(void)
{
	struct timespec a, b;
	struct passwd pw, *p;
	char m[4096];
	int i;

	if (getpwnam_r(name, &pw, m, sizeof m, &p) != 0 || p == NULL)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (i = 0; i < count; i++)
		if (getpwnam_r(name, &pw, m, sizeof m, &p) != 0 || p == NULL)
			return 1;
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%lld\n", ((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec) / count);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *mode;
		int (*run)(void);
	} modes[] = {{"fork", forks}, {"threads", threads}, {"rooms", rooms}, {"state", state}, {"bench", bench}};
	size_t i;

	if (argc < 3)
		return 99;
	name = argv[2];
	count = argc > 3 ? atoi(argv[3]) : 1;
	for (i = 0; i < sizeof modes / sizeof *modes; i++)
		if (strcmp(argv[1], modes[i].mode) == 0)
			return modes[i].run() & 0x7f;
	return 99;
}
