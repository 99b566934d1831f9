// Network namespaces and taps. As clinux.h says: one function, one system call; -1 and errno on failure.
#pragma once
#include <sys/types.h>

#pragma clang assume_nonnull begin

/// fstatfs(2): 1 if the file is a namespace, 0 if not. Linux 3.19.
int clinux_is_namespace(int file);

/// setns(2) of the calling thread into a network namespace. Linux 3.0.
int clinux_enter_network(int namespace_file);

/// setns(2) of the calling thread into a mount namespace; EINVAL if it shares its root and working directory with
/// other threads. Linux 3.8.
int clinux_enter_mounts(int namespace_file);

/// unshare(2) of the calling thread: a root and working directory of its own; a new network namespace. Linux 2.6.24.
int clinux_unshare_directories(void);
int clinux_unshare_network(void);

/// ioctl(2) TUNSETIFF on an open /dev/net/tun: 0. The file is then the queue of the tap `name`, which is made in the
/// file's namespace if there is none. EBUSY: somebody else has it open. Linux 2.6.
int clinux_tap_attach(int file, const char *name, int has_virtio_header);

/// ioctl(2) TUNSETPERSIST: whether the tap outlives its file. TUNSETOWNER: who may open it unprivileged. Linux 2.6.
int clinux_tap_set_persistent(int file, int is_persistent);
int clinux_tap_set_owner(int file, uid_t owner);

/// ioctl(2) TUNSETOFFLOAD: the reader takes frames without checksums and TCP segments larger than the MTU, as guests
/// do. Needs the virtio header. Linux 2.6.27.
int clinux_tap_accept_segments(int file);

#pragma clang assume_nonnull end
