/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAM_XOS_H
#define PAM_XOS_H

#define PAM_SM_AUTH
#define PAM_SM_ACCOUNT
#define PAM_SM_SESSION
#define PAM_SM_PASSWORD
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <security/pam_modutil.h>

#include "../session/shim/xos_shim.h"

/* PAM_SUCCESS and the name if this is a grid user's login, PAM_IGNORE if it is
 * someone else's and none of this module's business. A name that looks like a
 * grid user's but has a local uid belongs to another directory (sssd's
 * user@domain); one that has no uid at all is refused by whoever asks. */
int grid_user(pam_handle_t *pamh, const char **user);

/* The fields "pam" of a request, in memory that holds the largest message;
 * request_free must follow. */
void request_start(pam_handle_t *pamh, const char *user, struct xos_out *q);
void request_free(struct xos_out *q);

/* Shows a message of the session service, if it is not empty. */
void show(pam_handle_t *pamh, int flags, int style, struct xos_str text);

/* Logs that the session service gave an answer that is none. */
void malformed(pam_handle_t *pamh, const char *user);

/* Sends the request. The status is -1 where there was no answer; a refusal has
 * been shown to the user and logged. xos_reply_free must follow. */
int consult(pam_handle_t *pamh, int flags, const char *user, int op, struct xos_out *q, int ms,
            struct xos_reply *reply);

/* The same, with the connection open still on *line, or -1. */
int consult_on(pam_handle_t *pamh, int flags, const char *user, int op, struct xos_out *q, int ms,
               struct xos_reply *reply, int *line);

/* The reply to PAM_OPEN. */
struct opened {
	char *id;
	struct xos_in env; /* its items, checked */
	uint32_t n_env;
	struct xos_str message;
	uint32_t descriptors;
};
/* Whether the reply is well-formed, all of it, before anything of it takes
 * effect. The caller frees id. */
int read_open_reply(struct xos_reply *r, struct opened *o);

#define EXPORT __attribute__((visibility("default")))
#define UNUSED __attribute__((unused))

#endif
