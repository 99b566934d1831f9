// What a process does to itself at its start. Same conventions as clinux.h.
#pragma once

/// unshare(2) CLONE_NEWNS: a mount namespace of its own, for a process with one thread. 0. Linux 2.4.19.
int clinux_unshare_mounts(void);

/// prctl(2) PR_SET_CHILD_SUBREAPER: whether orphaned descendants become the caller's children. 0. Linux 3.4.
int clinux_set_subreaper(int on);
