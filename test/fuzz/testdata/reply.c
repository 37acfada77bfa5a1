/* SPDX-License-Identifier: Apache-2.0
 * Whatever bytes the session service sends, through the whole of libnss_xos,
 * pam_xos, libsubid_xos and xos-principals: an input is all that comes on one connection. The
 * operation that it answers says which module asks. */
#include "fuzz.h"

#include <string.h>

#include "../../../nss_xos/xos_nss.h"
#include "../../../subid_xos/src/xos_subid.h"

int principals_main(int argc, char **argv);
int principals_call(const struct xos_place *where, int op, struct xos_out *q, int ms,
                    struct xos_reply *r);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct xos_place at = {"/nonexistent", "/nonexistent", 0, NULL};

/* Whether errno may come with this status: of those only ERANGE makes the C
 * library try again, with a larger buffer. */
static void require_status(enum nss_status s, int err)
{
	require(s == NSS_STATUS_SUCCESS || s == NSS_STATUS_NOTFOUND || s == NSS_STATUS_UNAVAIL ||
	        s == NSS_STATUS_TRYAGAIN);
	require((s == NSS_STATUS_TRYAGAIN) == (s != NSS_STATUS_SUCCESS && err == ERANGE));
}

static void look_up(int op, size_t room)
{
	char *mem = malloc(room);
	struct passwd pw;
	struct group gr;
	enum nss_status s;
	int err = 0;

	require(mem != NULL);
	if (op == XOS_OP_GETPWNAM || op == XOS_OP_GETPWUID) {
		s = op == XOS_OP_GETPWNAM
		            ? passwd_by_name(&at, USER, &pw, (struct room){mem, room}, &err)
		            : passwd_by_id(&at, USER_ID, &pw, (struct room){mem, room}, &err);
		if (s == NSS_STATUS_SUCCESS) {
			require_passwd(&pw, mem, room);
			require(op == XOS_OP_GETPWNAM ? strcmp(pw.pw_name, USER) == 0 : pw.pw_uid == USER_ID);
		}
	} else {
		s = op == XOS_OP_GETGRNAM
		            ? group_by_name(&at, GROUP ":higgs", &gr, (struct room){mem, room}, &err)
		            : group_by_id(&at, GROUP_ID, &gr, (struct room){mem, room}, &err);
		if (s == NSS_STATUS_SUCCESS) {
			require_group(&gr, mem, room);
			require(op == XOS_OP_GETGRNAM ? strcmp(gr.gr_name, GROUP ":higgs") == 0
			                              : gr.gr_gid == GROUP_ID);
		}
	}
	require_status(s, err);
	free(mem);
}

static void groups(long limit)
{
	gid_t *list = malloc(sizeof *list);
	long used = 1, size = 1, i;
	int err = 0;

	require(list != NULL);
	*list = 100;
	require_status(groups_of(&at, USER, USER_ID, (struct gids){&list, &used, &size, limit}, &err),
	               err);
	require(used >= 1 && used <= size && list[0] == 100 && (limit <= 0 || size <= limit));
	for (i = 1; i < used; i++)
		require(xos_is_id(list[i]) && list[i] != USER_ID);
	free(list);
}

/* What a program has when it ends is the kernel's; here it is to be freed. */
static unsigned char *left;

int principals_call(const struct xos_place *where, int op, struct xos_out *q, int ms,
                    struct xos_reply *r)
{
	int rc = xos_call(where, op, q, ms, r);

	left = r->body;
	return rc;
}

static void principals(void)
{
	char *argv[] = {"xos-principals", USER, "ssh-ed25519-cert-v01@openssh.com", "AAAA", NULL};

	world.printed = 0;
	world.status = 0;
	if (setjmp(world.end) == 0)
		world.status = principals_main(4, argv);
	free(left);
	left = NULL;
	/* sshd lets in by what was printed, whatever the status. */
	require((world.status == 0) == (world.printed != 0));
}

static void subordinate(int op)
{
	struct range *list;
	uid_t *uids;
	bool yes;
	int n, i;

	if (op == XOS_OP_SUBIDS) {
		enum answer a = shadow_subid_list_owner_ranges(USER, SUBUID, &list, &n);

		require((a == OK) == (list != NULL) && n == (a == OK));
		for (i = 0; i < n; i++)
			require(list[i].count > 0 && list[i].start >= XOS_FIRST_ID &&
			        list[i].start + list[i].count - 1 <= XOS_LAST_ID);
		a = shadow_subid_has_range(USER, USER_ID, 1, SUBGID, &yes);
		require(a == OK || !yes);
		shadow_subid_free(list);
		shadow_subid_has_range(USER, 0, 1, SUBUID, &yes);
		require(!yes);
	} else {
		shadow_subid_find_subid_owners(USER_ID, SUBUID, &uids, &n);
		require((uids != NULL) == (n == 1));
		require(n == 0 || xos_is_id(uids[0]));
		shadow_subid_free(uids);
	}
}

static void forget(pam_handle_t *h, void *data, int status)
{
	(void)h, (void)status;
	free(data);
}

static void pam(int op)
{
	pam_handle_t *host = (void *)&world; /* which nobody looks into */
	int rc = PAM_SUCCESS;

	switch (op) {
	case XOS_OP_PAM_AUTH:
		rc = pam_sm_authenticate(host, 0, 0, NULL);
		break;
	case XOS_OP_PAM_ACCOUNT:
		rc = pam_sm_acct_mgmt(host, 0, 0, NULL);
		break;
	case XOS_OP_PAM_OPEN:
		rc = pam_sm_open_session(host, 0, 0, NULL);
		require((rc == PAM_SUCCESS) == (world.data != NULL));
		break;
	case XOS_OP_PAM_CLOSE:
		pam_set_data(host, "xos_session", strdup("s1"), forget);
		break;
	}
	/* To stay out of it would leave a grid user to the next module. */
	require(rc != PAM_IGNORE);
	if (world.data != NULL) {
		pam_sm_close_session(host, 0, 0, NULL);
		require(world.data == NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const size_t rooms[] = {0, 1, 37, 64, 1024, 65536};
	size_t i;
	int op;

	if (n < 8 || n > XOS_HEADER + XOS_MAX_BODY + 16)
		return 0;
	world = (struct world){.reply = data, .n = n, .service = -1};
	op = data[6];
	switch (op) {
	case XOS_OP_GETPWNAM:
	case XOS_OP_GETPWUID:
	case XOS_OP_GETGRNAM:
	case XOS_OP_GETGRGID:
		for (i = 0; i < sizeof rooms / sizeof *rooms; i++)
			look_up(op, rooms[i]);
		break;
	case XOS_OP_INITGROUPS:
		groups(0);
		groups(3);
		break;
	case XOS_OP_PRINCIPALS:
		principals();
		break;
	case XOS_OP_SUBIDS:
	case XOS_OP_SUBID_OWNER:
		subordinate(op);
		break;
	default:
		pam(op);
		world.descriptor = 1;
		pam(op);
	}
	if (world.service >= 0)
		close(world.service);
	return 0;
}
