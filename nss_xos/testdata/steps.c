/* SPDX-License-Identifier: Apache-2.0
 * Forks at every step of lookups, as another thread may, and sees what the
 * child makes of the mappings that it was left with.
 *   usage: steps FOLDERS N OTHERS
 * In FOLDERS/0 to N-1 are snapshots of the VO physics, in which alice's home is
 * /home/0 and so on; in the last also of OTHERS VOs, a, b, c... with a user x.
 * It prints what is wrong, and how often it forked. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../xos_nss.h"
#include "steps.h"

#undef mmap
#undef munmap

#define BUSY 0x80000000u
#define HOLDERS 0x1fffffffu
#define LIVE 0x40000000u
#define STALE 0x20000000u
#define RANGES 128

static struct xos_cache cache;
static char folder[256];
static struct xos_place at = {"/nonexistent", folder, 0, &cache};
static int stage, steps, forks, wrong;
static int depth;   /* of forks that this process comes from */
static int lost;    /* mappings that may still be there, but are not known */
static int armed;   /* whether steps fork */
static int failing; /* the how many next mapping of a file fails, or 0 */

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
	va_list l;

	if (wrong++ > 5)
		return;
	printf("stage %d, step %d, depth %d: ", stage, steps, depth);
	va_start(l, format);
	vprintf(format, l);
	va_end(l);
	putchar('\n');
}

/* Where snapshots are mapped now. */
static struct range {
	unsigned long from, to;
} ranges[RANGES];
static int n_ranges;

static void read_ranges(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];

	n_ranges = 0;
	while (f != NULL && fgets(line, sizeof line, f) != NULL && n_ranges < RANGES)
		if (strstr(line, "/vo-") != NULL &&
		    sscanf(line, "%lx-%lx", &ranges[n_ranges].from, &ranges[n_ranges].to) == 2)
			n_ranges++;
	if (f != NULL)
		fclose(f);
}

static int is_mapped(const void *p, size_t n)
{
	unsigned long from = (unsigned long)p, page = (unsigned long)sysconf(_SC_PAGESIZE);
	unsigned long to = from + (n + page - 1) / page * page;
	int i;

	for (i = 0; i < n_ranges; i++)
		if (ranges[i].from <= from && to <= ranges[i].to)
			return 1;
	return 0;
}

/* All that is taken for mapped is. Nothing else is, but what was on its way as
 * each fork happened, and what could not be replaced. */
static void check_parts(const char *when)
{
	int i, parts = 0;

	read_ranges();
	for (i = 0; i < 2 * XOS_CACHED; i++) {
		struct xos_mapped *m = &cache.mapped[i / 2];
		struct xos_part *f = i % 2 == 0 ? &m->head : &m->base;

		if (f->p == NULL)
			continue;
		parts++;
		if (!is_mapped(f->p, f->size))
			complain("%s: place %d has %p, which is not mapped", when, i / 2, (void *)f->p);
	}
	if (n_ranges > parts + lost + depth)
		complain("%s: %d are mapped, of which %d are known", when, n_ranges, parts);
}

static void look(void)
{
	struct passwd pw;
	char b[1024], home[64];
	struct xos_record r;
	enum xos_find f;
	int err = 0, status;

	f = xos_find_name(&at, "physics", 7, "nobody@physics", &r);
	if (f != XOS_MISS)
		complain("nobody: %d", f);
	snprintf(home, sizeof home, "/home/%d", stage);
	status = passwd_by_name(&at, "alice@physics", &pw, (struct room){b, sizeof b}, &err);
	if (status != NSS_STATUS_SUCCESS || strcmp(pw.pw_dir, home) != 0) {
		complain("by name: %d, %s", status, status == NSS_STATUS_SUCCESS ? pw.pw_dir : strerror(err));
		return;
	}
	status = passwd_by_id(&at, pw.pw_uid, &pw, (struct room){b, sizeof b}, &err);
	if (status != NSS_STATUS_SUCCESS || strcmp(pw.pw_dir, home) != 0)
		complain("by id: %d, %s", status, status == NSS_STATUS_SUCCESS ? pw.pw_dir : strerror(err));
}

/* Whether the present snapshot is mapped, all of it, and nothing is held. */
static void check_places(const char *when)
{
	struct xos_ids who = {.known = 0};
	struct xos_mapped *m = xos_hold(&cache, "physics", 7, &who);
	size_t bytes = 0;
	int i;

	if (m == NULL)
		complain("%s: the snapshot is not mapped", when);
	else
		xos_let_go(m);
	for (i = 0; i < XOS_CACHED; i++) {
		m = &cache.mapped[i];
		bytes += (m->head.p != NULL ? m->head.size : 0) + (m->base.p != NULL ? m->base.size : 0);
		if ((m->state & (BUSY | HOLDERS)) != 0)
			complain("%s: place %d is held: %x", when, i, m->state);
		if (m->state == 0 && (m->head.p != NULL || m->base.p != NULL))
			complain("%s: place %d is not empty", when, i);
	}
	if (cache.filling || bytes != cache.bytes)
		complain("%s: filling: %u, %zu bytes, said to be %zu", when, cache.filling, bytes,
		         cache.bytes);
}

/* What a child finds. */
static void judge(void)
{
	int i;

	check_parts("at first");
	look();
	armed = 0;
	look();
	check_parts("then");
	check_places("then");
	for (i = 0; i < XOS_CACHED; i++) /* all are unmapped, or replaced */
		if ((cache.mapped[i].state & LIVE) != 0)
			cache.mapped[i].state |= STALE;
	look();
	check_parts("at last");
	check_places("at last");
}

void step(void)
{
	int status;
	pid_t pid;

	/* Of steps while nothing is changed there are many, and all alike. */
	if (!armed || (steps++ % 16 != 0 && cache.fork != NULL && !cache.filling))
		return;
	forks++;
	armed = 0;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		wrong = failing = 0;
		/* Some children are left by others in the midst of taking back. */
		armed = depth++ == 0 && forks % 64 == 0;
		judge();
		fflush(stdout);
		_exit(wrong != 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		complain("the child: %x", status);
	armed = 1;
}

void *step_mmap(void *where, size_t n, int prot, int flags, int fd, off_t offset)
{
	void *p;

	step();
	if ((flags & MAP_FIXED) != 0) {
		read_ranges();
		if (!is_mapped(where, n))
			complain("%p is replaced, but not mapped", where);
	}
	if (fd >= 0 && failing > 0 && --failing == 0) {
		lost += (flags & MAP_FIXED) != 0;
		errno = ENOMEM;
		return MAP_FAILED;
	}
	p = mmap(where, n, prot, flags, fd, offset);
	step();
	return p;
}

int step_munmap(void *p, size_t n)
{
	int rc;

	step();
	read_ranges();
	/* The page of xos_fork.c may go too. */
	if (!is_mapped(p, n) && p != (void *)cache.fork)
		complain("%p is unmapped, but not mapped", p);
	rc = munmap(p, n);
	step();
	/* Another thread's, from now on. */
	if (mmap(p, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != p)
		complain("%p cannot be taken", p);
	step();
	return rc;
}

/* Goes to a stage: its predecessor is given up. */
static void go_to(const char *folders, int to)
{
	static const char none[8];
	char path[300];
	int fd;

	if (folder[0] != '\0') {
		snprintf(path, sizeof path, "%s/vo-physics.snap", folder);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || pwrite(fd, none, sizeof none, XOS_SNAP_GENERATION) != sizeof none)
			complain("%s cannot be given up", path);
		close(fd);
	}
	stage = to;
	snprintf(folder, sizeof folder, "%s/%d", folders, stage);
}

int main(int argc, char **argv)
{
	int i, n, others;

	if (argc != 4)
		return 99;
	n = atoi(argv[2]);
	others = atoi(argv[3]);
	for (i = 0; i < n; i++) {
		go_to(argv[1], i);
		/* In some stages mapping one file fails at first. */
		failing = i % 3;
		armed = 1;
		look();
		failing = 0;
		look();
		armed = 0;
		check_parts("in the first process");
		check_places("in the first process");
	}
	for (i = 0; i < others; i++) {
		char name[] = {'x', '@', (char)('a' + i), 0}, b[1024];
		struct passwd pw;
		int err;

		armed = 1;
		if (passwd_by_name(&at, name, &pw, (struct room){b, sizeof b}, &err) != NSS_STATUS_SUCCESS)
			complain("%s is not found", name);
		armed = 0;
	}
	printf("%d forks\n", forks);
	return wrong != 0;
}
