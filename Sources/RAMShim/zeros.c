// Runs of pages that are zeros to a clone are memory of its own from the start: the kernel gives pages there by itself,
// as it would to any process, and nobody need be asked.
//
// Faults there are not reported, so nothing of a run may ever have to be fetched: the pager names only pages whose
// state is `zero`, which is final. When the clone is forked all of its RAM is registered, these runs too.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../CLinux/include/ramshim_protocol.h"
#include "ramshim.h"

#ifndef PR_THP_DISABLE_EXCEPT_ADVISED
#define PR_THP_DISABLE_EXCEPT_ADVISED (1 << 1)  // Linux 6.18
#endif

// The largest blocks of a guest's page allocator. It breaks one up only when it has no smaller one, so a huge page
// there is soon used.
static const size_t block_bytes = 4u << 20;

static bool map_run(const struct guest_ram *ram, struct ramshim_run run) {
  size_t first = (size_t)run.first * page_bytes, bytes = (size_t)run.count * page_bytes;
  if (bytes == 0 || first >= ram->bytes || bytes > ram->bytes - first) return false;
  char *start = (char *)ram->address + first;
  if (syscall(SYS_mmap, start, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) ==
      (long)MAP_FAILED)
    return false;
  overwrite_leave(run.first, run.count);
  size_t block = (first + block_bytes - 1) / block_bytes * block_bytes;
  size_t end = (first + bytes) / block_bytes * block_bytes;
  if (block < end) syscall(SYS_madvise, (char *)ram->address + block, end - block, MADV_HUGEPAGE);
  return true;
}

bool zeros_map(const struct guest_ram *ram, int file, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    struct ramshim_run run;
    if (pread(file, &run, sizeof run, (off_t)(i * sizeof run)) != sizeof run || !map_run(ram, run)) return false;
  }
  return true;
}

static bool are_huge_pages_for_all(void) {
  char text[128] = "";
  FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
  if (!file) return true;
  bool is_read = fgets(text, sizeof text, file);
  fclose(file);
  return !is_read || strstr(text, "[always]");
}

static bool is_slot;

// A slot's RAM will be 4 KiB pages of a snapshot, and memory of its own. Huge pages could otherwise only come to QEMU's
// own memory, such as TCG's code buffer: clearing them takes a clone 10 ms of its first hundred.
__attribute__((constructor)) static void restrain_huge_pages(void) {
  is_slot = getenv("SNOWFORK_SHIM_NO_HUGE_PAGES");
  if (!is_slot || !prctl(PR_SET_THP_DISABLE, 1, PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0)) return;
  // An older kernel: all or none. Where only what is advised gets them, QEMU's advice is not heard below.
  if (are_huge_pages_for_all()) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

INTERPOSED int madvise(void *address, size_t length, int advice) {
  if (is_slot && advice == MADV_HUGEPAGE) return 0;
  return (int)syscall(SYS_madvise, address, length, advice);
}
