#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/io_uring.h>
#include <linux/magic.h>

#include "clinux.h"

off_t clinux_seek_data(int file, off_t from) { return lseek(file, from, SEEK_DATA); }

off_t clinux_seek_hole(int file, off_t from) { return lseek(file, from, SEEK_HOLE); }

int clinux_punch_hole(int file, off_t offset, off_t length) {
  return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int clinux_is_tmpfs(int file) {
  struct statfs status;
  if (fstatfs(file, &status) < 0) return -1;
  return status.f_type == TMPFS_MAGIC;
}

int clinux_hold_pages(const void *address, size_t length, int pipe_ends[2]) {
  if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) < 0) return -1;
  struct iovec part = {(void *)address, length};
  if (fcntl(pipe_ends[1], F_SETPIPE_SZ, (int)length) >= 0) {
    ssize_t held = vmsplice(pipe_ends[1], &part, 1, SPLICE_F_NONBLOCK);
    if (held == (ssize_t)length) return 0;
    if (held >= 0) errno = ENOMEM;
  }
  int saved = errno;
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  errno = saved;
  return -1;
}

int clinux_mount_tmpfs(const char *path, const char *options) {
  return mount("snowfork", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
}

int clinux_has_io_uring(void) {
  struct io_uring_params parameters = {0};
  int ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);
  if (ring >= 0) close(ring);
  return ring >= 0;
}
