/* sf-churn's free memory: filled and freed before a fork, taken after it. */
#ifndef CHURN_FREE_H
#define CHURN_FREE_H

#include "churn-model.h"

#include <sys/wait.h>

/* What is never taken; the most of a burst. */
enum { RESERVE_PAGES = 6144, BURST_PAGES_MAX = 32768 };

/* How many pages can be taken without a shortage. */
static pid_t burst_pid;
static size_t burst_promised;

static size_t free_pages(void) {
  char text[512], *line;
  int file = open("/proc/meminfo", O_RDONLY);
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  text[length > 0 ? length : 0] = 0;
  line = strstr(text, "MemFree:");
  size_t pages = line ? strtoul(line + 8, NULL, 10) / 4 : 0;
  if (burst_pid && waitpid(burst_pid, NULL, WNOHANG) == burst_pid) burst_pid = 0;
  size_t kept = RESERVE_PAGES + (burst_pid ? burst_promised : 0);
  return pages > kept ? pages - kept : 0;
}

/* Nearly all, one time of so many; else a part. */
static size_t some_free_pages(uint64_t times) {
  size_t pages = free_pages();
  if (chance(times)) pages = pages / (4 + chance(28));
  return pages < BURST_PAGES_MAX ? pages : BURST_PAGES_MAX;
}

/* What a burst has mapped; a clone that is forked meanwhile has it too. The first `written` pages are known. */
static struct {
  uint64_t *memory, content;
  size_t pages, written;
} burst;

static void burst_end(void) {
  for (size_t page = 0; page < burst.written; page++) {
    check_page("burst", 0, page, burst.memory + page * PAGE_WORDS, burst.content + page * 1024);
  }
  if (burst.memory) munmap(burst.memory, (burst.pages + 1) * PAGE_SIZE);
  burst.memory = NULL, burst.pages = burst.written = 0;
}

static void burst_begin(size_t pages) {
  static uint64_t number;
  burst_end();
  burst.memory = pattern_pages(pages + 1);
  burst.pages = pages, burst.written = 0;
  burst.content = (uint64_t)salt << 41 | 1ull << 40 | (++number & 0x7FFF) << 25;
}

static void poison(void) {
  for (size_t page = 0; page < burst.pages; page++) {
    if (page % 64 == 0) moment();
    memset(burst.memory + page * PAGE_WORDS, POISON_BYTE, PAGE_SIZE);
  }
}

static void poison_file(size_t pages) {
  int file = memfd_create("poison", MFD_CLOEXEC);
  must_do("memfd_create", file >= 0);
  unsigned char bytes[16 * PAGE_SIZE];
  memset(bytes, POISON_BYTE, sizeof bytes);
  for (size_t page = 0; page < pages; page += 16) must_do("poison", write(file, bytes, sizeof bytes) > 0);
  close(file);
}

/* Free memory that was this process's, another's, or a file's, and is full of poison. */
static void poison_free_memory(void) {
  size_t pages = some_free_pages(3), kind = chance(4);
  if (kind == 0) return poison_file(pages / 2);
  burst_begin(pages);
  if (kind > 1 || burst_pid) {
    poison();
  } else {
    burst_promised = pages;
    burst_pid = fork();
    must_do("fork", burst_pid >= 0);
    if (!burst_pid) {
      is_child = 1;
      regions_drop(0);
      poison();
      _exit(0);
    }
    if (chance(2)) waitpid(burst_pid, NULL, 0), burst_pid = 0;
  }
  burst_end();
}

/* Memory that was free is zero, then what is written, and still so a while later. */
static void take_free_memory(void) {
  burst_begin(some_free_pages(8));
  while (burst.written < burst.pages) {
    uint64_t *page = burst.memory + burst.written * PAGE_WORDS;
    /* By a write, for the kernel reads pages that are not there from a page of zeros. */
    *(volatile uint64_t *)&page[burst.written % PAGE_WORDS] = 0;
    check_page("fresh", 0, burst.written, page, 0);
    write_page(page, burst.content + burst.written * 1024);
    if (burst.written++ % 64 == 0) moment();
  }
  if (chance(2)) usleep((useconds_t)chance(30000));
  burst_end();
}

#endif
