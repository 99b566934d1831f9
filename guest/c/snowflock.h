/* libsnowflock: fork the virtual machine that this process runs in.
 *
 * Link with -lsnowflock. Every call may be made by any thread of any process of the guest; calls that wait hold only
 * their own thread. Errors are negative errno numbers, in words by sf_strerror(). -ENOTCONN: the guest's agent is not
 * there or went away. -ECANCELED: the VM was forked, by another process or from outside, while this call waited, and
 * this is the clone, in which nobody will answer it; the parent's call goes on. */
#ifndef SNOWFLOCK_H
#define SNOWFLOCK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Leave to make `granted` clones, at most as many as were asked for; or `error`, and nothing is granted. */
typedef struct {
  char id[40];
  int granted;
  int error;
} sf_ticket;

/* A fork point that is kept. */
typedef struct {
  char id[40];
  int error;
} sf_checkpoint;

enum {
  SF_EXITED = 1, /* by sf_exit, or its process ended */
  SF_KILLED = 2, /* by sf_kill, or from outside */
  SF_LOST = 3,   /* its machine or host failed */
};

/* How one clone ended. */
typedef struct {
  int vmid;
  int how;
  int status;    /* what it gave to sf_exit; its process's status, or 128 + signal, if it ended without */
  void *result;  /* what it gave to sf_exit_with, or NULL */
  size_t result_length;
  char reason[160]; /* in words, for SF_KILLED and SF_LOST */
} sf_exit_status;

/* The most that a clone can send home with sf_exit_with, bytes. */
#define SF_RESULT_MAX ((size_t)1 << 20)

/* Asks for n clones. With `hierarchical`, each clone VM counts for as many as it has virtual CPUs: one process each. */
sf_ticket sf_request_ticket(int n, int hierarchical);

/* The same, with all clones on the host of that name (`sfctl host ls`); NULL or "": wherever there is room. -ENOENT:
 * there is no such host. -EAGAIN: it does not answer, or has no room. */
sf_ticket sf_request_ticket_on(int n, int hierarchical, const char *host);

/* Forks the VM. 0 in the parent; 1 to `granted` in the clones, each of which has its own name, address, clock and
 * random numbers by then. Whoever reads the parent's output (`sfctl exec`) does not see a clone's: what is to be
 * seen at home is sent there with sf_exit_with. In a clone only the calling process goes on from here; the others run
 * too, unaware.
 * With a hierarchical ticket the calling process is forked on each further virtual CPU of the clone and each returns
 * with its own number; of a threaded process, as with fork(2), only the calling thread is in those. */
int sf_clone(sf_ticket ticket);

/* Ends the clone, as exit(3) ends a process: standard output is flushed; exit handlers are not run. With several
 * processes in the clone's VM the VM ends with its last. In a parent, which is no clone, it is exit(status). */
void sf_exit(int status) __attribute__((noreturn));

/* The same, and `length` bytes, at most SF_RESULT_MAX (the rest is cut off), come home with sf_join. */
void sf_exit_with(int status, const void *result, size_t length) __attribute__((noreturn));

/* Waits until every clone of the ticket has ended. How many that are, of which the first `max` are in `out`,
 * to be freed with sf_free_statuses. */
int sf_join(sf_ticket ticket, sf_exit_status *out, int max);

/* The same for at most so many milliseconds; then -ETIMEDOUT, and it may be called again. */
int sf_join_timeout(sf_ticket ticket, sf_exit_status *out, int max, int milliseconds);

void sf_free_statuses(sf_exit_status *statuses, int count);

/* Ends every clone of the ticket. 0. */
int sf_kill(sf_ticket ticket);

/* Makes a fork point of this moment. It returns once in the parent, and again with the same id in every clone made
 * of it; sf_vmid() tells them apart. */
sf_checkpoint sf_checkpoint_parent(void);

/* Makes the ticket's clones of a fork point, as often as there are tickets. 0. */
int sf_create_clones(sf_checkpoint checkpoint, sf_ticket ticket);

/* Who this process is: 0 in a parent, the clone's number in a clone. */
int sf_vmid(void);

/* The name of the VM in which a clone of the ticket lives ("dev.3"), once it runs. The parent's to ask. 0, or -ENOENT
 * if it has ended. */
int sf_clone_name(sf_ticket ticket, int vmid, char *name, size_t size);

/* A command for a clone. */
typedef struct {
  const char *clone;        /* its name: a clone of this VM, or a clone of a clone */
  char *const *arguments;   /* the program, found along PATH, and its arguments; NULL-terminated */
  char *const *environment; /* "NAME=value", NULL-terminated; NULL: that of the clone's agent */
  int input, output, error; /* descriptors to read from and to write to; -1: none */
  int signals;              /* each byte read from it is the number of a signal for the command; -1: none */
  char reason[160];         /* set by sf_run where it fails, in words; may be empty */
} sf_command;

/* Runs the command to its end and returns its exit status, 128 + signal for one that a signal ended, 127 where there is
 * no such program and 126 where it can not be run. Or a negative errno: -ENOENT: the VM is not a clone of this one;
 * -EAGAIN: too many commands at once; -EIO: the clone or its host has ended. The command is ended when this process
 * ends before it. When the VM is forked meanwhile it goes on in the parent; in the clone it is -ECANCELED. */
int sf_run(sf_command *command);

/* The bounds of a block: under `sf-offload --block NAME`, what is done from a cc_start(NAME) to the next cc_stop() is
 * done in a clone, and its effect is this process's as if it had been done here. Without sf-offload, and for other
 * names, they do nothing. 0. */
int cc_start(const char *block);
int cc_stop(void);

/* An error of this library in words; never NULL, never to be freed. */
const char *sf_strerror(int error);

#ifdef __cplusplus
}
#endif

#endif
