/* sf-disk DEVICE MIB CLONES FORKS
 * sf-disk DEVICE MIB FILE
 *
 * Writes blocks of the device without rest, some with O_DIRECT, some synced and some not, and forks FORKS times
 * meanwhile. Each clone finds every block as the program's memory says that it was written last, then without the page
 * cache too, overwrites all and finds that. Prints "VMID exited 0 wrong B on disk D own O" for each clone, and "parent
 * wrong P": blocks. With FILE it writes until there is one of that name, and prints "wrong B on disk D". */
#define _GNU_SOURCE
#include "pattern.h"
#include "report.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

static size_t blocks;
/* How often each block was written. A clone goes on in the midst of a write as the parent does. */
static uint64_t *written;
static atomic_int stop;
static int buffered, direct;

static void must_do(const char *what, int ok) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void put(int file, size_t block, uint64_t seed) {
  static _Thread_local uint64_t *buffer;
  if (!buffer) buffer = pattern_pages(1);
  for (size_t i = 0; i < PAGE_WORDS; i++) buffer[i] = pattern_first(seed, block) + i;
  must_do("write", pwrite(file, buffer, PAGE_SIZE, (off_t)(block * PAGE_SIZE)) == PAGE_SIZE);
}

static int is(int file, size_t block, uint64_t seed) {
  static uint64_t *buffer;
  if (!buffer) buffer = pattern_pages(1);
  must_do("read", pread(file, buffer, PAGE_SIZE, (off_t)(block * PAGE_SIZE)) == PAGE_SIZE);
  uint64_t difference = 0;
  for (size_t i = 0; i < PAGE_WORDS; i++) difference |= buffer[i] ^ (pattern_first(seed, block) + i);
  return difference == 0;
}

static void *write_on(void *unused) {
  (void)unused;
  uint64_t random = 88172645463325252ull;
  while (!stop) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    size_t block = random % blocks;
    put(random & 0x10000 ? direct : buffered, block, written[block] + 1);
    written[block]++;
    if (!(random & 0x7e0000)) must_do("fdatasync", !fdatasync(buffered));
  }
  return NULL;
}

/* `own`: what all blocks have; 0: what was written to each. */
static size_t wrong(int file, uint64_t own) {
  size_t count = 0;
  for (size_t block = 0; block < blocks; block++) count += !is(file, block, own ? own : written[block]);
  return count;
}

int main(int argc, char **argv) {
  if (argc != 4 && argc != 5) return 2;
  blocks = (size_t)atol(argv[2]) * 256;
  int clones = atoi(argv[3]), forks = argc == 5 ? atoi(argv[4]) : 0;
  written = calloc(blocks, sizeof *written);
  buffered = open(argv[1], O_RDWR);
  direct = open(argv[1], O_RDWR | O_DIRECT);
  must_do(argv[1], buffered >= 0 && direct >= 0);
  for (size_t block = 0; block < blocks; block++) put(buffered, block, 0);

  pthread_t writer;
  must_do("pthread_create", !pthread_create(&writer, NULL, write_on, NULL));
  while (argc == 4 && access(argv[3], F_OK)) usleep(10000);
  for (int fork = 0; fork < forks; fork++) {
    sf_ticket ticket = must_request(clones, 0);
    int me = must("sf_clone", sf_clone(ticket));
    if (me > 0) {
      stop = 1;
      pthread_join(writer, NULL);
      size_t at_fork = wrong(buffered, 0);
      must_do("fsync", !fsync(buffered) && !ioctl(buffered, BLKFLSBUF));
      size_t on_disk = wrong(direct, 0);
      uint64_t own = 1000000u + (unsigned)me;
      for (size_t block = 0; block < blocks; block++) put(block & 1 ? direct : buffered, block, own);
      must_do("fsync", !fsync(buffered) && !ioctl(buffered, BLKFLSBUF));
      exit_saying("wrong %zu on disk %zu own %zu", at_fork, on_disk, wrong(direct, own));
    }
    join_and_print(ticket);
  }
  stop = 1;
  pthread_join(writer, NULL);
  size_t seen = wrong(buffered, 0);
  must_do("fsync", !fsync(buffered) && !ioctl(buffered, BLKFLSBUF));
  if (argc == 4)
    printf("wrong %zu on disk %zu\n", seen, wrong(direct, 0));
  else
    printf("parent wrong %zu\n", wrong(direct, 0));
  return 0;
}
