/* SPDX-License-Identifier: Apache-2.0
 * Authentication: by the grid password, which the session service has the core
 * check. A certificate is checked by sshd and xos-principals, before PAM and
 * without this. */
#include <stdlib.h>
#include <string.h>

#include "pam_xos.h"

/* After a wrong password the host waits about so long, in microseconds. */
#define DELAY 2000000

static int code(int status)
{
	switch (status) {
	case XOS_ST_OK:
		return PAM_SUCCESS;
	case XOS_ST_EXPIRED:
		return PAM_ACCT_EXPIRED;
	case -1:
	case XOS_ST_UNAVAIL:
		return PAM_AUTHINFO_UNAVAIL;
	}
	return PAM_AUTH_ERR;
}

/* Asks the user for her password; the caller wipes and frees it. The module
 * does not share it with others of the stack: it is no local one. */
static int ask_password(pam_handle_t *pamh, char **password)
{
	int rc;

	*password = NULL;
	rc = pam_prompt(pamh, PAM_PROMPT_ECHO_OFF, password, "Grid password: ");
	if (rc != PAM_SUCCESS)
		return rc == PAM_CONV_AGAIN ? PAM_INCOMPLETE : PAM_CONV_ERR;
	return *password != NULL ? PAM_SUCCESS : PAM_CONV_ERR;
}

static void forget_password(char *password)
{
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	free(password);
}

EXPORT int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc UNUSED,
                               const char **argv UNUSED)
{
	static const struct xos_str wrong = XOS_STR("wrong user or password");
	struct xos_reply reply;
	struct xos_out q;
	const char *user;
	char *password;
	int rc = grid_user(pamh, &user);

	if (rc != PAM_SUCCESS)
		return rc;
	rc = ask_password(pamh, &password);
	if (rc == PAM_SUCCESS && (*password == '\0' || strlen(password) > XOS_MAX_PASSWORD)) {
		/* None can be so; neither the service nor the core is asked. */
		pam_fail_delay(pamh, DELAY);
		show(pamh, flags, PAM_ERROR_MSG, wrong);
		rc = PAM_AUTH_ERR;
	} else if (rc == PAM_SUCCESS) {
		request_start(pamh, user, &q);
		xos_put_str(&q, password);
		rc = code(consult(pamh, flags, user, XOS_OP_PAM_AUTH, &q, XOS_AUTH_MS, &reply));
		if (rc == PAM_SUCCESS && !xos_in_end(&reply.in)) {
			malformed(pamh, user);
			rc = PAM_AUTH_ERR;
		}
		if (rc == PAM_AUTH_ERR)
			pam_fail_delay(pamh, DELAY);
		request_free(&q);
		xos_reply_free(&reply);
	}
	forget_password(password);
	return rc;
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
		XOS_STR("the password of a grid user is not kept on this machine: change it "
	                "with \"xos passwd\"; if it is lost, ask your grid's administrator for a "
	                "token, then \"xos login USER@VO --token -\" lets you choose a new one");
	const char *user;
	int rc = grid_user(pamh, &user);

	if (rc != PAM_SUCCESS)
		return rc;
	if ((flags & PAM_PRELIM_CHECK) != 0 || (flags & PAM_UPDATE_AUTHTOK) == 0)
		show(pamh, flags, PAM_ERROR_MSG, elsewhere);
	return PAM_AUTHTOK_ERR;
}
