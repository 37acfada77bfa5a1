/* SPDX-License-Identifier: Apache-2.0
 * Authentication: a grid user has no password here. Her certificate is checked
 * by sshd and xos-principals, before PAM, so all this does is to say no, and
 * where to go instead. */
#include "pam_xos.h"

EXPORT int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc UNUSED,
                               const char **argv UNUSED)
{
	static const struct xos_str instead =
		XOS_STR("grid users have no password here: use \"xos login\" and ssh");
	struct xos_reply reply;
	struct xos_out q;
	const char *user;
	int rc = grid_user(pamh, &user);

	if (rc != PAM_SUCCESS)
		return rc;
	request_start(pamh, user, &q);
	if (consult(pamh, flags, user, XOS_OP_PAM_AUTH, &q, XOS_LOOKUP_MS, &reply) <= XOS_ST_OK)
		show(pamh, flags, PAM_ERROR_MSG, instead);
	request_free(&q);
	xos_reply_free(&reply);
	return PAM_AUTH_ERR; /* whatever the answer was: none can be a yes */
}

EXPORT int pam_sm_setcred(pam_handle_t *pamh UNUSED, int flags UNUSED, int argc UNUSED,
                          const char **argv UNUSED)
{
	return PAM_IGNORE; /* the session has the credentials */
}

EXPORT int pam_sm_chauthtok(pam_handle_t *pamh, int flags, int argc UNUSED,
                            const char **argv UNUSED)
{
	static const struct xos_str elsewhere =
		XOS_STR("the password of a grid user is not kept on this machine");
	const char *user;
	int rc = grid_user(pamh, &user);

	if (rc != PAM_SUCCESS)
		return rc;
	show(pamh, flags, PAM_ERROR_MSG, elsewhere);
	return PAM_AUTHTOK_ERR;
}
