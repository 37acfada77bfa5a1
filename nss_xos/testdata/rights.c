/* SPDX-License-Identifier: Apache-2.0
 * A process that changes who it is, and what it may, between lookups in a
 * snapshot that it has mapped.
 *   usage: rights SNAPSHOTS NAME UID GROUP
 * It prints for each step whether it found NAME, by name and by id, and
 * whether that was from memory: with the directory out of the way. */
#define _GNU_SOURCE
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../xos_nss.h"

#define STRANGER 54321

static struct xos_cache cached;
static struct xos_place at = {"/nonexistent", NULL, 0, &cached};
static const char *name;
static FILE *out;
static char *kept;
static size_t n_kept;
static uid_t id;

static void must(int status, const char *what)
{
	if (status != 0) {
		perror(what);
		exit(1);
	}
}

/* Becomes the stranger's uid with this one group, or root without it. */
static void be(gid_t group)
{
	must(seteuid(0), "seteuid");
	must(setgroups(group != 0, &group), "setgroups");
	must(setegid(STRANGER), "setegid");
	must(seteuid(STRANGER), "seteuid");
}

static void be_root(void)
{
	must(seteuid(0), "seteuid");
	must(setegid(0), "setegid");
	must(setgroups(0, NULL), "setgroups");
}

static void look(const char *step)
{
	char buf[1024];
	struct passwd pw;
	int err, by_name, by_id;

	by_name = passwd_by_name(&at, name, &pw, (struct room){buf, sizeof buf}, &err);
	by_id = passwd_by_id(&at, id, &pw, (struct room){buf, sizeof buf}, &err);
	fprintf(out, "%s:%s%s\n", step, by_name == NSS_STATUS_SUCCESS ? " name" : "",
	       by_id == NSS_STATUS_SUCCESS ? " id" : "");
}

/* Prints what was kept since the last time. */
static void flush(void)
{
	fflush(out);
	fwrite(kept, 1, (size_t)ftell(out), stdout);
	rewind(out);
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void rest(void)
{
	struct timespec t = {0, 150 * 1000 * 1000};

	nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
	char path[512], away[512];
	int slow, tried = 0;
	gid_t group;
	long start;

	if (argc != 5)
		return 2;
	at.snapshots = argv[1];
	name = argv[2];
	id = (uid_t)atoi(argv[3]);
	group = (gid_t)atoi(argv[4]);
	snprintf(path, sizeof path, "%s/vo-physics.snap", argv[1]);
	snprintf(away, sizeof away, "%s.away", argv[1]);

	out = open_memstream(&kept, &n_kept);
	must(out == NULL, "open_memstream");

	be(group);
	look("member");
	be(0);
	look("no member at once");
	be(group);
	look("member again");
	flush();

	/* A machine with much to do may let the mapping become too old. */
	do {
		start = now();
		rewind(out);
		be_root();
		look("root");
		must(rename(at.snapshots, away), "rename");
		look("root from memory");
		be(0);
		look("no member from memory");
		be(group);
		look("member from memory");
		tried++;
		slow = now() - start > 90;
		if (slow) {
			be_root();
			must(rename(away, at.snapshots), "rename");
			rest();
		}
	} while (slow && tried < 100);
	flush();
	rest();
	look("member without files");
	be_root();
	must(rename(away, at.snapshots), "rename");

	be(group);
	look("member with files");
	be_root();
	must(chmod(path, 0600), "chmod");
	rest();
	be(group);
	look("member of what root alone may read");
	be_root();
	must(chmod(path, 0640), "chmod");
	look("root");
	must(chroot("/proc/self/fdinfo"), "chroot");
	rest();
	look("root in another root directory");
	flush();
	return 0;
}
