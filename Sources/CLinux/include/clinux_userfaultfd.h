// userfaultfd and PAGEMAP_SCAN. One function, one ioctl: 0 on success, else -1 and errno.
//
// The ioctls work on the address space that the userfaultfd was made in, from any process that holds it: ESRCH says
// that this address space is gone.
#pragma once
#include <stdint.h>

#include <linux/userfaultfd.h>

#pragma clang assume_nonnull begin

/// Features the pager asks for. Debian 12's headers are older than some kernels it runs on.
static const uint64_t CLINUX_UFFD_PAGEFAULT_FLAG_WP = 1 << 0;
static const uint64_t CLINUX_UFFD_MISSING_SHMEM = 1 << 5;
static const uint64_t CLINUX_UFFD_WP_HUGETLBFS_SHMEM = 1 << 12;  // Linux 5.19

/// USERFAULTFD_IOC_NEW on an open /dev/userfaultfd, non-blocking: the new descriptor. Linux 6.1.
int clinux_uffd_new(int device);
/// UFFDIO_API. `*features` in: those wanted; out: those the kernel has (0 asks for that only). Linux 4.3.
int clinux_uffd_api(int uffd, uint64_t *features);

enum { CLINUX_UFFD_MISSING = 1, CLINUX_UFFD_WRITE_PROTECT = 2 };
/// UFFDIO_REGISTER; a second time on the same range changes its mode. Linux 4.3, write-protection of shmem 5.19.
int clinux_uffd_register(int uffd, uint64_t address, uint64_t length, uint64_t mode);
/// UFFDIO_UNREGISTER: takes every protection back, and wakes those who wait for a missing page. Linux 4.3.
int clinux_uffd_unregister(int uffd, uint64_t address, uint64_t length);
/// UFFDIO_WAKE: threads waiting for a page of the range try again. Linux 4.3.
int clinux_uffd_wake(int uffd, uint64_t address, uint64_t length);
/// UFFDIO_WRITEPROTECT: protects, or lifts the protection and wakes. EAGAIN: the mappings are changing. Linux 5.7.
int clinux_uffd_write_protect(int uffd, uint64_t address, uint64_t length, int protect);
/// UFFDIO_ZEROPAGE, and wakes. `*done`: bytes mapped. EEXIST: the next page has a mapping or a marker. Linux 4.3.
int clinux_uffd_zero(int uffd, uint64_t address, uint64_t length, uint64_t *done);

/// struct page_region of PAGEMAP_SCAN.
struct clinux_page_region {
  uint64_t start, end, categories;
};
static const uint64_t CLINUX_PAGE_IS_FILE = 1 << 2;
static const uint64_t CLINUX_PAGE_IS_PRESENT = 1 << 3;
static const uint64_t CLINUX_PAGE_IS_PFNZERO = 1 << 5;
/// PAGEMAP_SCAN on an open /proc/PID/pagemap: regions of pages that are `required` and not `inverted`, with their
/// `returned` categories. The number of regions; `*next` is where to go on. Linux 6.7.
long clinux_pagemap_scan(int pagemap, uint64_t start, uint64_t end, uint64_t required, uint64_t inverted,
                         uint64_t returned, struct clinux_page_region *regions, uint64_t room, uint64_t *next);

#pragma clang assume_nonnull end
