/* What failing_writes.c and failing_calls.c share: which change fails, and whether a path is below the directory on the disk. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Change number FIRST below ROOT fails with the error CODE, and so do all later ones unless ONCE is set. COUNT is of all changes,
   and TRACE is where each is noted. ROOT is empty while nothing fails. */
static struct control {
    int64_t first, count;
    int32_t code, once;
    char root[PATH_MAX], trace[PATH_MAX];
} *control;

static __thread char changed[2 * PATH_MAX + 2];

static void map_control(void)
{
    const char *name = getenv("FAILING_WRITES");
    int fd = name ? syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        control = NULL;
    close(fd);
}

static void note(const char *operation)
{
    char line[2 * PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%s %s\n", operation, changed);
    int fd = syscall(SYS_openat, AT_FDCWD, control->trace, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0 && syscall(SYS_write, fd, line, size) >= 0)
        close(fd);
}

static int is_below(const char *path)
{
    if (strncmp(path, control->root, strlen(control->root)))
        return 0;
    if (path != changed)
        snprintf(changed, sizeof changed, "%s", path);
    return 1;
}

static int fails(const char *operation, int below)
{
    if (!below)
        return 0;
    int64_t number = __atomic_fetch_add(&control->count, 1, __ATOMIC_SEQ_CST);
    if (control->trace[0])
        note(operation);
    if (number < control->first || (control->once && number > control->first))
        return 0;
    errno = control->code;
    return 1;
}
