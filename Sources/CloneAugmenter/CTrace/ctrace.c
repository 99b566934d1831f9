#define _GNU_SOURCE
#include "ctrace.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

static int result_of(long result) { return result < 0 ? -errno : (int)result; }

static int stop_of_event(int event) {
  switch (event) {
    case PTRACE_EVENT_STOP: return CT_STOPPED;
    case PTRACE_EVENT_SECCOMP: return CT_SECCOMP;
    case PTRACE_EVENT_CLONE: return CT_CLONED;
    case PTRACE_EVENT_FORK: return CT_FORKED;
    case PTRACE_EVENT_VFORK: return CT_VFORKED;
    case PTRACE_EVENT_EXEC: return CT_EXECUTED;
    default: return CT_OTHER;
  }
}

int ct_wait(int tid, int no_hang, struct ct_event *event) {
  int status;
  pid_t pid;
  do {
    pid = waitpid(tid, &status, __WALL | (no_hang ? WNOHANG : 0));
  } while (pid < 0 && errno == EINTR);
  if (pid <= 0) return result_of(pid);
  *event = (struct ct_event){.tid = pid};
  if (WIFEXITED(status)) {
    event->stop = CT_EXITED;
    event->value = WEXITSTATUS(status);
  } else if (WIFSIGNALED(status)) {
    event->stop = CT_EXITED;
    event->value = 128 + WTERMSIG(status);
  } else if (status >> 16 != 0) {
    event->stop = stop_of_event(status >> 16);
    event->value = WSTOPSIG(status);
    (void)ptrace(PTRACE_GETEVENTMSG, pid, NULL, &event->message);
  } else {
    event->value = WSTOPSIG(status);
    event->stop = event->value == (SIGTRAP | 0x80) ? CT_SYSCALL : CT_SIGNAL;
  }
  return 1;
}

int ct_seize(int tid) {
  long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                 PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP;
  return result_of(ptrace(PTRACE_SEIZE, tid, NULL, (void *)options));
}

int ct_interrupt(int tid) { return result_of(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL)); }

int ct_continue(int tid, int signal) { return result_of(ptrace(PTRACE_CONT, tid, NULL, (void *)(long)signal)); }

int ct_to_syscall(int tid) { return result_of(ptrace(PTRACE_SYSCALL, tid, NULL, NULL)); }

int ct_step(int tid) { return result_of(ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL)); }

int ct_listen(int tid) { return result_of(ptrace(PTRACE_LISTEN, tid, NULL, NULL)); }

int ct_detach(int tid, int signal) { return result_of(ptrace(PTRACE_DETACH, tid, NULL, (void *)(long)signal)); }

int ct_get_registers(int tid, struct user_regs_struct *registers) {
  return result_of(ptrace(PTRACE_GETREGS, tid, NULL, registers));
}

int ct_set_registers(int tid, const struct user_regs_struct *registers) {
  return result_of(ptrace(PTRACE_SETREGS, tid, NULL, registers));
}

/* A processor without XSAVE has only what FXSAVE keeps. */
static long vector_registers(int tid, int request, struct iovec *place) {
  long result = ptrace(request, tid, (void *)NT_X86_XSTATE, place);
  if (result < 0 && (errno == ENODEV || errno == EINVAL)) result = ptrace(request, tid, (void *)NT_PRFPREG, place);
  return result < 0 ? -errno : (long)place->iov_len;
}

long ct_get_xstate(int tid, void *bytes, size_t size) {
  struct iovec place = {.iov_base = bytes, .iov_len = size};
  return vector_registers(tid, PTRACE_GETREGSET, &place);
}

long ct_set_xstate(int tid, const void *bytes, size_t size) {
  struct iovec place = {.iov_base = (void *)bytes, .iov_len = size};
  return vector_registers(tid, PTRACE_SETREGSET, &place);
}

int ct_get_mask(int tid, uint64_t *mask) {
  return result_of(ptrace(PTRACE_GETSIGMASK, tid, (void *)sizeof *mask, mask));
}

int ct_set_mask(int tid, uint64_t mask) {
  return result_of(ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof mask, &mask));
}

int ct_signal_code(int tid, int *code) {
  siginfo_t information;
  int result = result_of(ptrace(PTRACE_GETSIGINFO, tid, NULL, &information));
  if (result == 0) *code = information.si_code;
  return result;
}

int ct_pidfd_open(int pid) { return result_of(syscall(SYS_pidfd_open, pid, 0)); }

int ct_memfd(const char *name) { return result_of(memfd_create(name, MFD_CLOEXEC)); }

long ct_random(void *bytes, size_t count) {
  long result = getrandom(bytes, count, 0);
  return result < 0 ? -errno : result;
}

int ct_fork(void) { return result_of(fork()); }

int ct_spawn_stopped(char *const *arguments) {
  pid_t pid = fork();
  if (pid != 0) return result_of(pid);
  raise(SIGSTOP);
  execvp(arguments[0], arguments);
  int error = errno;
  fprintf(stderr, "sf-offload: cannot run %s: %s.\n", arguments[0], strerror(error));
  _exit(error == ENOENT ? 127 : 126);
}

void ct_stand_alone(void) {
  setsid();
  int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; fd++) dup2(nothing, fd);
}

int ct_spawn(char *const *arguments) {
  pid_t pid;
  int error = posix_spawnp(&pid, arguments[0], NULL, NULL, arguments, environ);
  return error != 0 ? -error : pid;
}

void ct_power_off(void) { reboot(RB_POWER_OFF); }
