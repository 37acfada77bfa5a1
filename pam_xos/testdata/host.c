/* SPDX-License-Identifier: Apache-2.0
 * A daemon that lets people in, again and again: each time libpam loads and
 * unloads the module. It has no standard descriptors, and signals of its own.
 *   usage: host USER COUNT THREADS
 * It ends with 0 if all is well, otherwise with the number of what is not. */
#define _GNU_SOURCE
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *user;
static int count, failed;

static int say(int n, const struct pam_message **m, struct pam_response **r, void *none)
{
	(void)m, (void)none;
	*r = calloc((size_t)n, sizeof **r);
	return *r != NULL ? PAM_SUCCESS : PAM_BUF_ERR;
}

static int let_in(void)
{
	static const struct pam_conv conv = {say, NULL};
	pam_handle_t *h;
	int ok;

	if (pam_start("permits", user, &conv, &h) != PAM_SUCCESS)
		return 0;
	ok = pam_acct_mgmt(h, PAM_SILENT) == PAM_SUCCESS &&
	     pam_open_session(h, PAM_SILENT) == PAM_SUCCESS && pam_getenv(h, "XOS_SESSION") != NULL &&
	     pam_close_session(h, PAM_SILENT) == PAM_SUCCESS;
	return pam_end(h, PAM_SUCCESS) == PAM_SUCCESS && ok;
}

static void *run(void *none)
{
	int i;

	for (i = 0; i < count; i++)
		if (!let_in())
			__atomic_store_n(&failed, 1, __ATOMIC_SEQ_CST);
	return none;
}

static int entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (d != NULL && readdir(d) != NULL)
		n++;
	if (d != NULL)
		closedir(d);
	return n;
}

static void handler(int s)
{
	if (s == SIGPIPE)
		_exit(7); /* nobody raises it */
}

int main(int argc, char **argv)
{
	struct sigaction mine = {.sa_handler = handler}, now;
	pthread_t t[64];
	size_t used;
	int i, fds, threads;

	if (argc != 4 || (threads = atoi(argv[3])) > 64)
		return 99;
	user = argv[1];
	count = atoi(argv[2]);
	for (i = 0; i < 3; i++)
		close(i);
	sigaction(SIGPIPE, &mine, NULL);
	sigaction(SIGCHLD, &mine, NULL);
	for (i = 0; i < 10; i++)
		if (!let_in())
			return 1;
	used = mallinfo2().uordblks;
	fds = entries("/proc/self/fd");
	for (i = 0; i < threads; i++)
		if (pthread_create(&t[i], NULL, run, NULL) != 0)
			return 2;
	for (i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	if (threads == 0)
		run(NULL);
	if (failed)
		return 3;
	if (entries("/proc/self/fd") != fds)
		return 4;
	sigaction(SIGPIPE, NULL, &now);
	if (now.sa_handler != handler)
		return 5;
	/* Threads have their own arenas, so only one without counts. */
	if (threads == 0 && mallinfo2().uordblks > used + 4096)
		return 6;
	return 0;
}
