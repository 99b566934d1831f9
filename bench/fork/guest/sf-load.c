/* Load for the guests of bench/fork: memory in use that cannot be compressed, and work for the processor.
 *
 *   sf-load fill MIB     returns when MIB of memory hold random bytes; a child keeps them until the VM ends
 *   sf-load churn MIB    the same, and the child writes to a random page of them, and to the next, for ever
 *   sf-load scatter MIB PAGES WORDS  the same, and the child gives WORDS words of each of PAGES random pages a second
 *                        new random values; with 512 words of 8 bytes that is all of a page
 *   sf-load store MIB FILE   a file of MIB of random bytes
 *   sf-load sum FILE     prints a sum over the file's words, in their order
 *   sf-load spin ROUNDS  works on a table of 256 KiB and prints the nanoseconds it took
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t xorshift(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Pages are written a hundredth of a second's worth at a time, at the times of the clock. */
static void scatter(uint64_t *memory, size_t pages, size_t pages_a_second, size_t words) {
  enum { page_words = 512 };
  struct timespec next;
  uint64_t state = 88172645463325252u;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (size_t tick = 1;; tick++) {
    size_t due = tick * pages_a_second / 100 - (tick - 1) * pages_a_second / 100;
    for (; due > 0; due--) {
      uint64_t *page = memory + xorshift(&state) % pages * page_words;
      for (size_t word = 0; word < words; word++)
        page[words == page_words ? word : xorshift(&state) % page_words] = xorshift(&state);
    }
    next.tv_nsec += 10000000;
    if (next.tv_nsec >= 1000000000) {
      next.tv_nsec -= 1000000000;
      next.tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
  }
}

static int fill(size_t mebibytes, int churn, size_t pages_a_second, size_t words) {
  int ready[2];
  if (pipe(ready) != 0) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child > 0) {
    char byte;
    close(ready[1]);
    return read(ready[0], &byte, 1) == 1 ? 0 : 1;
  }
  /* The command has ended for its caller only when nobody holds its pipes. */
  int null = open("/dev/null", O_RDWR);
  for (int descriptor = 0; descriptor < 3; descriptor++) dup2(null, descriptor);
  size_t bytes = mebibytes << 20;
  uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (size_t word = 0; word < bytes / sizeof *memory; word++) memory[word] = xorshift(&state);
  if (write(ready[1], "", 1) != 1) return 1;
  if (pages_a_second > 0) scatter(memory, bytes / 4096, pages_a_second, words);
  while (!churn) pause();
  for (;;) memory[xorshift(&state) % (bytes / sizeof *memory)]++;
}

static int spin(uint64_t rounds) {
  static uint64_t table[32768];
  struct timespec begin, end;
  uint64_t state = 1;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (uint64_t round = 0; round < rounds; round++) {
    uint64_t value = xorshift(&state);
    table[value % 32768] += value * (round | 1);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  for (int word = 0; word < 32768; word++) state ^= table[word];
  printf("%lld %llx\n", (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec,
         (unsigned long long)state);
  return 0;
}

static int store(size_t mebibytes, const char *path) {
  static uint64_t block[1 << 17];
  uint64_t state = 0x9E3779B97F4A7C15u;
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file < 0) return 1;
  for (size_t index = 0; index < mebibytes; index++) {
    for (size_t word = 0; word < sizeof block / sizeof *block; word++) block[word] = xorshift(&state);
    if (write(file, block, sizeof block) != sizeof block) return 1;
  }
  return close(file);
}

static int sum(const char *path) {
  static uint64_t block[1 << 17];
  uint64_t total = 0;
  ssize_t length;
  int file = open(path, O_RDONLY);
  if (file < 0) return 1;
  while ((length = read(file, block, sizeof block)) > 0)
    for (size_t word = 0; word < length / sizeof *block; word++) total = total * 31 + block[word];
  printf("%llx\n", (unsigned long long)total);
  return length < 0;
}

int main(int count, char **arguments) {
  if (count == 3 && strcmp(arguments[1], "fill") == 0) return fill(strtoul(arguments[2], NULL, 10), 0, 0, 0);
  if (count == 3 && strcmp(arguments[1], "churn") == 0) return fill(strtoul(arguments[2], NULL, 10), 1, 0, 0);
  if (count == 5 && strcmp(arguments[1], "scatter") == 0)
    return fill(strtoul(arguments[2], NULL, 10), 0, strtoul(arguments[3], NULL, 10), strtoul(arguments[4], NULL, 10));
  if (count == 3 && strcmp(arguments[1], "spin") == 0) return spin(strtoull(arguments[2], NULL, 10));
  if (count == 4 && strcmp(arguments[1], "store") == 0) return store(strtoul(arguments[2], NULL, 10), arguments[3]);
  if (count == 3 && strcmp(arguments[1], "sum") == 0) return sum(arguments[2]);
  fputs("use: sf-load fill|churn MIB | sf-load scatter MIB PAGES WORDS | sf-load store MIB FILE | sf-load sum FILE |"
        " sf-load spin ROUNDS\n",
        stderr);
  return 2;
}
