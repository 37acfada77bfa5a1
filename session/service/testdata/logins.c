/* SPDX-License-Identifier: Apache-2.0
 * Lets people in as sshd does, so many at once: for each of them a process, which
 * looks the user up, runs xos-principals for the offered key and again for the
 * proven one, and goes through libpam with the machine's modules: account,
 * credentials, session, and out again.
 *   usage: logins AT_ONCE <PEOPLE    a line for each: USER TYPE KEY
 * It prints for each who was let in the microseconds until the session was open,
 * and then, in a line "all", those from the first login's begin to the last end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int say(int n, const struct pam_message **m, struct pam_response **r, void *none)
{
	int i;

	(void)none;
	for (i = 0; i < n; i++)
		fprintf(stderr, "%s\n", m[i]->msg);
	*r = calloc((size_t)n, sizeof **r);
	return *r != NULL ? PAM_SUCCESS : PAM_BUF_ERR;
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int principals(char *user, char *type, char *key)
{
	char *const argv[] = {"/run/lib/xos-principals", user, type, key, NULL};
	char *const env[] = {NULL};
	char answer[512] = "";
	posix_spawn_file_actions_t files;
	int status, p[2];
	ssize_t n = 0;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) != 0)
		return 0;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, p[1], 1);
	status = posix_spawn(&pid, argv[0], &files, NULL, argv, env);
	posix_spawn_file_actions_destroy(&files);
	close(p[1]);
	if (status == 0) {
		n = read(p[0], answer, sizeof answer - 1);
		waitpid(pid, &status, 0);
	}
	close(p[0]);
	return status == 0 && n > 0 && strncmp(answer, user, strlen(user)) == 0;
}

/* Gives 0, or the number of the step that failed. */
static int log_in(char *user, char *type, char *key)
{
	static const struct pam_conv conv = {say, NULL};
	long long begin = now();
	gid_t groups[64];
	struct passwd *pw;
	pam_handle_t *h;
	char *proven;
	int n = 64;

	if ((pw = getpwnam(user)) == NULL)
		return 1;
	if (!principals(user, type, key) || !principals(user, type, key))
		return 2;
	if (getgrouplist(user, pw->pw_gid, groups, &n) < 2)
		return 3;
	if (pam_start("sshd", user, &conv, &h) != PAM_SUCCESS ||
	    pam_set_item(h, PAM_RHOST, "192.0.2.7") != PAM_SUCCESS ||
	    pam_set_item(h, PAM_TTY, "ssh") != PAM_SUCCESS ||
	    asprintf(&proven, "SSH_AUTH_INFO_0=publickey %s %s\n", type, key) < 0 ||
	    pam_putenv(h, proven) != PAM_SUCCESS)
		return 4;
	if (pam_acct_mgmt(h, 0) != PAM_SUCCESS)
		return 5;
	if (pam_setcred(h, PAM_ESTABLISH_CRED) != PAM_SUCCESS)
		return 6;
	if (pam_open_session(h, 0) != PAM_SUCCESS || pam_getenv(h, "XOS_SESSION") == NULL)
		return 7;
	dprintf(1, "%lld\n", now() - begin);
	if (pam_close_session(h, 0) != PAM_SUCCESS)
		return 8;
	if (pam_setcred(h, PAM_DELETE_CRED) != PAM_SUCCESS || pam_end(h, PAM_SUCCESS) != PAM_SUCCESS)
		return 9;
	return 0;
}

static int failed;

static void reap(void)
{
	int status;

	if (wait(&status) > 0 && status != 0) {
		fprintf(stderr, "a login failed at step %d (status %x)\n", WEXITSTATUS(status), (unsigned)status);
		failed++;
	}
}

int main(int argc, char **argv)
{
	char *line = NULL, *user, *type, *key;
	int running = 0, most = argc == 2 ? atoi(argv[1]) : 0;
	size_t room = 0;
	long long begin = now();

	if (most < 1)
		return 99;
	while (getline(&line, &room, stdin) > 0) {
		user = strtok(line, " \n");
		type = strtok(NULL, " \n");
		key = strtok(NULL, " \n");
		if (key == NULL)
			return 98;
		if (running == most) {
			reap();
			running--;
		}
		switch (fork()) {
		case -1:
			return 97;
		case 0:
			_exit(log_in(user, type, key));
		}
		running++;
	}
	for (; running > 0; running--)
		reap();
	printf("all %lld\n", now() - begin);
	return failed > 0;
}
