/* SPDX-License-Identifier: Apache-2.0
 * usage: lookup ROUNDS TIMES NAME NAME
 * Looks two users up by turns and prints, for each round, how many
 * microseconds a lookup took of either. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double took(const char *name, int times)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < times; i++)
		if (getpwnam(name) == NULL) {
			fprintf(stderr, "there is no user %s\n", name);
			exit(1);
		}
	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) / times;
}

int main(int argc, char **argv)
{
	int rounds, times;

	if (argc != 5)
		return 2;
	rounds = atoi(argv[1]);
	times = atoi(argv[2]);
	/* Loads the modules. */
	took(argv[3], 1);
	took(argv[4], 1);
	for (int i = 0; i < rounds; i++) {
		double ours = took(argv[3], times);

		printf("%.3f %.3f\n", ours, took(argv[4], times));
	}
	return 0;
}
