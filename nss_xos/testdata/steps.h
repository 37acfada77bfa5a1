/* SPDX-License-Identifier: Apache-2.0
 * Stands before the module's files while they are compiled for steps.c: there
 * is a step before and after all that another process can see of a mapping. */
#ifndef XOS_STEPS_H
#define XOS_STEPS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/mman.h>

void step(void);
void *step_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int step_munmap(void *p, size_t n);

#define mmap step_mmap
#define munmap step_munmap
#define madvise(...) (step(), madvise(__VA_ARGS__))
#define __atomic_store_n(...) (step(), __atomic_store_n(__VA_ARGS__))
#define __atomic_compare_exchange_n(...) (step(), __atomic_compare_exchange_n(__VA_ARGS__))
#define __atomic_fetch_add(...) (step(), __atomic_fetch_add(__VA_ARGS__))
#define __atomic_fetch_sub(...) (step(), __atomic_fetch_sub(__VA_ARGS__))
#define __atomic_fetch_or(...) (step(), __atomic_fetch_or(__VA_ARGS__))

#endif
