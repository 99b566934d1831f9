// The calls by which QEMU's disks fill guest RAM (Debian 12, QEMU 7.2), with the guest's own pages as their buffers:
//  - the clone's own file: io_uring_submit, or with aio=threads pread64 and preadv64;
//  - what that file lacks: recvmsg, from the storage daemon's NBD socket.
// QEMU goes on after a short read, and fills up with zeros at the end of a file: what succeeds is filled whole.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/io_uring.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ramshim.h"

// Elements that lie side by side count as one: a page need not begin where an element does.
static void overwrite_all(const struct iovec *parts, size_t count) {
  uintptr_t start = 0, end = 0;
  for (size_t i = 0; i < count; i++) {
    uintptr_t next = (uintptr_t)parts[i].iov_base;
    if (next != end) {
      overwrite(start, end - start);
      start = end = next;
    }
    end += parts[i].iov_len;
  }
  overwrite(start, end - start);
}

// Parents and slots do not look at elements at all.
static bool is_sparing(void) { return atomic_load_explicit(&overwrite_range.bytes, memory_order_relaxed) > 0; }

INTERPOSED ssize_t recvmsg(int socket, struct msghdr *message, int flags) {
  if (is_sparing()) overwrite_all(message->msg_iov, message->msg_iovlen);
  return syscall(SYS_recvmsg, socket, message, flags);
}

INTERPOSED ssize_t pread64(int file, void *buffer, size_t length, off64_t offset) {
  overwrite((uintptr_t)buffer, length);
  return syscall(SYS_pread64, file, buffer, length, offset);
}

INTERPOSED ssize_t preadv64(int file, const struct iovec *parts, int count, off64_t offset) {
  if (is_sparing() && count > 0) overwrite_all(parts, (size_t)count);
  return syscall(SYS_preadv, file, parts, count, offset, 0L);
}

// The beginning of liburing's struct io_uring, the same since its first release with a stable ABI, 2.0.
struct io_uring {
  unsigned *head, *tail, *mask, *entry_count, *flags, *dropped, *array;
  struct io_uring_sqe *entries;
  unsigned first, end;  // of the entries that have been filled in since the last submit
};

static void overwrite_entry(const struct io_uring_sqe *entry) {
  if (entry->flags & IOSQE_BUFFER_SELECT) return;
  if (entry->opcode == IORING_OP_READV)
    overwrite_all((const struct iovec *)entry->addr, entry->len);
  else if (entry->opcode == IORING_OP_READ)
    overwrite(entry->addr, entry->len);
}

INTERPOSED int io_uring_submit(struct io_uring *ring) {
  static int (*_Atomic submit)(struct io_uring *);
  int (*found)(struct io_uring *) = submit;
  if (!found) submit = found = (int (*)(struct io_uring *))dlsym(RTLD_NEXT, "io_uring_submit");
  if (is_sparing())
    for (unsigned i = ring->first; i != ring->end; i++) overwrite_entry(&ring->entries[i & *ring->mask]);
  return found(ring);
}
