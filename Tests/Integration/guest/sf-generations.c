/* sf-generations MIB GENERATIONS
 *
 * Each generation writes its pattern over a share of the pages, forks two clones and overwrites all of its own pages.
 * The first clone finds every page as its parent had it, and is the next generation; the second finds the same,
 * overwrites all, and ends. Results are passed up: a line "gN.M wrong W own O" for each clone. */
#include "pattern.h"
#include "report.h"

#include <string.h>

/* Which generation wrote the page last. */
static unsigned char writer[1 << 16];

static size_t wrong_pages(const uint64_t *memory, size_t pages) {
  size_t wrong = 0;
  for (size_t page = 0; page < pages; page++) wrong += !pattern_is(memory, page, writer[page]);
  return wrong;
}

int main(int argc, char **argv) {
  if (argc != 3) return 99;
  size_t pages = (size_t)atol(argv[1]) * 256;
  int generations = atoi(argv[2]);
  uint64_t *memory = pattern_pages(pages);
  pattern_fill(memory, pages, 0);

  char found[160] = "";
  for (int generation = 1;; generation++) {
    for (size_t page = 0; page < pages; page++) {
      if (page % (size_t)(generations + 1) != (size_t)generation % (size_t)(generations + 1)) continue;
      pattern_write(memory, page, (uint64_t)generation);
      writer[page] = (unsigned char)generation;
    }
    if (generation > generations) exit_saying("%s", found);

    sf_ticket ticket = must_request(2, 0);
    int me = must("sf_clone", sf_clone(ticket));
    if (me == 0) {
      pattern_fill(memory, pages, (uint64_t)(100 + generation));
      char text[4096] = "";
      join_into(ticket, text, sizeof text);
      size_t own = pattern_wrong(memory, pages, (uint64_t)(100 + generation));
      if (generation == 1) return printf("%sg0 own %zu\n", text, own) < 0;
      exit_saying("%s own %zu\n%s", found, own, text);
    }
    size_t wrong = wrong_pages(memory, pages);
    if (me == 2) {
      pattern_fill(memory, pages, 200);
      exit_saying("g%d.2 wrong %zu own %zu", generation, wrong, pattern_wrong(memory, pages, 200));
    }
    snprintf(found, sizeof found, "g%d.1 wrong %zu", generation, wrong);
  }
}
