/* sf-exec NAME COMMAND ARGUMENT...: runs a command in a clone of this VM, or in a clone of a clone. Standard streams,
 * signals and the exit status pass through; 255: it could not be run, or not to its end. */
#define _GNU_SOURCE
#include "command.h"

int main(int count, char **arguments) {
  if (count >= 3) return run_in_clone("sf-exec", arguments[1], arguments + 2);
  fputs("sf-exec: the command line is wrong. Use: sf-exec NAME COMMAND ARGUMENT...\n", stderr);
  return 255;
}
