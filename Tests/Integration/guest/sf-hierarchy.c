/* sf-hierarchy IDS: a hierarchical ticket. Prints "granted G" and for each process of each clone
 * "VMID exited VMID*10 host=… cpus=N cpu=C memory=right|wrong". */
#define _GNU_SOURCE
#include "pattern.h"
#include "report.h"

#include <sched.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc != 2) return 99;
  size_t pages = 1024;
  uint64_t *memory = pattern_pages(pages);
  pattern_fill(memory, pages, 1);
  sf_ticket ticket = must_request(atoi(argv[1]), 1);
  printf("granted %d\n", ticket.granted);
  fflush(stdout);

  int me = must("sf_clone", sf_clone(ticket));
  if (me > 0) {
    int right = pattern_wrong(memory, pages, 1) == 0 && sf_vmid() == me;
    pattern_fill(memory, pages, (uint64_t)me);
    usleep(20000);
    right &= pattern_wrong(memory, pages, (uint64_t)me) == 0;

    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    char host[65] = "", text[160];
    gethostname(host, sizeof host - 1);
    int length = snprintf(text, sizeof text, "host=%s cpus=%d cpu=%d memory=%s", host, CPU_COUNT(&cpus), sched_getcpu(),
                          right ? "right" : "wrong");
    sf_exit_with(me * 10, text, (size_t)length);
  }
  join_and_print(ticket);
  return 0;
}
