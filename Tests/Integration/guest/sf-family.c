/* sf-family CLONES: forks, and has each clone say its name by a command that is run in it. Prints "VMID NAME SAID
 * STATUS" for each, then what sf_run says of a VM that is not its own, and how the clones ended. */
#include "report.h"

#include <string.h>
#include <unistd.h>

static int run(const char *clone, char *const *arguments, int output, sf_command *command) {
  *command = (sf_command){
      .clone = clone, .arguments = arguments, .input = -1, .output = output, .error = 2, .signals = -1};
  return sf_run(command);
}

int main(int argc, char **argv) {
  if (argc != 2) return 99;
  sf_ticket ticket = must_request(atoi(argv[1]), 0);
  int me = must("sf_clone", sf_clone(ticket));
  if (me > 0)
    for (;;) pause();
  sf_command command;
  for (int vmid = 1; vmid <= ticket.granted; vmid++) {
    char name[160], said[160] = "";
    must("sf_clone_name", sf_clone_name(ticket, vmid, name, sizeof name));
    int ends[2];
    if (pipe(ends) != 0) return 98;
    char *const arguments[] = {"sh", "-c", "echo -n $(hostname); exit 7", NULL};
    int status = must("sf_run", run(name, arguments, ends[1], &command));
    ssize_t length = read(ends[0], said, sizeof said - 1);
    printf("%d %s %.*s %d\n", vmid, name, (int)length, said, status);
    close(ends[0]);
    close(ends[1]);
  }
  char *const arguments[] = {"true", NULL};
  int refused = run("nobody", arguments, 1, &command);
  printf("%s: %s\n", sf_strerror(refused), command.reason);
  char name[2];
  printf("%s\n", sf_strerror(sf_clone_name(ticket, ticket.granted + 1, name, sizeof name)));
  printf("%s\n", sf_strerror(sf_clone_name(ticket, 1, name, sizeof name)));
  must("sf_kill", sf_kill(ticket));
  join_and_print(ticket);
  return 0;
}
