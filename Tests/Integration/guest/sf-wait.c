/* sf-wait CLONES [HOST [FILE]]: each clone, on that host, ends with status VMID*10 once /tmp/go is there. Prints the
 * ticket, "cloned", and what sf_join says. With FILE it clones when that is there. */
#include "report.h"

#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 2 || argc > 4) return 99;
  sf_ticket ticket = sf_request_ticket_on(atoi(argv[1]), 0, argc > 2 ? argv[2] : NULL);
  must("sf_request_ticket_on", ticket.error);
  printf("%s\n", ticket.id);
  fflush(stdout);
  while (argc > 3 && access(argv[3], F_OK) != 0) usleep(10000);
  int me = must("sf_clone", sf_clone(ticket));
  if (me > 0) {
    while (access("/tmp/go", F_OK) != 0) usleep(10000);
    sf_exit_with(me * 10, "went", 4);
  }
  puts("cloned");
  fflush(stdout);
  join_and_print(ticket);
  return 0;
}
