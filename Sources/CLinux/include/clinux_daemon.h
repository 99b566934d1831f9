#pragma once
/* What the daemon itself needs of the kernel. Every function answers -1 with errno set on failure. */
#include <sys/types.h>

/// memfd_create(2) with MFD_CLOEXEC: a descriptor. Linux 3.17.
int clinux_memfd_create(const char *_Nonnull name);

/// umount2(2) MNT_DETACH, then rmdir(2), in the mount namespace `mounts` (an open /proc/PID/ns/mnt). The calling thread
/// moves there for good: unshare(2) CLONE_FS, then setns(2). Linux 3.8.
int clinux_unmount_in(int mounts, const char *_Nonnull path);

/// fork(2), setsid(2), execv(3) with standard input from /dev/null and output appended to `log`: the child's pid.
/// All other descriptors are closed, all signals are unblocked and at their default. A failed execv is the child's
/// exit status 127.
pid_t clinux_spawn_detached(const char *_Nonnull program, char *const _Nullable *_Nonnull arguments,
                            const char *_Nonnull log);
