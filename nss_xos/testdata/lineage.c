/* SPDX-License-Identifier: Apache-2.0
 * A process that forks while its threads are in lookups, whose child does the
 * same, and so on, while somebody replaces the snapshot all the time.
 *   usage: lineage NAME GENERATIONS
 * It prints what is wrong. A generation's process ends when the next is there,
 * so that only the last one's state is everyone's heritage. */
#define _GNU_SOURCE
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3

static const char *name;
static int stop, lookups, failed;

static void look(void)
{
	struct passwd pw, *p = NULL;
	char b[4096];

	if (getpwnam_r(name, &pw, b, sizeof b, &p) != 0 || p == NULL ||
	    strcmp(p->pw_name, name) != 0 || getpwuid_r(pw.pw_uid, &pw, b, sizeof b, &p) != 0 ||
	    p == NULL || strcmp(p->pw_name, name) != 0)
		__atomic_store_n(&failed, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&lookups, 1, __ATOMIC_SEQ_CST);
}

static void *looks(void *none)
{
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
		look();
	return none;
}

/* How often snapshots are mapped, and how often the present one. */
static int mappings(int *present)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	int n = 0;

	*present = 0;
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strstr(line, "/vo-") != NULL || strstr(line, "/.new-") != NULL) {
			n++;
			*present += strstr(line, "(deleted)") == NULL;
		}
	if (f != NULL)
		fclose(f);
	return n;
}

/* Whether the present snapshot is mapped again before long: it may be replaced
 * between a lookup and a look at the mappings. */
static void judge(int generation)
{
	int i, n = 0, present = 0;

	for (i = 0; i < 1000 && present == 0; i++) {
		look();
		n = mappings(&present);
	}
	if (present == 0)
		printf("generation %d reads the file: %d old mappings\n", generation, n);
	/* One for each thread that mapped or held one as the process forked may
	 * be left for a while, of which the next replacement frees most. */
	if (n > 8)
		printf("generation %d has %d mappings\n", generation, n);
	if (failed)
		printf("generation %d: a lookup failed\n", generation);
}

/* One generation; the child returns from it. */
static int descend(void)
{
	pthread_t t[THREADS];
	pid_t pid;
	int i;

	lookups = 0;
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, looks, NULL) != 0)
			return 0;
	while (__atomic_load_n(&lookups, __ATOMIC_SEQ_CST) < 5 * THREADS)
		sched_yield();
	pid = fork();
	if (pid != 0)
		_exit(pid < 0);
	return 1;
}

int main(int argc, char **argv)
{
	int i, generations, ends[2];
	pid_t pid;
	char c;

	if (argc != 3 || pipe(ends) != 0)
		return 99;
	name = argv[1];
	generations = atoi(argv[2]);
	setvbuf(stdout, NULL, _IONBF, 0);
	pid = fork();
	if (pid < 0)
		return 98;
	if (pid > 0) {
		close(ends[1]);
		while (read(ends[0], &c, 1) > 0)
			;
		return c == 'x' ? 0 : 97; /* the last generation wrote it */
	}
	for (i = 0; i < generations; i++) {
		if (!descend())
			_exit(1);
		if (i % 100 == 99)
			judge(i + 1);
	}
	_exit(write(ends[1], "x", 1) != 1);
}
