/* Lets MPI_Finalize end over TCP. Preloaded into MPI programs by sfctl mpirun and sf-mpirun.
 *
 * In MPI_Finalize each rank of MPICH 4.0 over UCX flushes its connections, and then waits for the other ranks in the
 * process manager's barrier: in read(2), on the descriptor PMI_FD. UCX 1.13 flushes a TCP connection by a message that
 * its peer answers in ucp_worker_progress. A peer that is in the barrier already never does, and the rank that was
 * later than it waits for ever (openucx/ucx issue 8738; Open MPI has its barrier make progress since its pull request
 * 11143). So does this: while the barrier's answer is waited for, UCX goes on.
 *
 * UCX_ADAPTIVE_PROGRESS=n has to be set besides, or UCX stops looking at connections when the last of its own is
 * closed. Programs that use no UCX are not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum { WORKERS = 64, BETWEEN_LOOKS_MS = 1 };

static void *workers[WORKERS];
static atomic_int worker_count;
/* Raised when MPI_Finalize closes its first connection. */
static atomic_bool finalizing;
static int barrier_descriptor = -1;

static ssize_t (*next_read)(int, void *, size_t);
static signed char (*next_create)(void *, const void *, void **);
static void (*next_destroy)(void *);
static void *(*next_disconnect)(void *);
static unsigned (*progress)(void *);

__attribute__((constructor)) static void prepare(void) {
  next_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  next_create = (signed char (*)(void *, const void *, void **))dlsym(RTLD_NEXT, "ucp_worker_create");
  next_destroy = (void (*)(void *))dlsym(RTLD_NEXT, "ucp_worker_destroy");
  next_disconnect = (void *(*)(void *))dlsym(RTLD_NEXT, "ucp_disconnect_nb");
  progress = (unsigned (*)(void *))dlsym(RTLD_NEXT, "ucp_worker_progress");
  const char *descriptor = getenv("PMI_FD");
  if (descriptor && *descriptor) barrier_descriptor = atoi(descriptor);
}

EXPORTED signed char ucp_worker_create(void *context, const void *parameters, void **worker) {
  signed char status = next_create(context, parameters, worker);
  if (status == 0 && worker_count < WORKERS) workers[worker_count++] = *worker;
  return status;
}

EXPORTED void ucp_worker_destroy(void *worker) {
  worker_count = 0; /* MPICH destroys them all, after its barrier */
  next_destroy(worker);
}

EXPORTED void *ucp_disconnect_nb(void *endpoint) {
  finalizing = 1;
  return next_disconnect(endpoint);
}

EXPORTED ssize_t read(int descriptor, void *buffer, size_t size) {
  if (!next_read) next_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  if (finalizing && descriptor == barrier_descriptor) {
    struct pollfd answer = {.fd = descriptor, .events = POLLIN};
    while (worker_count && poll(&answer, 1, BETWEEN_LOOKS_MS) == 0)
      for (int index = 0; index < worker_count; index++)
        while (progress(workers[index])) {}
  }
  return next_read(descriptor, buffer, size);
}
