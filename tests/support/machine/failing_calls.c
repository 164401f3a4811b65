/* Runs a program whose changes of files fail like those of failing_writes.c, whatever library makes the system calls: Go's programs
   use none. The kernel asks this program about each of them (seccomp_unotify(2)). */

#include "failing_writes.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* The system calls, and which of their arguments are the descriptor that is changed, or the directory and the path; -1 for none. */
static const struct call { int number, descriptor, directory, path; const char *name; } calls[] = {
    {SYS_write, 0, -1, -1, "write"},         {SYS_pwrite64, 0, -1, -1, "pwrite"},     {SYS_ftruncate, 0, -1, -1, "ftruncate"},
    {SYS_fsync, 0, -1, -1, "fsync"},         {SYS_copy_file_range, 2, -1, -1, "copy"}, {SYS_openat, -1, 0, 1, "open"},
    {SYS_mkdirat, -1, 0, 1, "mkdir"},        {SYS_symlinkat, -1, 1, 2, "symlink"},    {SYS_linkat, -1, 2, 3, "link"},
    {SYS_renameat, -1, 2, 3, "rename"},      {SYS_renameat2, -1, 2, 3, "rename"},
};
enum { CALLS = sizeof calls / sizeof *calls };

static int install(void)
{
    struct sock_filter code[CALLS + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int i = 0; i < CALLS; i++)
        code[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, CALLS - i, 0);
    code[CALLS + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[CALLS + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {CALLS + 3, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* Write the path of a descriptor of a process, or of its working directory, to `changed`. */
static int look_up(int pid, int descriptor)
{
    char link[64];
    if (descriptor == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", pid);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, descriptor);
    ssize_t length = readlink(link, changed, PATH_MAX);
    changed[length < 0 ? 0 : length] = 0;
    return length > 0;
}

static int is_met(const struct call *call, const struct seccomp_notif *asked)
{
    const __u64 *arguments = asked->data.args;
    if (call->descriptor >= 0)
        return look_up(asked->pid, arguments[call->descriptor]) && is_below(changed);
    if (call->number == SYS_openat && !(arguments[2] & O_CREAT))
        return 0;
    char memory[64], path[PATH_MAX + 1] = "";
    snprintf(memory, sizeof memory, "/proc/%d/mem", asked->pid);
    int fd = open(memory, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : pread(fd, path, PATH_MAX, arguments[call->path]);
    close(fd);
    if (size <= 0)
        return 0;
    if (path[0] == '/')
        return is_below(path);
    if (!look_up(asked->pid, (int)arguments[call->directory]) || !is_below(changed))
        return 0;
    strcat(strncat(changed, "/", 2), path);
    return 1;
}

static void answer(int listener)
{
    struct seccomp_notif asked = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
        return;
    struct seccomp_notif_resp said = {.id = asked.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    for (int i = 0; i < CALLS; i++)
        if (calls[i].number == asked.data.nr && control && control->root[0] && fails(calls[i].name, is_met(&calls[i], &asked))) {
            said.flags = 0;
            said.error = -control->code;
        }
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &said);
}

int main(int count, char **arguments)
{
    int pair[2], listener, status;
    map_control();
    if (count < 2 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 125;
    pid_t child = fork();
    if (child == 0) {
        listener = install();
        send(pair[1], &listener, sizeof listener, 0); /* no call that is asked about */
        recv(pair[1], &listener, sizeof listener, 0);
        execv(arguments[1], arguments + 1);
        _exit(127);
    }
    if (recv(pair[0], &listener, sizeof listener, 0) != sizeof listener || listener < 0)
        return 125;
    listener = syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, child, 0), listener, 0);
    send(pair[0], &listener, sizeof listener, 0);
    struct pollfd ready = {listener, POLLIN, 0};
    while (poll(&ready, 1, -1) >= 0 && !(ready.revents & POLLHUP))
        answer(listener);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
