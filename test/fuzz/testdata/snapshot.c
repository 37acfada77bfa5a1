/* SPDX-License-Identifier: Apache-2.0
 * Whatever a snapshot's files hold: an input is the file of the VO physics; if
 * that says it is shorter and has a base, the rest is the base that it names.
 * They are read with and without a mapping, also one that takes the place of
 * another, which must give the same. */
#include "fuzz.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../../../nss_xos/xos_nss.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define ROOM 4096

static struct xos_cache cache;
/* There is no service: no socket has so long a name, so that none is tried. */
#define TWENTY "/nonexistent-so-long"
static struct xos_place at = {TWENTY TWENTY TWENTY TWENTY TWENTY TWENTY, NULL, 0, NULL};
static char path[256], base[300];

struct answers {
	struct {
		enum nss_status status;
		uint32_t id;
		char name[256];
	} user[2], group[5];
	enum nss_status groups;
	long n;
};

static void look_up(struct answers *a)
{
	static const char *const group[] = {GROUP, GROUP ":higgs", USER};
	static const uint32_t ids[] = {GROUP_ID, USER_ID};
	char mem[ROOM];
	struct passwd pw;
	struct group gr;
	gid_t *list = NULL;
	long used = 0, size = 0, i;
	int err;

	memset(a, 0, sizeof *a);
	for (i = 0; i < 2; i++) {
		struct room r = {mem, sizeof mem};

		a->user[i].status = i == 0 ? passwd_by_name(&at, USER, &pw, r, &err)
		                           : passwd_by_id(&at, USER_ID, &pw, r, &err);
		if (a->user[i].status != NSS_STATUS_SUCCESS)
			continue;
		require_passwd(&pw, mem, sizeof mem);
		require(i == 0 ? strcmp(pw.pw_name, USER) == 0 : pw.pw_uid == USER_ID);
		a->user[i].id = pw.pw_uid;
		snprintf(a->user[i].name, sizeof a->user[i].name, "%s:%s", pw.pw_name, pw.pw_dir);
	}
	for (i = 0; i < 5; i++) {
		struct room r = {mem, sizeof mem};

		a->group[i].status = i < 3 ? group_by_name(&at, group[i], &gr, r, &err)
		                           : group_by_id(&at, ids[i - 3], &gr, r, &err);
		if (a->group[i].status != NSS_STATUS_SUCCESS)
			continue;
		require_group(&gr, mem, sizeof mem);
		require(i < 3 ? strcmp(gr.gr_name, group[i]) == 0 : gr.gr_gid == ids[i - 3]);
		a->group[i].id = gr.gr_gid;
		snprintf(a->group[i].name, sizeof a->group[i].name, "%s", gr.gr_name);
	}
	a->groups = groups_of(&at, USER, 0, (struct gids){&list, &used, &size, 0}, &err);
	a->n = used;
	for (i = 0; i < used; i++)
		require(xos_is_id(list[i]));
	free(list);
}

static void forget(void)
{
	unsigned i;

	for (i = 0; i < XOS_CACHED; i++) {
		struct xos_mapped *m = &cache.mapped[i];

		require((m->state & 0x1fffffffu) == 0); /* held by nobody */
		require(m->state != 0 || (m->head.p == NULL && m->base.p == NULL));
		if (m->head.p != NULL)
			world_munmap((void *)(uintptr_t)m->head.p, m->head.size);
		if (m->base.p != NULL)
			world_munmap((void *)(uintptr_t)m->base.p, m->base.size);
	}
	cache = (struct xos_cache){.fork = cache.fork};
}

/* Makes all that is mapped another snapshot's than the present one. */
static void make_old(void)
{
	unsigned i;

	for (i = 0; i < XOS_CACHED; i++)
		cache.mapped[i].ino++, cache.mapped[i].checked = 0;
}

static void put(const char *to, const uint8_t *data, size_t n)
{
	int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

	require(fd >= 0 && write(fd, data, n) == (ssize_t)n && fchmod(fd, 0640) == 0);
	close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	at.snapshots = getenv("XOS_FUZZ_DIR"); /* of its own */
	require(at.snapshots != NULL);
	snprintf(path, sizeof path, "%s/vo-physics.snap", at.snapshots);
	at.owner = getuid();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct answers read, mapping, mapped, again;
	size_t head = n;

	base[0] = '\0';
	if (n >= XOS_SNAP_BASED_HEADER && xos_le32(data + 8) == XOS_SNAP_BASED &&
	    xos_le32(data + 12) < n) {
		head = xos_le32(data + 12);
		snprintf(base, sizeof base, "%s/vo-physics.%08" PRIx32 "%08" PRIx32 ".base",
		         at.snapshots, xos_le32(data + XOS_SNAP_HEADER + 4),
		         xos_le32(data + XOS_SNAP_HEADER));
		put(base, data + head, n - head);
	}
	put(path, data, head);
	world = (struct world){.service = -1};
	at.cache = NULL;
	look_up(&read);
	at.cache = &cache;
	look_up(&mapping);
	look_up(&mapped);
	make_old();
	look_up(&again);
	require(memcmp(&read, &mapping, sizeof read) == 0);
	require(memcmp(&read, &mapped, sizeof read) == 0);
	require(memcmp(&read, &again, sizeof read) == 0);
	forget();
	if (base[0] != '\0')
		unlink(base);
	return 0;
}
