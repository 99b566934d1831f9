/* ptrace(2) and what else of the kernel sf-offload needs and Swift cannot call by itself. One function, one call.
 * Each returns what the call returns, or the negative errno. The oldest kernel: Linux 4.8. */
#ifndef CTRACE_H
#define CTRACE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

/* Headers that Swift's Glibc module leaves out. */
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/vfs.h>

/* What waitpid(2) tells of a tracee. */
enum ct_stop {
  CT_EXITED = 1,    /* value: the exit status, 128 + signal for one that a signal ended */
  CT_SIGNAL = 2,    /* signal-delivery-stop; value: the signal */
  CT_SYSCALL = 3,   /* at the entry or exit of a system call */
  CT_STOPPED = 4,   /* PTRACE_EVENT_STOP: interrupted, new, or in a group stop; value: the signal */
  CT_SECCOMP = 5,   /* before a system call that the filter has traced */
  CT_CLONED = 6,    /* PTRACE_EVENT_CLONE; message: the new thread or process */
  CT_FORKED = 7,    /* PTRACE_EVENT_FORK */
  CT_VFORKED = 8,   /* PTRACE_EVENT_VFORK */
  CT_EXECUTED = 9,  /* PTRACE_EVENT_EXEC; message: the former thread id */
  CT_OTHER = 10,
};

struct ct_event {
  int tid;
  int stop; /* enum ct_stop */
  int value;
  unsigned long message;
};

/* waitpid(2) with __WALL. 1: *event is set; 0: with `no_hang`, nothing to tell. -ECHILD: no such tracee. */
int ct_wait(int tid, int no_hang, struct ct_event *_Nonnull event);

/* PTRACE_SEIZE, with every event that struct ct_event knows. */
int ct_seize(int tid);
int ct_interrupt(int tid);
/* PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP, PTRACE_DETACH. */
int ct_continue(int tid, int signal);
int ct_to_syscall(int tid);
int ct_step(int tid);
/* PTRACE_LISTEN: stays in its group stop until SIGCONT. */
int ct_listen(int tid);
int ct_detach(int tid, int signal);

int ct_get_registers(int tid, struct user_regs_struct *_Nonnull registers);
int ct_set_registers(int tid, const struct user_regs_struct *_Nonnull registers);
/* NT_X86_XSTATE, or NT_PRFPREG where the processor has no XSAVE: floating point and vector registers. The count of
 * bytes. */
long ct_get_xstate(int tid, void *_Nonnull bytes, size_t size);
long ct_set_xstate(int tid, const void *_Nonnull bytes, size_t size);
int ct_get_mask(int tid, uint64_t *_Nonnull mask);
int ct_set_mask(int tid, uint64_t mask);
/* si_code of the signal that a signal-delivery-stop is about. */
int ct_signal_code(int tid, int *_Nonnull code);

int ct_pidfd_open(int pid);
int ct_memfd(const char *_Nonnull name);
long ct_random(void *_Nonnull bytes, size_t count);

/* fork(2). Swift does not let itself call it; there is one thread. */
int ct_fork(void);

/* In a session of its own, without the standard streams. */
void ct_stand_alone(void);

/* A child that stops itself, so that it can be seized, and is then the program. `arguments` ends with NULL. Its
 * status is 127 if there is no such program, 126 if it can not be run; a line on standard error says so. */
int ct_spawn_stopped(char *_Nullable const *_Nonnull arguments);

/* A child that is the program at once, without a copy of this process's memory. Its id, or what execve said. */
int ct_spawn(char *_Nullable const *_Nonnull arguments);

/* Ends a whole guest at once. */
void ct_power_off(void);

#endif
