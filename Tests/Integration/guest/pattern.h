/* Memory whose every word tells which page it is of and who wrote it. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE_SIZE = 4096, PAGE_WORDS = PAGE_SIZE / 8 };

/* Page-aligned memory that no page of is there yet. */
static inline uint64_t *pattern_pages(size_t pages) {
  void *memory = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    exit(99);
  }
  return memory;
}

static inline uint64_t pattern_first(uint64_t seed, size_t page) {
  return (seed << 40 ^ page) * 0x9E3779B97F4A7C15u;
}

static inline void pattern_write(uint64_t *memory, size_t page, uint64_t seed) {
  uint64_t word = pattern_first(seed, page);
  for (size_t i = 0; i < PAGE_WORDS; i++) memory[page * PAGE_WORDS + i] = word + i;
}

static inline int pattern_is(const uint64_t *memory, size_t page, uint64_t seed) {
  uint64_t word = pattern_first(seed, page), difference = 0;
  for (size_t i = 0; i < PAGE_WORDS; i++) difference |= memory[page * PAGE_WORDS + i] ^ (word + i);
  return difference == 0;
}

static inline void pattern_fill(uint64_t *memory, size_t pages, uint64_t seed) {
  for (size_t page = 0; page < pages; page++) pattern_write(memory, page, seed);
}

/* How many pages do not hold the pattern of `seed`. */
static inline size_t pattern_wrong(const uint64_t *memory, size_t pages, uint64_t seed) {
  size_t wrong = 0;
  for (size_t page = 0; page < pages; page++) wrong += !pattern_is(memory, page, seed);
  return wrong;
}

#endif
