// A stand-in for QEMU in the pager's tests: maps a RAM file as QEMU does, under the real RAM shim, and does what it is
// told on standard input. One command a line; every command is answered with one line, or with raw bytes where noted.
//
//   usage: memtap-test-guest RAM_FILE BYTES
//
//   write FIRST COUNT TAG   writes pages, each with its own tag TAG + page number        -> ok
//   zero FIRST COUNT        writes zeros to pages                                        -> ok
//   tags FIRST COUNT        reads pages -> COUNT raw 64-bit tags: 0 a page of zeros, ~0 a page that is no page of ours
//   fill FIRST COUNT TAG    writes the same as write, but as a device does: preadv(2) into pages       -> ok
//   storm SEED              a second thread writes and fills random pages, for ever     -> ok
//   pause | resume          the second thread stands still on return | goes on          -> ok N, pages written so far
//   swallow                 takes the next faults from our own userfaultfd, as a pager does that then dies -> ok
//   time read|write FIRST COUNT STRIDE  touches pages one by one -> COUNT raw 32-bit nanoseconds
//
// A page with tag t holds 512 words: t, then words mixed from t and their place. A torn page is told from a whole one.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { page_bytes = 4096, page_words = page_bytes / 8 };

static uint64_t *ram;
static uint64_t page_count;

static uint64_t mix(uint64_t value) {  // splitmix64
  value += 0x9e3779b97f4a7c15;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

static void write_words(uint64_t *words, uint64_t tag) {
  words[0] = tag;
  for (uint64_t i = 1; i < page_words; i++) words[i] = mix(tag + i * 0x10001);
}

static void write_page(uint64_t page, uint64_t tag) { write_words(ram + page * page_words, tag); }

// As QEMU does it for a guest's disk: an element for each page.
static void fill_pages(uint64_t first, uint64_t count, uint64_t tag) {
  enum { at_once = 256 };
  int disk = memfd_create("disk", MFD_CLOEXEC);
  for (uint64_t i = 0; i < count; i++) {
    uint64_t words[page_words];
    write_words(words, tag + i);
    if (write(disk, words, page_bytes) != page_bytes) exit(3);
  }
  for (uint64_t done = 0; done < count;) {
    struct iovec parts[at_once];
    int number = count - done < at_once ? (int)(count - done) : at_once;
    for (int i = 0; i < number; i++) parts[i] = (struct iovec){ram + (first + done + i) * page_words, page_bytes};
    if (preadv64(disk, parts, number, (off64_t)done * page_bytes) != (ssize_t)number * page_bytes) exit(3);
    done += number;
  }
  close(disk);
}

static uint64_t read_tag(uint64_t page) {
  const uint64_t *words = ram + page * page_words;
  uint64_t tag = words[0];
  for (uint64_t i = 1; i < page_words; i++)
    if (words[i] != (tag ? mix(tag + i * 0x10001) : 0)) return UINT64_MAX;
  return tag;
}

// The second thread: `wanted` is set by commands, `standing` by the thread.
static atomic_bool wanted, standing = true;
static atomic_ulong written;
static uint64_t storm_seed;

static void *storm(void *unused) {
  (void)unused;
  uint64_t state = storm_seed;
  while (true) {
    while (!wanted) {
      standing = true;
      usleep(50);
    }
    standing = false;
    if (!wanted) continue;
    state = mix(state);
    if (state >> 32 & 1)
      write_page(state % page_count, state | 1);
    else
      fill_pages(state % page_count, 1, state | 1);
    written++;
  }
  return NULL;
}

// Reads what the pager would read, and does nothing about it.
static void *swallow(void *unused) {
  (void)unused;
  for (int file = 3; file < 256; file++) {
    char link[32], target[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if (readlink(link, target, sizeof target - 1) < 0 || strcmp(target, "anon_inode:[userfaultfd]") != 0) continue;
    struct pollfd wait = {.fd = file, .events = POLLIN};
    char messages[64 * 32];
    if (poll(&wait, 1, 10000) == 1 && read(file, messages, sizeof messages) < 0) perror("swallow");
    break;
  }
  return NULL;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void put(const void *bytes, size_t size) {
  fwrite(bytes, 1, size, stdout);
  fflush(stdout);
}

static void obey(const char *line) {
  uint64_t first, count, argument;
  char kind[8];
  if (sscanf(line, "write %lu %lu %lu", &first, &count, &argument) == 3) {
    for (uint64_t i = 0; i < count; i++) write_page(first + i, argument + first + i);
    put("ok\n", 3);
  } else if (sscanf(line, "fill %lu %lu %lu", &first, &count, &argument) == 3) {
    fill_pages(first, count, argument + first);
    put("ok\n", 3);
  } else if (sscanf(line, "zero %lu %lu", &first, &count) == 2) {
    memset(ram + first * page_words, 0, count * page_bytes);
    put("ok\n", 3);
  } else if (sscanf(line, "tags %lu %lu", &first, &count) == 2) {
    uint64_t *tags = malloc(count * 8);
    for (uint64_t i = 0; i < count; i++) tags[i] = read_tag(first + i);
    put(tags, count * 8);
    free(tags);
  } else if (sscanf(line, "time %7s %lu %lu %lu", kind, &first, &count, &argument) == 4) {
    uint32_t *times = malloc(count * 4);
    for (uint64_t i = 0; i < count; i++) {
      volatile uint64_t *word = ram + (first + i * argument) * page_words + 8;
      uint64_t start = now();
      if (*kind == 'w')
        *word = start;
      else
        (void)*word;
      times[i] = (uint32_t)(now() - start);
    }
    put(times, count * 4);
    free(times);
  } else if (sscanf(line, "storm %lu", &argument) == 1) {
    pthread_t thread;
    storm_seed = argument;
    standing = false;
    wanted = true;
    if (pthread_create(&thread, NULL, storm, NULL) != 0) exit(3);
    pthread_detach(thread);
    put("ok\n", 3);
  } else if (strcmp(line, "swallow\n") == 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, swallow, NULL) != 0) exit(3);
    pthread_detach(thread);
    put("ok\n", 3);
  } else if (strcmp(line, "pause\n") == 0) {
    wanted = false;
    while (!standing) usleep(20);
    printf("ok %lu\n", written);
    fflush(stdout);
  } else if (strcmp(line, "resume\n") == 0) {
    standing = false;
    wanted = true;
    put("ok\n", 3);
  } else {
    put("unknown command\n", 16);
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  size_t bytes = strtoull(argv[2], NULL, 10);
  page_count = bytes / page_bytes;
  int file = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, bytes) < 0) return 3;
  // As qemu_ram_mmap: address space first, the file over it.
  char *reserved = mmap(NULL, bytes + page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return 3;
  ram = mmap(reserved, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
  if (ram == MAP_FAILED) return 3;
  madvise(ram, bytes, MADV_HUGEPAGE);

  char line[256];
  while (fgets(line, sizeof line, stdin)) obey(line);
  return 0;
}
