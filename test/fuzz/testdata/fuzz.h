/* SPDX-License-Identifier: Apache-2.0
 * What the fuzzers of the modules have in common. */
#ifndef XOS_FUZZ_H
#define XOS_FUZZ_H

#include "world.h"

#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <security/pam_modules.h>

/* Who is looked up, and logs in. */
#define USER "alice@physics"
#define USER_ID 1879050001u
#define GROUP "physics"
#define GROUP_ID 1900000000u

struct world {
	const unsigned char *reply; /* of the service */
	size_t n;
	int descriptor; /* whether one comes with it */
	int service;    /* the service's end of the last connection, or -1 */
	int status, printed;
	jmp_buf end;
	void *data; /* of the module, in the host */
	void (*clean)(pam_handle_t *, void *, int);
};
extern struct world world;

/* Ends the fuzzer where something must hold and does not. */
#define require(holds)                                                         \
	do {                                                                       \
		if (!(holds))                                                          \
			broken(__FILE__, __LINE__, #holds);                                \
	} while (0)
void broken(const char *file, int line, const char *what) __attribute__((noreturn));

/* Text that can neither command a terminal nor, unless lines are allowed, end
 * a line. */
void require_line(const char *text, int lines);
/* What may be told to a program about a user or group. */
void require_passwd(const struct passwd *pw, const char *mem, size_t n);
void require_group(const struct group *gr, const char *mem, size_t n);

#endif
