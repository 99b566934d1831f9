/* A command in a clone with this process's standard streams, signals and, in the end, exit status. */
#ifndef SNOWFLOCK_COMMAND_H
#define SNOWFLOCK_COMMAND_H

#include <fcntl.h>
#include <signal.h>
#include <snowflock.h>
#include <stdio.h>
#include <unistd.h>

static int signals[2];

static void forward(int number) {
  unsigned char byte = (unsigned char)number;
  /* A full pipe holds thousands: one more says nothing. */
  (void)!write(signals[1], &byte, 1);
}

/* Its exit status; 255: it could not be run, or not to its end, and `program` has said why. */
static int run_in_clone(const char *program, const char *name, char *const *arguments) {
  if (pipe2(signals, O_CLOEXEC | O_NONBLOCK) != 0) {
    perror(program);
    return 255;
  }
  static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
  struct sigaction action = {.sa_handler = forward, .sa_flags = SA_RESTART};
  for (size_t index = 0; index < sizeof forwarded / sizeof *forwarded; index++)
    sigaction(forwarded[index], &action, NULL);
  sf_command command = {
      .clone = name, .arguments = arguments, .input = 0, .output = 1, .error = 2, .signals = signals[0]};
  int status = sf_run(&command);
  if (status >= 0) return status;
  fprintf(stderr, "%s: cannot run %s in %s: %s\n", program, arguments[0], name,
          command.reason[0] ? command.reason : sf_strerror(status));
  return 255;
}

#endif
