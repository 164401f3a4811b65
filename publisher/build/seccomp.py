"""The seccomp profile of test runs: system calls that no image needs to start, and through which kernels have been attacked.

It is a list of what is refused. Apptainer's own profile lists what is allowed and lacks clone3(2): threads fail to start under
it, also Apptainer's. The form is that of the OCI runtime specification (``linux.seccomp``).
"""

from __future__ import annotations

import json
import platform

_REFUSED = (
    *("mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "mount_setattr", "quotactl"),
    *("unshare", "setns", "open_by_handle_at", "name_to_handle_at", "chroot"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
    *("add_key", "request_key", "keyctl"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct"),
)
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}


def make_profile() -> str:
    """Return the profile as JSON, for the architectures whose programs this host runs."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": list(_ARCHITECTURES.get(platform.machine(), ())),
        "syscalls": [{"names": list(_REFUSED), "action": "SCMP_ACT_ERRNO"}],
    }
    return json.dumps({name: value for name, value in profile.items() if value})
