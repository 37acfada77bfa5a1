/* SPDX-License-Identifier: Apache-2.0
 * Asks the module as libsubid does, and prints what it says.
 *   usage: ask has OWNER KIND START COUNT | list OWNER KIND | who ID KIND */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

struct range {
	unsigned long start, count;
};

static void *find(const char *name)
{
	static void *module;
	void *f;

	if (module == NULL)
		module = dlopen("libsubid_xos.so", RTLD_LAZY);
	f = module != NULL ? dlsym(module, name) : NULL;
	if (f == NULL) {
		printf("%s\n", dlerror());
		exit(7);
	}
	return f;
}

int main(int argc, char **argv)
{
	int (*has)(const char *, unsigned long, unsigned long, int, bool *) = find("shadow_subid_has_range");
	int (*list)(const char *, int, struct range **, int *) = find("shadow_subid_list_owner_ranges");
	int (*who)(unsigned long, int, uid_t **, int *) = find("shadow_subid_find_subid_owners");
	void (*release)(void *) = find("shadow_subid_free");
	int kind, n = -1, i, status;

	if (argc < 4)
		return 2;
	kind = strcmp(argv[3], "uid") == 0 ? 1 : strcmp(argv[3], "gid") == 0 ? 2 : atoi(argv[3]);
	if (strcmp(argv[1], "has") == 0 && argc == 6) {
		bool yes = true;

		status = has(argv[2], strtoul(argv[4], NULL, 10), strtoul(argv[5], NULL, 10), kind, &yes);
		printf("%d %s\n", status, yes ? "yes" : "no");
	} else if (strcmp(argv[1], "list") == 0) {
		struct range *r = (void *)argv;

		status = list(argv[2], kind, &r, &n);
		printf("%d", status);
		for (i = 0; i < n; i++)
			printf(" %lu:%lu", r[i].start, r[i].count);
		printf("\n");
		release(r);
	} else {
		uid_t *uids = (void *)argv;

		status = who(strtoul(argv[2], NULL, 10), kind, &uids, &n);
		printf("%d", status);
		for (i = 0; i < n; i++)
			printf(" %u", uids[i]);
		printf("\n");
		release(uids);
	}
	return 0;
}
