/* sf-rsh [OPTION]... NAME WORD...: sf-exec with the command line of rsh and ssh, for MPI's mpiexec. The words are one
 * line for the clone's shell, which takes their quotes away.
 *
 * A launcher that fails is one whose clone has ended, or whose proxy could not call mpiexec (a rank that fails is no
 * failure of the launcher). mpiexec does not look and would wait for ever: it is told to end. */
#define _GNU_SOURCE
#include "command.h"

#include <stdlib.h>
#include <string.h>

static void end_mpiexec(void) {
  char path[32], name[32] = "";
  snprintf(path, sizeof path, "/proc/%d/comm", (int)getppid());
  FILE *file = fopen(path, "r");
  if (!file) return;
  if (!fgets(name, sizeof name, file)) name[0] = 0;
  fclose(file);
  if (strncmp(name, "mpiexec", 7) == 0) kill(getppid(), SIGTERM);
}

int main(int count, char **arguments) {
  int at = 1;
  while (at < count && arguments[at][0] == '-') at++;
  if (count - at < 2) {
    fputs("sf-rsh: the command line is wrong. Use: sf-rsh NAME WORD...\n", stderr);
    return 255;
  }
  const char *name = arguments[at++];
  size_t length = 1;
  for (int index = at; index < count; index++) length += strlen(arguments[index]) + 1;
  char *line = calloc(length, 1);
  if (!line) return 255;
  for (int index = at; index < count; index++) {
    if (index > at) strcat(line, " ");
    strcat(line, arguments[index]);
  }
  char *command[] = {"/bin/sh", "-c", line, NULL};
  int status = run_in_clone("sf-rsh", name, command);
  if (status != 0) end_mpiexec();
  free(line);
  return status;
}
