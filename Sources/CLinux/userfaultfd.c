#define _GNU_SOURCE
#include "clinux_userfaultfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>

int clinux_uffd_new(int device) { return ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK); }

int clinux_uffd_api(int uffd, uint64_t *features) {
  struct uffdio_api api = {.api = UFFD_API, .features = *features};
  if (ioctl(uffd, UFFDIO_API, &api) < 0) return -1;
  *features = api.features;
  return 0;
}

int clinux_uffd_register(int uffd, uint64_t address, uint64_t length, uint64_t mode) {
  struct uffdio_register range = {.range = {address, length}, .mode = mode};
  return ioctl(uffd, UFFDIO_REGISTER, &range);
}

int clinux_uffd_unregister(int uffd, uint64_t address, uint64_t length) {
  struct uffdio_range range = {address, length};
  return ioctl(uffd, UFFDIO_UNREGISTER, &range);
}

int clinux_uffd_wake(int uffd, uint64_t address, uint64_t length) {
  struct uffdio_range range = {address, length};
  return ioctl(uffd, UFFDIO_WAKE, &range);
}

int clinux_uffd_write_protect(int uffd, uint64_t address, uint64_t length, int protect) {
  struct uffdio_writeprotect range = {{address, length}, protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
  return ioctl(uffd, UFFDIO_WRITEPROTECT, &range);
}

int clinux_uffd_zero(int uffd, uint64_t address, uint64_t length, uint64_t *done) {
  struct uffdio_zeropage range = {.range = {address, length}};
  int result = ioctl(uffd, UFFDIO_ZEROPAGE, &range);
  *done = range.zeropage > 0 ? (uint64_t)range.zeropage : 0;
  return result;
}

// <linux/fs.h> has this from Linux 6.7 on.
struct pm_scan_arg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)

long clinux_pagemap_scan(int pagemap, uint64_t start, uint64_t end, uint64_t required, uint64_t inverted,
                         uint64_t returned, struct clinux_page_region *regions, uint64_t room, uint64_t *next) {
  struct pm_scan_arg scan = {.size = sizeof scan,
                             .start = start,
                             .end = end,
                             .vec = (uintptr_t)regions,
                             .vec_len = room,
                             .category_inverted = inverted,
                             .category_mask = required | inverted,
                             .return_mask = returned};
  long count = ioctl(pagemap, PAGEMAP_SCAN, &scan);
  *next = scan.walk_end;
  return count;
}
