// A page that a device is about to fill whole need not be fetched: zeros are mapped in its place, at no cost to the
// network or the pager, and the device writes over them.
//
// If the device then fails, the guest finds zeros in its buffer where it would have found what was there before. Of
// what a failed or unfinished read leaves in its buffer no device promises anything.
//
// Who else maps pages here? The kernel, for what is in the cache file, and the pager, for zeros. While the clone is
// forked, write-protection markers stand in missing pages. UFFDIO_ZEROPAGE looks at the entry of the page table under
// its lock and fills only one that is empty, so whoever comes first wins, and each order is right:
//  - a fault of this page is on its way to the pager: our zeros wake the thread that waits, and it reads a buffer that
//    the device owns. The pager puts the page into the cache for siblings, finds ours and leaves it;
//  - before a fork of this clone arms: our entry is one that the device's write would have made a moment later. It is
//    protected with the others, and the scan finds it private: zeros, or what the device wrote. A write that comes
//    after that is a write fault, which the pager records like any other;
//  - while arming protects page after page: before this page's turn as above, after it there is a marker;
//  - a marker: EEXIST, and the fault goes to the pager. It takes a marker away only to map the page itself, and between
//    arm and commit records it even if we were faster; or where no snapshot needs the page. The next arm finds it then.
//
// Memory of the clone's own (zeros.c) has no markers: there nothing is done, nor need it be.
//
// Never UFFDIO_COPY here, though it would save the write fault that follows: it replaces markers, and what the device
// wrote between scan and commit would be missing in the snapshot.
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "ramshim.h"

enum { word_bits = 64 };

struct overwrite_range overwrite_range;

// A bit a page, set: something is or will be mapped there, do not ask the kernel. It stays so: nothing takes pages of
// a clone's RAM away. A bit that is wrong costs a fetch and nothing else.
static _Atomic uint64_t *settled;
static int userfaultfd;
static _Atomic uint64_t pages_mapped;

static void settle(size_t page) {
  atomic_fetch_or_explicit(&settled[page / word_bits], 1ull << page % word_bits, memory_order_relaxed);
}

void overwrite_prepare(const struct guest_ram *ram) {
  size_t words = (ram->bytes / page_bytes + word_bits - 1) / word_bits;
  void *bitmap = mmap(NULL, words * sizeof *settled, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (bitmap != MAP_FAILED) settled = bitmap;
}

void overwrite_start(const struct guest_ram *ram, int uffd) {
  if (!settled) return;
  userfaultfd = uffd;
  overwrite_range.address = (uintptr_t)ram->address;
  atomic_store_explicit(&overwrite_range.bytes, ram->bytes, memory_order_release);
}

void overwrite_leave(size_t first, size_t count) {
  if (!settled) return;
  for (size_t i = first; i < first + count; i++) settle(i);
}

uint64_t overwrite_count(void) { return pages_mapped; }

static bool is_settled(size_t page) {
  return atomic_load_explicit(&settled[page / word_bits], memory_order_relaxed) >> page % word_bits & 1;
}

static void map_zeros(size_t first, size_t end) {
  while (first < end) {
    struct uffdio_zeropage zeros = {
        .range = {overwrite_range.address + first * page_bytes, (end - first) * page_bytes}};
    int failed = ioctl(userfaultfd, UFFDIO_ZEROPAGE, &zeros);
    size_t done = zeros.zeropage > 0 ? (size_t)zeros.zeropage / page_bytes : 0;
    atomic_fetch_add_explicit(&pages_mapped, done, memory_order_relaxed);
    first += done;
    if (!failed) return;
    if (done > 0) continue;  // EAGAIN: up to a page that has something
    if (errno != EEXIST) return;  // the others are fetched, which is always right
    first += 1;
  }
}

void overwrite_pages(uintptr_t address, size_t length) {
  int saved = errno;
  size_t start = address - overwrite_range.address;
  size_t page_count = overwrite_range.bytes / page_bytes;
  size_t page = (start + page_bytes - 1) / page_bytes, end = (start + length) / page_bytes;
  if (end > page_count) end = page_count;
  while (page < end) {
    if (is_settled(page)) {
      page += 1;
      continue;
    }
    size_t first = page;
    while (page < end && !is_settled(page)) page += 1;
    map_zeros(first, page);
    for (size_t i = first; i < page; i++) settle(i);
  }
  errno = saved;
}
