/* SPDX-License-Identifier: Apache-2.0
 * What the modules take for the system while they are fuzzed. The files of the
 * modules are compiled with this before them, and are otherwise as they are. */
#ifndef XOS_FUZZ_WORLD_H
#define XOS_FUZZ_WORLD_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

/* A connection on which the whole reply has come already, from root. */
int world_socket(int domain, int type, int protocol);
int world_connect(int fd, const struct sockaddr *a, socklen_t n);
int world_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
/* The caller is root, who may ask the service. */
uid_t world_geteuid(void);
/* A mapping of a file is memory of exactly its size, past which the sanitizer
 * sees every access. */
void *world_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int world_munmap(void *p, size_t n);
/* What is logged is only formatted. */
void world_syslog(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A program that ends comes back to the fuzzer. */
void world_exit(int status) __attribute__((noreturn));
int world_puts(const char *line);

#define socket world_socket
#define connect world_connect
#define getsockopt world_getsockopt
#define geteuid world_geteuid
#define mmap world_mmap
#define munmap world_munmap
#define syslog world_syslog

#endif
