// System calls that Swift can not make itself: variadic ones, and those that need macros.
// One function, one system call. Each returns what the call returns: -1 and errno on failure,
// nothing retried, nothing logged. Only LinuxSystem imports this module.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/types.h>

#include "clinux_daemon.h"
#include "clinux_datagrams.h"
#include "clinux_network.h"
#include "clinux_userfaultfd.h"
#include "ramshim_protocol.h"

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

/// process_vm_readv(2) of one range: bytes read, fewer if a later page is not mapped. Needs ptrace rights. Linux 3.2.
ssize_t clinux_process_read(pid_t pid, uint64_t address, void *buffer, size_t length);

/// lseek(2) SEEK_DATA and SEEK_HOLE: the next offset with data, ENXIO if there is none; the next hole, or the end of
/// the file. Linux 3.1, on tmpfs 3.8.
off_t clinux_seek_data(int file, off_t from);
off_t clinux_seek_hole(int file, off_t from);

/// fallocate(2) FALLOC_FL_PUNCH_HOLE: 0. Linux 2.6.38.
int clinux_punch_hole(int file, off_t offset, off_t length);

/// fstatfs(2): 1 if the file is on tmpfs, 0 if not. Linux 2.6.
int clinux_is_tmpfs(int file);

/// pipe2(2) O_CLOEXEC, then vmsplice(2) of the range into it: the pipe, which must be kept, holds a reference on each
/// page. Nothing may read from it. At most 256 pages. Linux 2.6.35.
int clinux_hold_pages(const void *address, size_t length, int pipe_ends[_Nonnull 2]);

/// mount(2) of a tmpfs with huge=advise. Linux 4.8.
int clinux_mount_tmpfs(const char *path, const char *options);

/// io_uring_setup(2): 1 if this process may make a ring, 0 if not. Linux 5.1.
int clinux_has_io_uring(void);

#pragma clang assume_nonnull end
