#define _GNU_SOURCE
#include "snowflock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connection.h"
#include "hierarchy.h"

#define PUBLIC __attribute__((visibility("default")))

static void copy_id(char to[SF_AGENT_ID_SIZE], const char from[SF_AGENT_ID_SIZE]) {
  memcpy(to, from, SF_AGENT_ID_SIZE);
  to[SF_AGENT_ID_SIZE - 1] = 0;
}

/* A request that is answered by nothing but whether it went well. */
static int ask(struct sf_agent_request *request, struct sf_agent_answer *answer) {
  return sf_agent_ask(request, NULL, answer, NULL, NULL);
}

PUBLIC sf_ticket sf_request_ticket_on(int n, int hierarchical, const char *host) {
  sf_ticket ticket = {0};
  size_t length = host ? strnlen(host, SF_AGENT_RESULT_MAX) : 0;
  struct sf_agent_request request = {.type = length ? SF_AGENT_REQUEST_TICKET_ON : SF_AGENT_REQUEST_TICKET,
                                     .number = n,
                                     .flag = hierarchical != 0,
                                     .result_length = (uint32_t)length};
  struct sf_agent_answer answer;
  ticket.error = sf_agent_ask(&request, host, &answer, NULL, NULL);
  if (ticket.error) return ticket;
  copy_id(ticket.id, answer.id);
  ticket.granted = (int)answer.count;
  return ticket;
}

PUBLIC sf_ticket sf_request_ticket(int n, int hierarchical) { return sf_request_ticket_on(n, hierarchical, NULL); }

PUBLIC int sf_clone(sf_ticket ticket) {
  if (ticket.error) return ticket.error;
  struct sf_agent_request request = {.type = SF_AGENT_CLONE};
  struct sf_agent_answer answer;
  copy_id(request.ticket, ticket.id);
  fflush(NULL); /* or every clone would write what lies in this process's buffers */
  int error = ask(&request, &answer);
  if (error) return error;
  return answer.vmid == 0 ? 0 : sf_become_processes((int)answer.vmid, (int)answer.count);
}

PUBLIC sf_checkpoint sf_checkpoint_parent(void) {
  sf_checkpoint checkpoint = {0};
  struct sf_agent_request request = {.type = SF_AGENT_CHECKPOINT};
  struct sf_agent_answer answer;
  fflush(NULL);
  checkpoint.error = ask(&request, &answer);
  if (checkpoint.error) return checkpoint;
  copy_id(checkpoint.id, answer.id);
  if (answer.vmid != 0) sf_become_processes((int)answer.vmid, (int)answer.count);
  return checkpoint;
}

PUBLIC int sf_create_clones(sf_checkpoint checkpoint, sf_ticket ticket) {
  if (checkpoint.error) return checkpoint.error;
  if (ticket.error) return ticket.error;
  struct sf_agent_request request = {.type = SF_AGENT_CREATE_CLONES};
  struct sf_agent_answer answer;
  copy_id(request.snapshot, checkpoint.id);
  copy_id(request.ticket, ticket.id);
  return ask(&request, &answer);
}

PUBLIC void sf_exit_with(int status, const void *result, size_t length) {
  int vmid = sf_vmid();
  if (vmid == 0) exit(status);
  fflush(NULL);
  if (length > SF_RESULT_MAX) length = SF_RESULT_MAX;
  struct sf_agent_request request = {
      .type = SF_AGENT_EXIT, .vmid = (uint32_t)vmid, .number = status, .result_length = (uint32_t)length};
  struct sf_agent_answer answer;
  /* Without the agent the process's own end, which the agent's successor may yet see, has to do. */
  (void)sf_agent_ask(&request, result, &answer, NULL, NULL);
  _exit(status);
}

PUBLIC void sf_exit(int status) { sf_exit_with(status, NULL, 0); }

struct joined {
  sf_exit_status *out;
  int max;
  int count;
};

static void take_status(void *context, const struct sf_agent_answer *answer, void *result) {
  struct joined *joined = context;
  int index = joined->count++;
  if (index >= joined->max) {
    free(result);
    return;
  }
  sf_exit_status *status = &joined->out[index];
  *status = (sf_exit_status){.vmid = (int)answer->vmid,
                             .how = answer->how,
                             .status = answer->status,
                             .result = result,
                             .result_length = answer->result_length};
  memcpy(status->reason, answer->message, sizeof status->reason);
}

static int join(sf_ticket ticket, sf_exit_status *out, int max, int64_t timeout_ms) {
  if (ticket.error) return ticket.error;
  if (max < 0 || (max > 0 && !out)) return -EINVAL;
  struct joined joined = {.out = out, .max = max};
  struct sf_agent_request request = {.type = SF_AGENT_JOIN, .timeout_ms = timeout_ms};
  struct sf_agent_answer answer;
  copy_id(request.ticket, ticket.id);
  int error = sf_agent_ask(&request, NULL, &answer, take_status, &joined);
  if (!error) return joined.count;
  sf_free_statuses(out, joined.count < max ? joined.count : max);
  return error;
}

PUBLIC int sf_join(sf_ticket ticket, sf_exit_status *out, int max) { return join(ticket, out, max, -1); }

PUBLIC int sf_join_timeout(sf_ticket ticket, sf_exit_status *out, int max, int milliseconds) {
  return join(ticket, out, max, milliseconds < 0 ? 0 : milliseconds);
}

PUBLIC void sf_free_statuses(sf_exit_status *statuses, int count) {
  for (int index = 0; index < count; index++) {
    free(statuses[index].result);
    statuses[index].result = NULL;
    statuses[index].result_length = 0;
  }
}

PUBLIC int sf_kill(sf_ticket ticket) {
  if (ticket.error) return ticket.error;
  struct sf_agent_request request = {.type = SF_AGENT_KILL};
  struct sf_agent_answer answer;
  copy_id(request.ticket, ticket.id);
  return ask(&request, &answer);
}

PUBLIC int sf_vmid(void) {
  /* Read each time: the VM may have been forked since, without this process having asked for it. */
  char text[16] = {0};
  int fd = open(SF_AGENT_VMID_FILE, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t count = read(fd, text, sizeof text - 1);
  close(fd);
  int first = count > 0 ? atoi(text) : 0;
  return first == 0 ? 0 : first + sf_process_index();
}

/* What sf-offload takes for the bounds: their entries. Neither may be merged with a function like it. */
PUBLIC __attribute__((noinline)) int cc_start(const char *block) {
  __asm__ volatile("" : : "r"(block) : "memory");
  return 0;
}

PUBLIC __attribute__((noinline)) int cc_stop(void) {
  __asm__ volatile("" : : : "memory");
  return 0;
}

PUBLIC const char *sf_strerror(int error) {
  switch (error) {
    case 0: return "no error";
    case -ENOTCONN: return "the guest's agent is not there";
    case -ECANCELED: return "the VM was forked while the call waited";
    case -ENOSYS: return "not in this version";
  }
  const char *text = error < 0 ? strerrordesc_np(-error) : NULL;
  return text ? text : "unknown error";
}
