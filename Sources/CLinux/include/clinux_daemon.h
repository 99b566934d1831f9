#pragma once
/* What the daemon itself needs of the kernel. Every function answers -1 with errno set on failure. */
#include <sys/types.h>

/// memfd_create(2) with MFD_CLOEXEC: a descriptor. Linux 3.17.
int clinux_memfd_create(const char *_Nonnull name);

/// prctl(2) PR_SET_CHILD_SUBREAPER: orphans of ours become our children. Linux 3.4.
int clinux_become_subreaper(void);

/// unshare(2) CLONE_NEWNS, then mount(2) / as a slave: mounts made from here on are seen by us and our children only,
/// while those made outside still reach us. To be called before any thread is started. Linux 2.6.15.
int clinux_unshare_mounts(void);

/// mount(2) MS_BIND of `source` over `target`. Linux 2.4.
int clinux_bind_mount(const char *_Nonnull source, const char *_Nonnull target);

/// umount2(2) MNT_DETACH. Linux 2.4.11.
int clinux_unmount(const char *_Nonnull path);

/// fork(2), setsid(2), execv(3) with standard input from /dev/null and output appended to `log`: the child's pid.
/// All other descriptors are closed, all signals are unblocked and at their default. A failed execv is the child's
/// exit status 127.
pid_t clinux_spawn_detached(const char *_Nonnull program, char *const _Nullable *_Nonnull arguments,
                            const char *_Nonnull log);
