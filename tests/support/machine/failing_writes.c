/* A library for LD_PRELOAD: changes of files below one directory fail, from the moment that fail_writes() is called.

   Only calls of the C library are met, which is how Python makes them. Counting starts anew with every fail_writes().
   Another program is told by its environment: FAILING_WRITES_ROOT, _NUMBER, _ERROR, _ONCE, and _MET, a file that it makes at its
   end if any change failed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static long first, count;
static int code, once;

/* Change number FIRST below DIRECTORY fails with the error CODE, and so do all later ones unless ONCE is set. */
void fail_writes(const char *directory, long number, int error, int only)
{
    strncpy(root, directory, sizeof root - 1);
    first = number;
    code = error;
    once = only;
    count = 0;
}

/* Stop failing; return whether any change failed. */
int stop_failing(void)
{
    int met = count > first;
    root[0] = 0;
    return met;
}

__attribute__((constructor)) static void start(void)
{
    const char *directory = getenv("FAILING_WRITES_ROOT");
    if (directory)
        fail_writes(directory, atol(getenv("FAILING_WRITES_NUMBER")), atoi(getenv("FAILING_WRITES_ERROR")),
                    atoi(getenv("FAILING_WRITES_ONCE")));
}

__attribute__((destructor)) static void end(void)
{
    const char *name = getenv("FAILING_WRITES_MET");
    if (name && stop_failing())
        fclose(fopen(name, "w"));
}

static int is_below(const char *path) { return strncmp(path, root, strlen(root)) == 0; }

static int fails(int below)
{
    if (!below)
        return 0;
    long number = __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
    if (number < first || (once && number > first))
        return 0;
    errno = code;
    return 1;
}

static int of_descriptor(int fd)
{
    if (!root[0])
        return 0;
    char link[64], target[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, PATH_MAX);
    if (length < 0)
        return 0;
    target[length] = 0;
    return is_below(target);
}

static int of_path(int directory, const char *path)
{
    if (!root[0])
        return 0;
    return path[0] == '/' ? is_below(path) : directory != AT_FDCWD && of_descriptor(directory);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define PASS(type, name, parameters, below, arguments) \
    type name parameters { return fails(below) ? (type)-1 : REAL(name) arguments; }

PASS(ssize_t, write, (int fd, const void *data, size_t size), of_descriptor(fd), (fd, data, size))
PASS(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), of_descriptor(fd), (fd, data, size, at))
PASS(ssize_t, copy_file_range, (int in, off64_t *from, int fd, off64_t *at, size_t size, unsigned flags), of_descriptor(fd),
     (in, from, fd, at, size, flags))
PASS(ssize_t, sendfile64, (int fd, int in, off64_t *from, size_t size), of_descriptor(fd), (fd, in, from, size))
PASS(int, ftruncate64, (int fd, off64_t size), of_descriptor(fd), (fd, size))
PASS(int, fsync, (int fd), of_descriptor(fd), (fd))
PASS(int, fdatasync, (int fd), of_descriptor(fd), (fd))
PASS(int, syncfs, (int fd), of_descriptor(fd), (fd))
PASS(int, rename, (const char *from, const char *to), of_path(AT_FDCWD, to), (from, to))
PASS(int, renameat, (int in, const char *from, int at, const char *to), of_path(at, to), (in, from, at, to))
PASS(int, link, (const char *from, const char *to), of_path(AT_FDCWD, to), (from, to))
PASS(int, linkat, (int in, const char *from, int at, const char *to, int flags), of_path(at, to), (in, from, at, to, flags))
PASS(int, symlink, (const char *target, const char *path), of_path(AT_FDCWD, path), (target, path))
PASS(int, symlinkat, (const char *target, int at, const char *path), of_path(at, path), (target, at, path))
PASS(int, mkdir, (const char *path, mode_t mode), of_path(AT_FDCWD, path), (path, mode))
PASS(int, mkdirat, (int at, const char *path, mode_t mode), of_path(at, path), (at, path, mode))

#define OPEN(name, directory, parameters, arguments)                    \
    int name parameters                                                 \
    {                                                                   \
        mode_t mode = 0;                                                \
        if (flags & O_CREAT) {                                          \
            va_list rest;                                               \
            va_start(rest, flags);                                      \
            mode = va_arg(rest, mode_t);                                \
            va_end(rest);                                               \
            if (fails(of_path(directory, path)))                        \
                return -1;                                              \
        }                                                               \
        return REAL(name) arguments;                                    \
    }

OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))
