/* sf-exec NAME COMMAND ARGUMENT...: runs a command in a clone of this VM, or in a clone of a clone. Standard streams,
 * signals and the exit status pass through; 255: it could not be run, or not to its end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <snowflock.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int signals[2];

static void forward(int number) {
  unsigned char byte = (unsigned char)number;
  /* A full pipe holds thousands: one more says nothing. */
  (void)!write(signals[1], &byte, 1);
}

int main(int count, char **arguments) {
  if (count < 3) {
    fputs("sf-exec: the command line is wrong. Use: sf-exec NAME COMMAND ARGUMENT...\n", stderr);
    return 255;
  }
  if (pipe2(signals, O_CLOEXEC | O_NONBLOCK) != 0) {
    perror("sf-exec: pipe");
    return 255;
  }
  static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
  struct sigaction action = {.sa_handler = forward, .sa_flags = SA_RESTART};
  for (size_t index = 0; index < sizeof forwarded / sizeof *forwarded; index++)
    sigaction(forwarded[index], &action, NULL);
  sf_command command = {
      .clone = arguments[1], .arguments = arguments + 2, .input = 0, .output = 1, .error = 2, .signals = signals[0]};
  int status = sf_run(&command);
  if (status >= 0) return status;
  fprintf(stderr, "sf-exec: cannot run %s in %s: %s\n", arguments[2], arguments[1],
          command.reason[0] ? command.reason : sf_strerror(status));
  return 255;
}
