/* SPDX-License-Identifier: Apache-2.0
 * A process that forks while its threads are in lookups, whose child does the
 * same, and so on, while somebody replaces the snapshot all the time.
 *   usage: lineage NAME GENERATIONS FILES
 * The snapshot is that many files, 1 or 2. Between their lookups the threads map
 * and unmap memory of their own, which takes the addresses that a snapshot had,
 * and must stay as it is in all that follow. It prints what is wrong. A generation's process ends when the next is there,
 * so that only the last one's state is everyone's heritage. */
#define _GNU_SOURCE
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3

/* Of a thread's own memory: as many pieces, of up to so many pages. */
#define PIECES 8
#define PAGES 40
#define MARK 0x5858585858585858ul

static const char *name;
static int files, stop, lookups, failed;
static unsigned long *own[THREADS][PIECES];
static size_t sizes[THREADS][PIECES];
static unsigned seeds[THREADS];

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

/* Puts another piece of memory in place of one. */
static void change(int thread, int i)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = sizes[thread][i];
	unsigned long *p = own[thread][i];

	if (p != NULL) {
		if (*p != MARK)
			__atomic_store_n(&failed, 1, __ATOMIC_SEQ_CST);
		/* A child that is forked from now on does not know it. */
		__atomic_store_n(&own[thread][i], NULL, __ATOMIC_SEQ_CST);
		munmap(p, n);
	}
	n = page * (size_t)(1 + rand_r(&seeds[thread]) % PAGES);
	p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return;
	*p = MARK;
	sizes[thread][i] = n;
	__atomic_store_n(&own[thread][i], p, __ATOMIC_SEQ_CST);
}

/* Gives up what the threads of the process before have left, all of which must
 * be as it was. */
static void clear(int generation)
{
	int t, i;

	for (t = 0; t < THREADS; t++)
		for (i = 0; i < PIECES; i++) {
			if (own[t][i] == NULL)
				continue;
			if (msync(own[t][i], sizes[t][i], MS_ASYNC) != 0 || *own[t][i] != MARK)
				printf("generation %d: memory of another thread is gone\n", generation);
			else
				munmap(own[t][i], sizes[t][i]);
			own[t][i] = NULL;
		}
}

static void *looks(void *thread)
{
	int i;

	for (i = 0; !__atomic_load_n(&stop, __ATOMIC_SEQ_CST); i++) {
		look();
		change((int)(intptr_t)thread, i % PIECES);
	}
	return NULL;
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

	for (i = 0; i < 1000 && present < files; i++) {
		look();
		n = mappings(&present);
	}
	if (present < files)
		printf("generation %d has %d files of the snapshot mapped, and %d others\n", generation,
		       present, n - present);
	/* One for each thread that mapped or held one as the process forked may
	 * be left for a while, of which the next replacement frees most. */
	if (n > 8 * files)
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
		if (pthread_create(&t[i], NULL, looks, (void *)(intptr_t)i) != 0)
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

	if (argc != 4 || pipe(ends) != 0)
		return 99;
	name = argv[1];
	generations = atoi(argv[2]);
	files = atoi(argv[3]);
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
		look(); /* which takes back what the threads held */
		clear(i + 1);
		if (i % 100 == 99)
			judge(i + 1);
	}
	_exit(write(ends[1], "x", 1) != 1);
}
