/* sf-churn's steps, and the walk of them. */
#ifndef CHURN_WALK_H
#define CHURN_WALK_H

#include "churn-files.h"
#include "churn-kernel.h"

static void map_region(void) {
  size_t pages = 1 + chance(chance(3) ? 64 : region_pages_max / 8), start;
  while (region_count == REGIONS_MAX || region_pages + pages > region_pages_max) {
    struct region *region = some_region();
    if (!region->fixed) region_unmap(region, 0, region->pages);
  }
  struct region *region = region_add(pattern_pages(pages), pages);
  size_t count = chance(3) ? (start = 0, pages) : some_run(pages, &start);
  if (chance(8)) region_write(region, start, count);
}

static void write_region(void) {
  struct region *region = some_region();
  size_t start, count = region ? some_run(region->pages, &start) : 0;
  if (count) region_write(region, start, count);
}

static void unmap_region(void) {
  struct region *region = some_region();
  if (!region || region_count == REGIONS_MAX) return;
  size_t start, count = some_run(region->pages, &start);
  if (!region->fixed) region_unmap(region, start, count);
}

static void protect_region(void) {
  struct region *region = some_region();
  if (!region || region->readonly) return;
  must_do("mprotect", !mprotect(region->memory, region->pages * PAGE_SIZE, PROT_READ));
  region->readonly = 1;
}

static void grow_region(void) {
  struct region *region = some_region();
  size_t more = 1 + chance(64);
  if (!region || region->fixed || region_pages + more > region_pages_max) return;
  size_t pages = region->pages + more;
  region->memory = mremap(region->memory, region->pages * PAGE_SIZE, pages * PAGE_SIZE, MREMAP_MAYMOVE);
  must_do("mremap", region->memory != MAP_FAILED);
  region->contents = realloc(region->contents, pages * sizeof *region->contents);
  memset(region->contents + region->pages, 0, more * sizeof *region->contents);
  region_pages += more, region->pages = pages;
}

/* Given back: at once, or when the kernel likes. */
static void drop_region(void) {
  struct region *region = some_region();
  if (!region) return;
  size_t start, count = some_run(region->pages, &start);
  int is_lazy = !chance(3);
  must_do("madvise", !madvise(region->memory + start * PAGE_WORDS, count * PAGE_SIZE,
                              is_lazy ? MADV_FREE : MADV_DONTNEED));
  for (size_t page = start; page < start + count; page++) {
    region->contents[page] = is_lazy && region->contents[page] ? region->contents[page] | MAYBE_ZERO : 0;
  }
}

static void grow_break(void) {
  static int times;
  size_t pages = 1 + chance(64);
  if (times == 6 || region_count == REGIONS_MAX) return;
  times++;
  size_t pad = PAGE_SIZE - (uintptr_t)sbrk(0) % PAGE_SIZE;
  char *memory = sbrk((intptr_t)(pad + pages * PAGE_SIZE));
  must_do("sbrk", memory != (char *)-1);
  struct region *region = region_add(memory + pad, pages);
  region->fixed = 1;
  if (chance(2)) region_write(region, 0, pages);
}

static void look_at_region(void) {
  struct region *region = some_region();
  size_t start, count = region ? some_run(region->pages, &start) : 0;
  if (count) region_check(region, start, count);
}

static void look_at_file(void) {
  struct file *file = some_file();
  if (file) file_check(file);
}

static void walk(uint64_t steps) {
  static void (*const kinds[])(void) = {
    map_region, map_region, write_region, write_region, write_region, unmap_region, unmap_region, protect_region,
    grow_region, drop_region, drop_region, grow_break, look_at_region, look_at_region, file_create, file_overwrite,
    file_overwrite, file_map, file_resize, file_read_into, file_read_into, file_write_from, file_forget, look_at_file,
    heap_churn, heap_churn, stream_write, stream_write, stream_read_some, child_begin_or_end, brief_processes,
  };
  while (steps--) {
    moment();
    kinds[chance(sizeof kinds / sizeof kinds[0])]();
  }
}

#endif
