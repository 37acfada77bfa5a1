/* SPDX-License-Identifier: Apache-2.0
 * Account: everything that can be refused by name is refused here, since sshd
 * goes on with a connection whose session could not be opened. */
#include "pam_xos.h"

static int code(int status)
{
	switch (status) {
	case XOS_ST_OK:
		return PAM_SUCCESS;
	case XOS_ST_NOTFOUND:
		return PAM_USER_UNKNOWN;
	case XOS_ST_EXPIRED:
		return PAM_ACCT_EXPIRED;
	case -1:
	case XOS_ST_UNAVAIL:
		return PAM_AUTHINFO_UNAVAIL;
	}
	return PAM_PERM_DENIED;
}

EXPORT int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc UNUSED,
                            const char **argv UNUSED)
{
	struct xos_reply reply;
	struct xos_out q;
	const char *user;
	int status, rc = grid_user(pamh, &user);

	if (rc != PAM_SUCCESS)
		return rc;
	request_start(pamh, user, &q);
	status = consult(pamh, flags, user, XOS_OP_PAM_ACCOUNT, &q, XOS_ACCOUNT_MS, &reply);
	request_free(&q);
	if (status == XOS_ST_OK) {
		struct xos_str text = xos_get_str(&reply.in);

		if (xos_in_end(&reply.in)) {
			show(pamh, flags, PAM_TEXT_INFO, text);
		} else {
			malformed(pamh, user);
			status = XOS_ST_INTERNAL;
		}
	}
	xos_reply_free(&reply);
	return code(status);
}
