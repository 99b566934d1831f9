/* sf-mpirun -n N [OPTION OF MPIEXEC]... PROGRAM ARGUMENT...: forks this VM into N clones and runs an MPI program, a
 * rank in each. mpiexec runs here and reaches the clones by sf-rsh. Its exit status, or 128 + the signal that it was
 * sent if that is 0; 255: it did not come to that. The clones are ended when it has ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <snowflock.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t pending; /* a signal that came before there was anybody to have it */
static volatile sig_atomic_t last;    /* the last signal that came */
static volatile pid_t launcher;

static void forward(int number) {
  last = number;
  if (launcher > 0)
    kill(launcher, number);
  else
    pending = number;
}

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  fputs("sf-mpirun: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
  return 255;
}

/* The names of the clones that run, with commas between them. How many; their VMs are asked one by one. */
static int name_clones(sf_ticket ticket, char *names, size_t size) {
  int count = 0;
  size_t used = 0;
  for (int vmid = 1; vmid <= ticket.granted; vmid++) {
    char name[160];
    if (sf_clone_name(ticket, vmid, name, sizeof name) != 0 || used + strlen(name) + 2 > size) continue;
    used += (size_t)sprintf(names + used, "%s%s", count ? "," : "", name);
    count++;
  }
  return count;
}

static int launch(char *names, char **arguments, int count) {
  /* As sfctl mpirun does, so that MPI_Finalize ends: see preload/libsnowflock-mpi.c. */
  char *first[] = {"mpiexec.hydra", "-launcher", "rsh", "-launcher-exec", "/usr/bin/sf-rsh", "-hosts", names,
                   "-genv", "LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/libsnowflock-mpi.so",
                   "-genv", "UCX_ADAPTIVE_PROGRESS", "n"};
  enum { FIRST = sizeof first / sizeof *first };
  char **all = calloc((size_t)count + FIRST, sizeof *all);
  if (!all) return fail("no memory");
  memcpy(all, first, sizeof first);
  memcpy(all + FIRST, arguments + 1, ((size_t)count - 1) * sizeof *all);
  pid_t child = fork();
  if (child == 0) {
    execvp(all[0], all);
    _exit(fail("cannot run mpiexec: %s. Install mpich in the image.", strerror(errno)));
  }
  free(all);
  if (child < 0) return fail("cannot fork: %s", strerror(errno));
  launcher = child;
  if (pending) kill(child, pending);
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return fail("waitpid: %s", strerror(errno));
  /* mpiexec may end with 0 when its ranks were killed by a signal that it passed on. */
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && last) return 128 + last;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int count, char **arguments) {
  int wanted = count >= 4 && strcmp(arguments[1], "-n") == 0 ? atoi(arguments[2]) : 0;
  if (wanted < 1) return fail("the command line is wrong. Use: sf-mpirun -n N PROGRAM ARGUMENT...");
  static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
  struct sigaction action = {.sa_handler = forward, .sa_flags = SA_RESTART};
  for (size_t index = 0; index < sizeof forwarded / sizeof *forwarded; index++)
    sigaction(forwarded[index], &action, NULL);

  sf_ticket ticket = sf_request_ticket(wanted, 0);
  if (ticket.error) return fail("cannot have %d clones: %s", wanted, sf_strerror(ticket.error));
  int me = pending ? -EINTR : sf_clone(ticket);
  if (me > 0)
    for (;;) pause(); /* until the parent ends this VM: what is to be done here comes by sf-rsh */
  int status = 255;
  if (me < 0) {
    fail("cannot clone: %s", sf_strerror(me));
  } else {
    size_t size = (size_t)ticket.granted * 160 + 1;
    char *names = malloc(size);
    int named = names ? name_clones(ticket, names, size) : 0;
    if (named > 0 && named < wanted) fail("%d of %d clones run: some have more than one rank", named, wanted);
    if (named == 0)
      fail("not one of %d clones runs", ticket.granted);
    else
      status = launch(names, arguments, count);
    free(names);
  }
  sf_kill(ticket);
  if (me == 0) sf_join(ticket, NULL, 0);
  return status;
}
