/* SPDX-License-Identifier: Apache-2.0
 * usage: lookup ROUNDS TIMES NAME NAME FOREIGN
 * Looks two users up by turns and prints, for each round, how many
 * microseconds a lookup took of either, and how many nss_xos alone took to say
 * that it has no FOREIGN: what it adds to each lookup that is not its own. */
#include <dlfcn.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef enum nss_status lookup(const char *, struct passwd *, char *, size_t, int *);

static double since(const struct timespec *a, int times)
{
	struct timespec b;

	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((double)(b.tv_sec - a->tv_sec) * 1e6 + (double)(b.tv_nsec - a->tv_nsec) / 1e3) / times;
}

static double missed(lookup *ours, const char *name, int times)
{
	struct timespec a;
	struct passwd pw;
	char buf[1024];
	int err;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < times; i++)
		if (ours(name, &pw, buf, sizeof buf, &err) != NSS_STATUS_NOTFOUND) {
			fprintf(stderr, "%s is found\n", name);
			exit(1);
		}
	return since(&a, times);
}

static double took(const char *name, int times)
{
	struct timespec a;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < times; i++)
		if (getpwnam(name) == NULL) {
			fprintf(stderr, "there is no user %s\n", name);
			exit(1);
		}
	return since(&a, times);
}

int main(int argc, char **argv)
{
	void *module = dlopen("libnss_xos.so.2", RTLD_NOW);
	lookup *ours = module != NULL ? (lookup *)dlsym(module, "_nss_xos_getpwnam_r") : NULL;
	int rounds, times;

	if (argc != 6)
		return 2;
	if (ours == NULL) {
		fprintf(stderr, "no module: %s\n", dlerror());
		return 1;
	}
	rounds = atoi(argv[1]);
	times = atoi(argv[2]);
	/* Loads the modules. */
	took(argv[3], 1);
	took(argv[4], 1);
	for (int i = 0; i < rounds; i++) {
		double grid = took(argv[3], times), local = took(argv[4], times);

		printf("%.3f %.3f %.5f\n", grid, local, missed(ours, argv[5], times));
	}
	return 0;
}
