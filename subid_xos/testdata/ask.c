/* SPDX-License-Identifier: Apache-2.0
 * Asks the module as libsubid does, and prints what it says, a line for each of
 * standard input: has OWNER KIND START COUNT, list OWNER KIND, or who ID KIND. */
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

static int kind_of(const char *word)
{
	return strcmp(word, "uid") == 0 ? 1 : strcmp(word, "gid") == 0 ? 2 : atoi(word);
}

int main(void)
{
	int (*has)(const char *, unsigned long, unsigned long, int, bool *) = find("shadow_subid_has_range");
	int (*list)(const char *, int, struct range **, int *) = find("shadow_subid_list_owner_ranges");
	int (*who)(unsigned long, int, uid_t **, int *) = find("shadow_subid_find_subid_owners");
	void (*release)(void *) = find("shadow_subid_free");
	char line[1024], what[16], whom[512], kind[16];
	unsigned long start, count;

	while (fgets(line, sizeof line, stdin) != NULL) {
		int n = -1, i, words = sscanf(line, "%15s %511s %15s %lu %lu", what, whom, kind, &start, &count);

		if (strcmp(what, "has") == 0 && words == 5) {
			bool yes = true;
			int status = has(whom, start, count, kind_of(kind), &yes);

			printf("%d %s\n", status, yes ? "yes" : "no");
		} else if (strcmp(what, "list") == 0 && words == 3) {
			struct range *r = (void *)line;

			printf("%d", list(whom, kind_of(kind), &r, &n));
			for (i = 0; i < n; i++)
				printf(" %lu:%lu", r[i].start, r[i].count);
			printf("\n");
			release(r);
		} else if (strcmp(what, "who") == 0 && words == 3) {
			uid_t *uids = (void *)line;

			printf("%d", who(strtoul(whom, NULL, 10), kind_of(kind), &uids, &n));
			for (i = 0; i < n; i++)
				printf(" %u", uids[i]);
			printf("\n");
			release(uids);
		} else {
			return 2;
		}
	}
	return 0;
}
