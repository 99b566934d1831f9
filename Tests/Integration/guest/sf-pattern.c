/* sf-pattern MIB CLONES [FORKS [DELAY_MS [PACE_US]]]
 *
 * Fills MIB of memory with a pattern, forks, and overwrites all of it at once with the next; FORKS times. Each clone
 * waits until the forks after its own are surely under way (DELAY_MS for each), finds every page as it was when it
 * was forked, overwrites all with a pattern of its own and finds that. PACE_US: a rest of clones and parent after
 * every 64 pages. Prints "VMID exited 0 wrong F own O" for each clone and "parent wrong P": pages. */
#include "pattern.h"
#include "report.h"

#include <unistd.h>

static long argument(int argc, char **argv, int index, long usual) {
  return argc > index ? atol(argv[index]) : usual;
}

static useconds_t pace_us;

static void rest(size_t page) {
  if (pace_us && page % 64 == 63) usleep(pace_us);
}

static void fill(uint64_t *memory, size_t pages, uint64_t seed) {
  for (size_t page = 0; page < pages; page++) {
    pattern_write(memory, page, seed);
    rest(page);
  }
}

static size_t wrong(const uint64_t *memory, size_t pages, uint64_t seed) {
  size_t count = 0;
  for (size_t page = 0; page < pages; page++) {
    count += !pattern_is(memory, page, seed);
    rest(page);
  }
  return count;
}

int main(int argc, char **argv) {
  size_t pages = (size_t)argument(argc, argv, 1, 16) * 256;
  int clones = (int)argument(argc, argv, 2, 2), forks = (int)argument(argc, argv, 3, 1);
  long delay_ms = argument(argc, argv, 4, 0);
  pace_us = (useconds_t)argument(argc, argv, 5, 0);

  uint64_t *memory = pattern_pages(pages);
  sf_ticket tickets[8];
  for (int fork = 0; fork < forks; fork++) tickets[fork] = must_request(clones, 0);

  pattern_fill(memory, pages, 0);
  for (int fork = 0; fork < forks; fork++) {
    int me = must("sf_clone", sf_clone(tickets[fork]));
    if (me > 0) {
      usleep((useconds_t)(delay_ms * 1000 * (forks - 1 - fork)));
      size_t at_fork = wrong(memory, pages, (uint64_t)fork);
      uint64_t own = (uint64_t)(1000 + fork * 100 + me);
      fill(memory, pages, own);
      exit_saying("wrong %zu own %zu", at_fork, wrong(memory, pages, own));
    }
    fill(memory, pages, (uint64_t)fork + 1);
  }
  for (int fork = 0; fork < forks; fork++) join_and_print(tickets[fork]);
  printf("parent wrong %zu\n", pattern_wrong(memory, pages, (uint64_t)forks));
  return 0;
}
