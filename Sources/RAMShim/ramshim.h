// The parts of the RAM shim: interpose.c finds QEMU's guest RAM, channel.c hands it to the pager, device.c and copy.c
// see QEMU fill guest RAM in a device's name, overwrite.c spares the pages that it fills whole from being fetched,
// zeros.c gives a clone memory of its own where it has zeros.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The symbols that the library shows are those it stands before.
#define INTERPOSED __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))

enum { page_bytes = 4096 };

// Guest RAM as QEMU mapped it. Written once, before the channel's thread starts.
struct guest_ram {
  void *address;
  size_t bytes;
  int file;  // a duplicate of QEMU's descriptor of the memory file
};

// Starts the thread that connects to the pager, and connects again whenever it has gone, until the process ends.
// False if no thread could be started.
HIDDEN bool channel_start(const struct guest_ram *ram);

// RAM is about to become a snapshot's cache. Called once. Without memory for a bitmap nothing will be spared.
HIDDEN void overwrite_prepare(const struct guest_ram *ram);

// These pages are no matter of overwrite_pages: before `overwrite_start`.
HIDDEN void overwrite_leave(size_t first, size_t count);

// RAM is a snapshot's cache now and faults go to `uffd`: from here on pages about to be overwritten are not fetched.
HIDDEN void overwrite_start(const struct guest_ram *ram, int uffd);

// Puts memory of the process's own under the runs of pages that the file names, without permissions as yet. False: it
// can not be had, or a run is not in RAM.
HIDDEN bool zeros_map(const struct guest_ram *ram, int file, uint32_t count);

// How many pages have been spared.
HIDDEN uint64_t overwrite_count(void);

// Where RAM is. No bytes: this is no clone, or it is to fetch everything.
struct overwrite_range {
  uintptr_t address;
  _Atomic size_t bytes;  // stored last
};
extern HIDDEN struct overwrite_range overwrite_range;

// Maps zeros at the whole pages of a range that begins in RAM, as far as nothing is mapped there. Keeps errno.
HIDDEN void overwrite_pages(uintptr_t address, size_t length);

// To be called before a device fills these bytes. What is no page of a clone's RAM costs a few instructions.
static inline void overwrite(uintptr_t address, size_t length) {
  if (length < page_bytes) return;
  size_t bytes = atomic_load_explicit(&overwrite_range.bytes, memory_order_acquire);
  if (__builtin_expect(address - overwrite_range.address < bytes, 0)) overwrite_pages(address, length);
}
