/* The memory of SHRiMP's task (SnowFlock, figure 4(b)): much is allocated and filled from an input of the parent's.
 *
 *   sf-shrimp warm MIB         fills MIB of memory and frees it: what a guest that has run a while has free is not zero
 *   sf-shrimp reads MIB FILE   writes MIB of DNA reads of 25 letters in FASTA to FILE
 *   sf-shrimp align MIB FILE   three times: allocates MIB, fills all of it from the reads of FILE, frees it. Prints the
 *                              microseconds of each time and a sum over all that was written
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { page_words = 512 };

static uint64_t *allocate(size_t mebibytes) {
  void *memory = mmap(NULL, mebibytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("sf-shrimp: mmap");
    exit(1);
  }
  return memory;
}

static int warm(size_t mebibytes) {
  uint64_t *memory = allocate(mebibytes), state = 88172645463325252u;
  for (size_t word = 0; word < mebibytes << 17; word++) {
    state ^= state << 7;
    memory[word] = state ^= state >> 9;
  }
  return munmap(memory, mebibytes << 20);
}

static int reads(size_t mebibytes, const char *path) {
  FILE *file = fopen(path, "w");
  uint64_t state = 88172645463325252u;
  size_t bytes = 0;
  for (unsigned id = 1; file && bytes < mebibytes << 20; id++) {
    char line[64];
    int length = sprintf(line, ">r%u\n", id);
    for (int letter = 0; letter < 25; letter++) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      line[length++] = "ACGT"[state >> 62];
    }
    line[length++] = '\n';
    bytes += fwrite(line, 1, length, file);
  }
  if (!file || fclose(file)) {
    perror("sf-shrimp: write");
    return 1;
  }
  return 0;
}

static uint64_t microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}

/* The input is gone through once while the memory is filled. Each page gets the words of a page of the input, each
 * bound to all that went before. */
static uint64_t fill(uint64_t *memory, size_t pages, const uint64_t *input, size_t input_pages) {
  uint64_t sum = 0;
  for (size_t page = 0; page < pages; page++) {
    const uint64_t *from = input + page * input_pages / pages * page_words;
    uint64_t *to = memory + page * page_words;
    for (int word = 0; word < page_words; word++) {
      sum = (sum << 5 | sum >> 59) ^ from[word];
      to[word] = sum * 0x9E3779B97F4A7C15u;
    }
  }
  return sum;
}

static int align(size_t mebibytes, const char *path) {
  struct stat status;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &status)) {
    perror("sf-shrimp: open");
    return 1;
  }
  const uint64_t *input = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, file, 0);
  if (input == MAP_FAILED) return 1;
  uint64_t sum = 0;
  for (int time = 0; time < 3; time++) {
    uint64_t begin = microseconds();
    uint64_t *memory = allocate(mebibytes);
    sum = fill(memory, mebibytes << 8, input, status.st_size / 4096);
    for (size_t word = 0; word < mebibytes << 17; word += page_words) sum += memory[word];
    munmap(memory, mebibytes << 20);
    printf("%llu ", (unsigned long long)(microseconds() - begin));
  }
  printf("%llx\n", (unsigned long long)sum);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "warm")) return warm(strtoul(argv[2], NULL, 10));
  if (argc == 4 && !strcmp(argv[1], "reads")) return reads(strtoul(argv[2], NULL, 10), argv[3]);
  if (argc == 4 && !strcmp(argv[1], "align")) return align(strtoul(argv[2], NULL, 10), argv[3]);
  fprintf(stderr, "usage: sf-shrimp warm MIB | reads MIB FILE | align MIB FILE\n");
  return 2;
}
