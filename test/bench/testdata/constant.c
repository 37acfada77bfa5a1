/* SPDX-License-Identifier: Apache-2.0
 * A module of the name service switch that finds one user, always the same,
 * without looking: what a lookup costs when no module could be faster. */
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>

static enum nss_status found(struct passwd *pw, char *buffer, size_t size, int *err)
{
	static const char text[] = "alice@physics\0*\0Alice\0/home/xos/physics/alice\0/bin/sh";

	if (size < sizeof text) {
		*err = ERANGE;
		return NSS_STATUS_TRYAGAIN;
	}
	memcpy(buffer, text, sizeof text);
	*pw = (struct passwd){.pw_name = buffer, .pw_passwd = buffer + 14, .pw_uid = 1879050001,
	                      .pw_gid = 1879050001, .pw_gecos = buffer + 16, .pw_dir = buffer + 22,
	                      .pw_shell = buffer + 46};
	return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_constant_getpwnam_r(const char *name, struct passwd *pw, char *buffer,
                                         size_t size, int *err)
{
	(void)name;
	return found(pw, buffer, size, err);
}

enum nss_status _nss_constant_getpwuid_r(uid_t uid, struct passwd *pw, char *buffer, size_t size,
                                         int *err)
{
	(void)uid;
	return found(pw, buffer, size, err);
}
