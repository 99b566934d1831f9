#define _GNU_SOURCE
#include "clinux_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

int clinux_memfd_create(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int clinux_unmount_in(int mounts, const char *path) {
  if (unshare(CLONE_FS) == -1 || setns(mounts, CLONE_NEWNS) == -1) return -1;
  if (umount2(path, MNT_DETACH) == -1) return -1;
  return rmdir(path);
}

pid_t clinux_spawn_detached(const char *program, char *const *arguments, const char *log) {
  int output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (output == -1) return -1;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = fork();
  if (child == 0) {
    /* Only async-signal-safe calls from here on. */
    setsid();
    int input = open("/dev/null", O_RDONLY);
    if (input == -1 || dup2(input, 0) == -1 || dup2(output, 1) == -1 || dup2(output, 2) == -1) _exit(127);
    close_range(3, ~0U, 0);
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++) sigaction(number, &action, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(program, arguments);
    _exit(127);
  }
  int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(output);
  errno = error;
  return child;
}
