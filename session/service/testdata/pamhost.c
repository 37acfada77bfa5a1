/* SPDX-License-Identifier: Apache-2.0
 * A program that authenticates one user and opens a session for another.
 * usage: pamhost FIRST PASSWORD THEN */
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int answer(int n, const struct pam_message **m, struct pam_response **r, void *password)
{
	int i;

	*r = calloc((size_t)n, sizeof **r);
	if (*r == NULL)
		return PAM_BUF_ERR;
	for (i = 0; i < n; i++) {
		if (m[i]->msg_style == PAM_PROMPT_ECHO_OFF)
			(*r)[i].resp = strdup(password);
		else
			printf("%s\n", m[i]->msg);
	}
	return PAM_SUCCESS;
}

int main(int argc, char **argv)
{
	struct pam_conv conv = {answer, argc > 2 ? argv[2] : NULL};
	pam_handle_t *pamh;
	int rc;

	if (argc != 4)
		return 99;
	setbuf(stdout, NULL);
	if (pam_start("pamhost", argv[1], &conv, &pamh) != PAM_SUCCESS)
		return 98;
	rc = pam_authenticate(pamh, 0);
	printf("auth %d\n", rc);
	if (rc == PAM_SUCCESS)
		rc = pam_set_item(pamh, PAM_USER, argv[3]);
	if (rc == PAM_SUCCESS) {
		printf("account %d\n", pam_acct_mgmt(pamh, 0));
		rc = pam_open_session(pamh, 0);
		printf("open %d\n", rc);
	}
	if (rc == PAM_SUCCESS)
		pam_close_session(pamh, 0);
	pam_end(pamh, rc);
	return rc;
}
