/* sf-churn's files: contents in the page cache, mappings of them, and what a disk reads straight into memory. */
#ifndef CHURN_FILES_H
#define CHURN_FILES_H

#include "churn-model.h"

enum { FILES_MAX = 12, BUFFER_PAGES = 16 };

struct file {
  long number;
  long descriptor;
  size_t pages;
  uint64_t *contents;
  uint64_t *mapping;      /* of all of it, or NULL */
  uint64_t *own_contents; /* of a private mapping: what was written there, 0 where it has the file's */
};

static struct file files[FILES_MAX];
static int file_count;
static size_t file_pages, file_pages_max;
static const char *directory;

static uint64_t *file_buffer(void) {
  static uint64_t *buffer;
  if (!buffer) buffer = pattern_pages(BUFFER_PAGES);
  return buffer;
}

static struct file *some_file(void) { return file_count ? &files[chance((uint64_t)file_count)] : NULL; }

/* Another descriptor of the file, that passes the page cache by; -1 on a file system that can not. */
static int file_direct(struct file *file) {
  char path[40];
  snprintf(path, sizeof path, "/proc/self/fd/%ld", file->descriptor);
  return open(path, O_RDWR | O_DIRECT);
}

static void file_unmap(struct file *file) {
  if (file->mapping) must_do("munmap", !munmap(file->mapping, file->pages * PAGE_SIZE));
  free(file->own_contents);
  file->mapping = file->own_contents = NULL;
}

static void file_write(struct file *file, size_t start, size_t count) {
  int through_mapping = file->mapping && !file->own_contents && chance(2);
  for (size_t page = start; page < start + count;) {
    moment();
    size_t batch = 1 + chance(BUFFER_PAGES), end = page + batch < start + count ? page + batch : start + count;
    uint64_t *target = through_mapping ? file->mapping + page * PAGE_WORDS : file_buffer();
    for (size_t i = page; i < end; i++) {
      file->contents[i] = fresh_content();
      write_page(target + (i - page) * PAGE_WORDS, file->contents[i]);
    }
    ssize_t size = (ssize_t)((end - page) * PAGE_SIZE);
    int ok = through_mapping || pwrite((int)file->descriptor, target, (size_t)size, (off_t)(page * PAGE_SIZE)) == size;
    must_do("pwrite", ok);
    page = end;
  }
}

static void file_remove(struct file *file) {
  char path[200];
  snprintf(path, sizeof path, "%s/churn-%ld", directory, file->number);
  if (chance(2)) unlink(path);
  file_unmap(file);
  close((int)file->descriptor);
  unlink(path);
  free(file->contents);
  file_pages -= file->pages;
  *file = files[--file_count];
}

static void file_create(void) {
  static long number;
  size_t pages = 1 + chance(chance(3) ? 32 : 384), start;
  while (file_count && (file_count == FILES_MAX || file_pages + pages > file_pages_max)) file_remove(some_file());
  char path[200];
  snprintf(path, sizeof path, "%s/churn-%ld", directory, ++number);
  int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  must_do(path, descriptor >= 0 && !ftruncate(descriptor, (off_t)(pages * PAGE_SIZE)));
  if (!chance(4)) unlink(path);
  struct file *file = &files[file_count++];
  *file = (struct file){.number = number, .descriptor = descriptor, .pages = pages};
  file->contents = calloc(pages, sizeof *file->contents);
  file_pages += pages;
  size_t count = chance(3) ? (start = 0, pages) : some_run(pages, &start);
  file_write(file, start, count);
}

static void file_overwrite(void) {
  struct file *file = some_file();
  if (!file) return;
  size_t start, count = some_run(file->pages, &start);
  if (!file->own_contents || chance(2)) return file_write(file, start, count);
  for (size_t page = start; page < start + count; page++) {
    moment();
    file->own_contents[page] = fresh_content();
    write_page(file->mapping + page * PAGE_WORDS, file->own_contents[page]);
  }
}

static void file_map(void) {
  struct file *file = some_file();
  if (!file) return;
  if (file->mapping) return file_unmap(file);
  int private = !!chance(2);
  file->mapping = mmap(NULL, file->pages * PAGE_SIZE, PROT_READ | PROT_WRITE, private ? MAP_PRIVATE : MAP_SHARED,
                       (int)file->descriptor, 0);
  must_do("mmap", file->mapping != MAP_FAILED);
  if (private) file->own_contents = calloc(file->pages, sizeof *file->own_contents);
}

/* Cut off, or with a hole at its end that reads as zero, or both. */
static void file_resize(void) {
  struct file *file = some_file();
  if (!file) return;
  file_unmap(file);
  size_t shorter = 1 + chance(file->pages), pages = chance(2) ? shorter : shorter + chance(16);
  must_do("ftruncate", !ftruncate((int)file->descriptor, (off_t)(shorter * PAGE_SIZE)) &&
                         !ftruncate((int)file->descriptor, (off_t)(pages * PAGE_SIZE)));
  file->contents = realloc(file->contents, pages * sizeof *file->contents);
  for (size_t page = shorter; page < pages; page++) file->contents[page] = 0;
  file_pages = file_pages - file->pages + pages;
  file->pages = pages;
}

/* A run of the file is read into pages of a region, by the disk itself if it has one. The region's pages hold the
 * file's from then on; what is before and behind a part of a page that is read is as it was. */
static void file_read_into(void) {
  struct file *file = some_file();
  struct region *region = some_region();
  if (!file || !region) return;
  region_make_writable(region);
  size_t from, to, count = some_run(file->pages, &from);
  if (count > region->pages) count = region->pages;
  to = chance(region->pages - count + 1);
  int direct = chance(4) ? file_direct(file) : -1, descriptor = direct < 0 ? (int)file->descriptor : direct;
  uint64_t *memory = region->memory + to * PAGE_WORDS;
  size_t sector = chance(8), sectors = 1 + chance(8 - sector), size = count * PAGE_SIZE;
  if (chance(2)) {
    must_do("pread", pread(descriptor, memory, size, (off_t)(from * PAGE_SIZE)) == (ssize_t)size);
    memcpy(region->contents + to, file->contents + from, count * sizeof *file->contents);
    region_check(region, to, count);
  } else {
    size_t begin = sector * 64, end = begin + sectors * 64;
    must_do("pread", pread(descriptor, memory + begin, sectors * 512, (off_t)(from * PAGE_SIZE + sector * 512)) ==
                       (ssize_t)(sectors * 512));
    check_words("read before", region->number, to, memory, region->contents[to], 0, begin);
    check_words("read", file->number, from, memory, file->contents[from], begin, end);
    check_words("read behind", region->number, to, memory, region->contents[to], end, PAGE_WORDS);
    /* No moment before this: the model knows no page of two contents. */
    region->contents[to] = fresh_content();
    write_page(memory, region->contents[to]);
  }
  if (direct >= 0) close(direct);
}

/* The other way round. */
static void file_write_from(void) {
  struct file *file = some_file();
  struct region *region = some_region();
  if (!file || !region) return;
  size_t from, count = some_run(region->pages, &from);
  if (count > file->pages) count = file->pages;
  for (size_t page = from; page < from + count; page++) {
    if (region->contents[page] & MAYBE_ZERO) region_write(region, page, 1);
  }
  int direct = chance(2) ? file_direct(file) : -1, descriptor = direct < 0 ? (int)file->descriptor : direct;
  size_t to = chance(file->pages - count + 1), size = count * PAGE_SIZE;
  memcpy(file->contents + to, region->contents + from, count * sizeof *file->contents);
  must_do("pwrite from a region", pwrite(descriptor, region->memory + from * PAGE_WORDS, size,
                                         (off_t)(to * PAGE_SIZE)) == (ssize_t)size);
  if (direct >= 0) close(direct);
}

/* What is clean leaves the page cache, and is read from the disk again; or pages change their places. */
static void file_forget(void) {
  struct file *file = some_file();
  if (chance(3) && file) {
    must_do("fsync", !fsync((int)file->descriptor));
    must_do("fadvise", !posix_fadvise((int)file->descriptor, 0, 0, POSIX_FADV_DONTNEED));
  } else if (chance(3)) {
    if (chance(2)) sync();
    tell_kernel("/proc/sys/vm/drop_caches", chance(2) ? "3" : "1");
  } else {
    tell_kernel("/proc/sys/vm/compact_memory", "1");
  }
}

static void file_check(struct file *file) {
  for (size_t page = 0; page < file->pages; page += BUFFER_PAGES) {
    size_t count = page + BUFFER_PAGES < file->pages ? BUFFER_PAGES : file->pages - page;
    ssize_t got = pread((int)file->descriptor, file_buffer(), count * PAGE_SIZE, (off_t)(page * PAGE_SIZE));
    must_do("pread", got == (ssize_t)(count * PAGE_SIZE));
    for (size_t i = 0; i < count; i++) {
      check_page("file", file->number, page + i, file_buffer() + i * PAGE_WORDS, file->contents[page + i]);
    }
  }
  for (size_t page = 0; file->mapping && page < file->pages; page++) {
    int own = file->own_contents && file->own_contents[page];
    check_page(file->own_contents ? "private mapping" : "shared mapping", file->number, page,
               file->mapping + page * PAGE_WORDS, own ? file->own_contents[page] : file->contents[page]);
  }
}

static void check_files(void) {
  for (int i = 0; i < file_count; i++) file_check(&files[i]);
}

static uint64_t sum_of_files(uint64_t sum) {
  sum = sum_of(sum, files, sizeof files[0] * (size_t)file_count);
  for (int i = 0; i < file_count; i++) {
    sum = sum_of(sum, files[i].contents, 8 * files[i].pages);
    if (files[i].own_contents) sum = sum_of(sum, files[i].own_contents, 8 * files[i].pages);
  }
  return sum;
}

#endif
