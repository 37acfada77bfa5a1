/* SPDX-License-Identifier: Apache-2.0
 * A program that loads and unloads the module again and again, and one that
 * handles signals itself.   usage: loader reload COUNT | loader signals COUNT
 * It prints nothing if all is well. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <nss.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

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

static int maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	int c, n = 0;

	if (f == NULL)
		return -1;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static int reload_once(void)
{
	void *module = dlopen("libnss_xos.so.2", RTLD_NOW | RTLD_LOCAL);
	enum nss_status (*look_up)(const char *, struct passwd *, char *, size_t, int *);
	struct passwd pw;
	char b[4096];
	int err, found;

	if (module == NULL)
		return 0;
	*(void **)&look_up = dlsym(module, "_nss_xos_getpwnam_r");
	found = look_up != NULL &&
	        look_up("alice@physics", &pw, b, sizeof b, &err) == NSS_STATUS_SUCCESS &&
	        look_up("zoe@physics", &pw, b, sizeof b, &err) == NSS_STATUS_SUCCESS;
	return dlclose(module) == 0 && found;
}

static int reload(int count)
{
	size_t used;
	int i, fds, mapped;

	for (i = 0; i < 10; i++)
		if (!reload_once())
			return printf("it does not load or find\n");
	used = mallinfo2().uordblks;
	fds = entries("/proc/self/fd");
	mapped = maps();
	for (i = 0; i < count; i++)
		if (!reload_once())
			return printf("round %d failed\n", i);
	if (entries("/proc/self/fd") != fds)
		printf("%d descriptors became %d\n", fds, entries("/proc/self/fd"));
	if (maps() != mapped)
		printf("%d mappings became %d\n", mapped, maps());
	if (entries("/proc/self/task") != 3)
		printf("there are threads\n");
	if (mallinfo2().uordblks > used + 4096)
		printf("%zu bytes became %zu\n", used, mallinfo2().uordblks);
	return 0;
}

static volatile sig_atomic_t children, alarms, pipes;

static void on_child(int s)
{
	(void)s;
	children++;
}
static void on_alarm(int s)
{
	(void)s;
	alarms++;
}
static void on_pipe(int s)
{
	(void)s;
	pipes++;
}

/* Signals come at any moment of a lookup, without SA_RESTART; they are all the
 * host's, and no lookup fails of one or raises one. */
static int signals(int count)
{
	struct sigaction child = {.sa_handler = on_child}, alrm = {.sa_handler = on_alarm},
	                 broken = {.sa_handler = on_pipe}, now;
	struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
	struct passwd pw, *p;
	char b[4096];
	int i, born = 0, reaped = 0;

	sigaction(SIGCHLD, &child, NULL);
	sigaction(SIGALRM, &alrm, NULL);
	sigaction(SIGPIPE, &broken, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (i = 0; i < count; i++) {
		pid_t pid = i % 20 == 0 ? fork() : -1;
		int rc;

		if (pid == 0)
			_exit(0);
		born += pid > 0;
		rc = getpwnam_r(i % 2 ? "alice@physics" : "zoe@physics", &pw, b, sizeof b, &p);
		if (rc != 0 || p == NULL)
			return printf("lookup %d: %s\n", i, rc != 0 ? strerror(rc) : "not found");
	}
	setitimer(ITIMER_REAL, &never, NULL);
	while (reaped < born && (wait(NULL) > 0 || errno == EINTR))
		reaped++;
	for (i = 0; i < 3; i++) {
		static const int which[] = {SIGCHLD, SIGALRM, SIGPIPE};
		void (*mine[])(int) = {on_child, on_alarm, on_pipe};

		sigaction(which[i], NULL, &now);
		if (now.sa_handler != mine[i])
			printf("signal %d has another handler\n", which[i]);
	}
	if (children == 0 || alarms == 0)
		printf("%d children, %d alarms were seen\n", (int)children, (int)alarms);
	if (pipes != 0)
		printf("%d SIGPIPE\n", (int)pipes);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 99;
	if (strcmp(argv[1], "reload") == 0)
		reload(atoi(argv[2]));
	else
		signals(atoi(argv[2]));
	return 0;
}
