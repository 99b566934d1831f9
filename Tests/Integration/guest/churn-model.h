/* sf-churn's model: what each page of anonymous memory must hold, and how what it does hold is compared and told. */
#ifndef CHURN_MODEL_H
#define CHURN_MODEL_H

#include "pattern.h"
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* A page's content is 0, all of it zero, or its first word, from which the others count on. Each write of a page, in
 * whatever VM, has one of its own: the VM's salt (22 bits), the number of the write (31), and the word's place (10). */
enum { MAYBE_ZERO = 1, EXAMPLES = 8, EXAMPLE_SIZE = 192, REGIONS_MAX = 64 };
#define POISON_BYTE 0xA5
#define POISON (POISON_BYTE * 0x0101010101010101u)

/* What is found by this VM and those below it. */
static atomic_long checks, wrong;
static atomic_int examples_told;
static char examples[EXAMPLES][EXAMPLE_SIZE];

static atomic_uint salt, writes;
static int generation, is_child;
/* Which clone this is: "3.1/1.2" is clone 2 of the first fork of clone 1 of the third fork. */
static char lineage[64] = "";

static _Thread_local uint64_t random_state;

/* 0 to `bound` - 1. (splitmix64) */
static uint64_t chance(uint64_t bound) {
  uint64_t value = random_state += 0x9E3779B97F4A7C15u;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
  value = (value ^ value >> 27) * 0x94D049BB133111EBu;
  return (value ^ value >> 31) % bound;
}

/* One of many moments at which the machine may be forked. In the clone it does not return. */
static void moment(void);

/* The program can not go on: no wrong page, but as bad. */
static void must_do(const char *what, int ok) {
  if (ok) return;
  char text[200];
  snprintf(text, sizeof text, "%s: %s\n", what, strerror(errno));
  if (generation && !is_child) sf_exit_with(97, text, strlen(text));
  fputs(text, stdout);
  fflush(stdout);
  _exit(97);
}

static void tell_kernel(const char *path, const char *text) {
  int file = open(path, O_WRONLY);
  if (file < 0) return;
  must_do(path, write(file, text, strlen(text)) > 0);
  close(file);
}

static const char *in_words(uint64_t word, char text[40]) {
  if (word == 0) return "zero";
  if (word == POISON) return "poison";
  snprintf(text, 40, "%x.%x+%u", (unsigned)(word >> 41), (unsigned)(word >> 10 & 0x7FFFFFFF), (unsigned)(word & 1023));
  return text;
}

static void tell_line(const char *line, int length) {
  int place = atomic_fetch_add(&examples_told, 1);
  if (place < EXAMPLES) snprintf(examples[place], EXAMPLE_SIZE, "%.*s", length, line);
}

static void tell(const char *what, long number, size_t page, size_t word, uint64_t expected, uint64_t found) {
  char line[EXAMPLE_SIZE], first[40], second[40];
  atomic_fetch_add(&wrong, 1);
  int length = snprintf(line, sizeof line, "[%s] %s %ld page %zu word %zu: expected %s, found %s", lineage, what,
                        number, page, word, in_words(expected, first), in_words(found, second));
  tell_line(line, length);
}

static uint64_t fresh_content(void) {
  return (uint64_t)salt << 41 | (uint64_t)(atomic_fetch_add(&writes, 1) + 1) << 10;
}

static void write_page(uint64_t *page, uint64_t content) {
  for (size_t i = 0; i < PAGE_WORDS; i++) page[i] = content + i;
}

/* Compares words from `begin` to `end`: a word of each sector, or, of one page in 16, all. */
static void check_words(const char *what, long number, size_t page, const uint64_t *memory, uint64_t content,
                        size_t begin, size_t end) {
  static _Thread_local uint64_t spread = 1;
  spread = spread * 6364136223846793005u + 1442695040888963407u;
  uint64_t first = content & ~(uint64_t)1023, step = first != 0, difference = 0;
  if (spread >> 60) {
    for (size_t i = begin; i < end; i += 64) {
      size_t word = i + (spread >> (i / 64 * 5) & 63);
      difference |= memory[word] ^ (first + word * step);
    }
  } else {
    for (size_t i = begin; i < end; i++) difference |= memory[i] ^ (first + i * step);
  }
  atomic_fetch_add(&checks, 1);
  if (!difference) return;
  if (content & MAYBE_ZERO) return check_words(what, number, page, memory, 0, begin, end);
  for (size_t i = begin; i < end; i++) {
    if (memory[i] != first + i * step) return tell(what, number, page, i, first + i * step, memory[i]);
  }
  tell("passing", number, page, 0, content, memory[0]);
}

static void check_page(const char *what, long number, size_t page, const uint64_t *memory, uint64_t content) {
  check_words(what, number, page, memory, content, 0, PAGE_WORDS);
}

/* Anonymous memory: mapped, or of the heap's break (`fixed`: it stays). */
struct region {
  long number;
  uint64_t *memory, *contents;
  size_t pages;
  int readonly, fixed;
};

static struct region regions[REGIONS_MAX];
static int region_count;
static size_t region_pages, region_pages_max;

static struct region *region_add(void *memory, size_t pages) {
  static long number;
  struct region *region = &regions[region_count++];
  *region = (struct region){.number = ++number, .memory = memory, .pages = pages};
  region->contents = calloc(pages, sizeof *region->contents);
  region_pages += pages;
  return region;
}

static struct region *some_region(void) { return region_count ? &regions[chance((uint64_t)region_count)] : NULL; }

/* A random run of pages: mostly short. */
static size_t some_run(size_t pages, size_t *start) {
  size_t longest = chance(4) ? (pages + 7) / 8 : pages, count = 1 + chance(longest);
  *start = chance(pages - count + 1);
  return count;
}

static void region_make_writable(struct region *region) {
  if (!region->readonly) return;
  must_do("mprotect", !mprotect(region->memory, region->pages * PAGE_SIZE, PROT_READ | PROT_WRITE));
  region->readonly = 0;
}

static void region_write(struct region *region, size_t start, size_t count) {
  region_make_writable(region);
  for (size_t page = start; page < start + count; page++) {
    moment();
    region->contents[page] = fresh_content();
    write_page(region->memory + page * PAGE_WORDS, region->contents[page]);
  }
}

static void region_unmap(struct region *region, size_t start, size_t count) {
  size_t after = region->pages - start - count;
  must_do("munmap", !munmap(region->memory + start * PAGE_WORDS, count * PAGE_SIZE));
  region_pages -= count;
  if (start && after) {
    region_pages -= after;
    struct region *rest = region_add(region->memory + (start + count) * PAGE_WORDS, after);
    memcpy(rest->contents, region->contents + start + count, after * sizeof *rest->contents);
    rest->readonly = region->readonly;
  } else if (after) {
    region->memory += count * PAGE_WORDS;
    memmove(region->contents, region->contents + count, after * sizeof *region->contents);
  }
  region->pages = start ? start : after;
  if (region->pages) return;
  free(region->contents);
  *region = regions[--region_count];
}

static void regions_drop(size_t pages_kept) {
  while (region_count && region_pages > pages_kept) {
    region_unmap(&regions[region_count - 1], 0, regions[region_count - 1].pages);
  }
}

static void region_check(struct region *region, size_t start, size_t count) {
  for (size_t page = start; page < start + count; page++) {
    check_page("region", region->number, page, region->memory + page * PAGE_WORDS, region->contents[page]);
  }
}

static void check_regions(void) {
  for (int i = 0; i < region_count; i++) region_check(&regions[i], 0, regions[i].pages);
}

static uint64_t sum_of(uint64_t sum, const void *data, size_t size) {
  const uint64_t *words = data;
  for (size_t i = 0; i < size / 8; i++) sum = (sum ^ words[i]) * 0x100000001B3u;
  return sum;
}

/* What is wrong in the model itself would be a wrong expectation. */
static uint64_t sum_of_regions(void) {
  uint64_t sum = sum_of(1, regions, sizeof regions[0] * (size_t)region_count);
  for (int i = 0; i < region_count; i++) sum = sum_of(sum, regions[i].contents, 8 * regions[i].pages);
  return sum;
}

#endif
