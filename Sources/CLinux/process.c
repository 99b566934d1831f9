#define _GNU_SOURCE
#include <sys/prctl.h>
#include <sys/uio.h>

#include "clinux.h"

int clinux_set_thread_name(const char *name) { return prctl(PR_SET_NAME, name); }

ssize_t clinux_process_read(pid_t pid, uint64_t address, void *buffer, size_t length) {
  struct iovec here = {buffer, length};
  struct iovec there = {(void *)(uintptr_t)address, length};
  return process_vm_readv(pid, &here, 1, &there, 1, 0);
}
