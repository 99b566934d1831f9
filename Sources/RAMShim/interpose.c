// Finds the guest RAM of the QEMU that this library is preloaded into.
//
// QEMU maps RAM that is backed by a file in two steps (util/mmap-alloc.c, qemu_ram_mmap): it reserves address space
// with an anonymous PROT_NONE mapping, then maps the file over it with MAP_FIXED. The shim stands before mmap:
//  - a large reservation is aligned to 2 MiB, so that a tmpfs with huge=advise can map huge pages;
//  - the first shared mapping of a file below SNOWFORK_SHIM_MEMORY is the guest's RAM.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ramshim.h"

static const size_t huge_page = 2u << 20;
static struct guest_ram ram;

static void *map(void *address, size_t length, int protection, int flags, int file, off_t offset) {
  return (void *)syscall(SYS_mmap, address, length, protection, flags, file, offset);
}

// An anonymous reservation that begins at a multiple of 2 MiB: reserve more, give back head and tail.
static void *reserve_aligned(size_t length, int flags) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t whole = (length + page - 1) & ~(page - 1);
  char *start = map(NULL, whole + huge_page, PROT_NONE, flags, -1, 0);
  if (start == MAP_FAILED) return start;
  char *aligned = (char *)(((uintptr_t)start + huge_page - 1) & ~(uintptr_t)(huge_page - 1));
  if (aligned > start) munmap(start, aligned - start);
  size_t tail = start + huge_page - aligned;
  if (tail > 0) munmap(aligned + whole, tail);
  return aligned;
}

// Whether the descriptor is a file below the directory that the daemon keeps guest RAM in.
static bool is_guest_memory(int file) {
  const char *directory = getenv("SNOWFORK_SHIM_MEMORY");
  if (!directory || !*directory) return false;
  char link[32], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = 0;
  size_t prefix = strlen(directory);
  return strncmp(path, directory, prefix) == 0 && path[prefix] == '/';
}

INTERPOSED void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
  if (!address && protection == PROT_NONE && file < 0 && (flags & MAP_ANONYMOUS) && length >= 2 * huge_page) {
    void *aligned = reserve_aligned(length, flags);
    if (aligned != MAP_FAILED) return aligned;
  }
  void *mapped = map(address, length, protection, flags, file, offset);
  if (mapped == MAP_FAILED || ram.address || file < 0 || !(flags & MAP_SHARED) || offset != 0) return mapped;
  int saved = errno;
  if (is_guest_memory(file)) {
    ram = (struct guest_ram){mapped, length, fcntl(file, F_DUPFD_CLOEXEC, 0)};
    // Without a channel QEMU would run unforkable, unnoticed: the daemon waits for the hello and times out.
    if (ram.file < 0 || !channel_start(&ram)) fputs("snowfork-ramshim: no descriptor or thread to be had\n", stderr);
  }
  errno = saved;
  return mapped;
}

INTERPOSED void *mmap64(void *address, size_t length, int protection, int flags, int file, off64_t offset) {
  return mmap(address, length, protection, flags, file, offset);
}
