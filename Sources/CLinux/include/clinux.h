// System calls that Swift can not make itself: variadic ones, and those that need macros.
// One function, one system call. Each returns what the call returns: -1 and errno on failure,
// nothing retried, nothing logged. Only LinuxSystem imports this module.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/types.h>

#pragma clang assume_nonnull begin

/// accept4(2) with SOCK_CLOEXEC; the peer's address is not asked for. Linux 2.6.28.
int clinux_accept4_cloexec(int listener);

/// getsockopt(2) SO_PEERCRED: 0, and the peer's process and user at the time it connected. Linux 2.6.
int clinux_peer_credentials(int socket, pid_t *pid, uid_t *uid);

/// sendmsg(2) with `count` (0 to 8) descriptors as SCM_RIGHTS; MSG_NOSIGNAL. Bytes sent. Linux 2.2.
ssize_t clinux_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors, size_t count);

/// recvmsg(2) with MSG_CMSG_CLOEXEC: bytes read, 0 at the end; `*received` descriptors are then the caller's to close,
/// also when there are more than the caller has room for (those are closed here). Linux 2.6.23.
ssize_t clinux_receive_descriptors(int socket, void *buffer, size_t length, int *descriptors, size_t room,
                                   size_t *received);

/// prctl(2) PR_SET_NAME: names the calling thread; the kernel keeps 15 bytes. Linux 2.6.9.
int clinux_set_thread_name(const char *name);

#pragma clang assume_nonnull end
