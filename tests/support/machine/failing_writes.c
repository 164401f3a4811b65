/* A library for LD_PRELOAD: changes of files below one directory fail, when and how a file says that all processes with the library
   share (FAILING_WRITES names it; failing_writes.py writes it).

   Only calls of the C library are met, which is how Python, git, mksquashfs and XRootD make them. */

#include "failing_writes.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

__attribute__((constructor)) static void start(void) { map_control(); }

/* Writes of this process do not count any more. */
void leave(void) { control = NULL; }

static int of_descriptor(int fd)
{
    if (!control || !control->root[0])
        return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, changed, PATH_MAX);
    if (length < 0)
        return 0;
    changed[length] = 0;
    return is_below(changed);
}

static int of_path(int directory, const char *path)
{
    if (!control || !control->root[0])
        return 0;
    if (path[0] == '/')
        return is_below(path);
    if (directory != AT_FDCWD ? !of_descriptor(directory) : !getcwd(changed, PATH_MAX) || !is_below(changed))
        return 0;
    strcat(strncat(changed, "/", 2), path);
    return 1;
}

/* A directory that exists is not changed by mkdir. */
static int is_new(int directory, const char *path)
{
    return control && control->root[0] && faccessat(directory, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define PASS(type, name, parameters, below, arguments) \
    type name parameters { return fails(#name, below) ? (type)-1 : REAL(name) arguments; }

PASS(ssize_t, write, (int fd, const void *data, size_t size), of_descriptor(fd), (fd, data, size))
PASS(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), of_descriptor(fd), (fd, data, size, at))
PASS(ssize_t, pwritev64v2, (int fd, const struct iovec *parts, int count, off64_t at, int flags), of_descriptor(fd),
     (fd, parts, count, at, flags))
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
PASS(int, mkdir, (const char *path, mode_t mode), is_new(AT_FDCWD, path) && of_path(AT_FDCWD, path), (path, mode))
PASS(int, mkdirat, (int at, const char *path, mode_t mode), is_new(at, path) && of_path(at, path), (at, path, mode))

#define OPEN(name, directory, parameters, arguments)                    \
    int name parameters                                                 \
    {                                                                   \
        mode_t mode = 0;                                                \
        if (flags & O_CREAT) {                                          \
            va_list rest;                                               \
            va_start(rest, flags);                                      \
            mode = va_arg(rest, mode_t);                                \
            va_end(rest);                                               \
            if (fails(#name, of_path(directory, path)))                 \
                return -1;                                              \
        }                                                               \
        return REAL(name) arguments;                                    \
    }

OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, mode))
