/* Commands in clones: sf_run and sf_clone_name. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connection.h"
#include "snowflock.h"

#define PUBLIC __attribute__((visibility("default")))

enum { PIECE = 16 << 10 };

/* One command under way. */
struct run {
  int agent;
  int input, signals; /* -1 when they have ended */
  const sf_command *command;
  uint32_t credit;    /* bytes of input that may be sent */
  char *output;       /* what is not written yet, and where it goes */
  size_t output_length, output_written;
  int output_to;
  int status;
};

/* The clone's name, the arguments and the environment, each with its NUL. NULL: no memory, or too long. */
static char *packed(const sf_command *command, struct sf_agent_request *request) {
  size_t length = strlen(command->clone) + 1, at = 0;
  int count = 0, variables = 0;
  for (char *const *word = command->arguments; *word; word++, count++) length += strlen(*word) + 1;
  for (char *const *word = command->environment; word && *word; word++, variables++) length += strlen(*word) + 1;
  char *text = length <= SF_AGENT_RESULT_MAX ? malloc(length) : NULL;
  if (!text) return NULL;
  at = (size_t)(stpcpy(text, command->clone) - text) + 1;
  for (int index = 0; index < count; index++)
    at = (size_t)(stpcpy(text + at, command->arguments[index]) - text) + 1;
  for (int index = 0; index < variables; index++)
    at = (size_t)(stpcpy(text + at, command->environment[index]) - text) + 1;
  *request = (struct sf_agent_request){
      .type = SF_AGENT_RUN, .number = count, .flag = variables, .result_length = (uint32_t)length};
  return text;
}

/* If the agent does not take it, its last answer, which says why, is there to be read. */
static void tell(struct run *run, struct sf_agent_request request, const void *bytes) {
  if (sf_agent_send(run->agent, &request, bytes) != 0) run->input = run->signals = -1;
}

static void send_input(struct run *run, const void *bytes, size_t length) {
  run->credit -= (uint32_t)length;
  tell(run, (struct sf_agent_request){.type = SF_AGENT_RUN_INPUT, .result_length = (uint32_t)length}, bytes);
}

static void take_input(struct run *run) {
  char bytes[PIECE];
  ssize_t count = read(run->input, bytes, run->credit < sizeof bytes ? run->credit : sizeof bytes);
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) { /* a terminal that has gone away is an end too */
    run->input = -1;
    count = 0;
  }
  send_input(run, bytes, (size_t)count);
}

static void take_signals(struct run *run) {
  unsigned char numbers[16];
  ssize_t count = read(run->signals, numbers, sizeof numbers);
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) run->signals = -1;
  for (ssize_t index = 0; index < count; index++)
    tell(run, (struct sf_agent_request){.type = SF_AGENT_RUN_SIGNAL, .number = numbers[index]}, NULL);
}

/* In pieces that a pipe that is ready has room for, so that nothing else has to wait for a slow reader. */
static int write_output(struct run *run) {
  size_t length = run->output_length - run->output_written;
  ssize_t count = write(run->output_to, run->output + run->output_written, length < 4096 ? length : 4096);
  if (count < 0) return errno == EINTR || errno == EAGAIN ? 0 : -errno;
  run->output_written += (size_t)count;
  if (run->output_written < run->output_length) return 0;
  free(run->output);
  run->output = NULL;
  return 0;
}

/* 1: the command has ended. */
static int take_answer(struct run *run, sf_command *command) {
  struct sf_agent_answer answer;
  void *bytes;
  int error = sf_agent_receive(run->agent, &answer, &bytes);
  if (error) return error;
  int to = answer.how == 1 ? run->command->output : run->command->error;
  if (answer.type == SF_AGENT_RUN_OUTPUT && to >= 0) {
    run->output = bytes;
    run->output_length = bytes ? answer.result_length : 0;
    run->output_written = 0;
    run->output_to = to;
    return 0;
  }
  free(bytes);
  if (answer.type == SF_AGENT_RUN_OUTPUT) return 0;
  if (answer.type == SF_AGENT_RUN_CREDIT) {
    run->credit += answer.count;
    return 0;
  }
  if (answer.type != SF_AGENT_ANSWER) return -EPROTO;
  memcpy(command->reason, answer.message, sizeof command->reason);
  run->status = answer.status;
  return answer.error ? answer.error : 1;
}

static int converse(struct run *run, sf_command *command) {
  int result = 0;
  if (run->input < 0) send_input(run, NULL, 0);
  while (result == 0) {
    struct pollfd waiting[] = {
        {.fd = run->output ? -1 : run->agent, .events = POLLIN},
        {.fd = run->output ? run->output_to : -1, .events = POLLOUT},
        {.fd = run->credit > 0 ? run->input : -1, .events = POLLIN},
        {.fd = run->signals, .events = POLLIN},
    };
    if (poll(waiting, sizeof waiting / sizeof *waiting, -1) < 0) {
      if (errno != EINTR) result = -errno;
      continue;
    }
    if (waiting[3].revents) take_signals(run);
    if (waiting[2].revents) take_input(run);
    if (waiting[1].revents) result = write_output(run);
    if (result == 0 && waiting[0].revents) result = take_answer(run, command);
  }
  return result == 1 ? run->status : result;
}

PUBLIC int sf_run(sf_command *command) {
  memset(command->reason, 0, sizeof command->reason);
  if (!command->clone || !command->arguments || !command->arguments[0]) return -EINVAL;
  struct sf_agent_request request;
  char *text = packed(command, &request);
  if (!text) return -E2BIG;
  struct run run = {.agent = sf_agent_connect(),
                    .input = command->input,
                    .signals = command->signals,
                    .command = command,
                    .credit = SF_AGENT_RUN_WINDOW};
  int result = run.agent;
  if (result >= 0) {
    result = sf_agent_send(run.agent, &request, text);
    if (result == 0) result = converse(&run, command);
    close(run.agent);
  }
  free(text);
  free(run.output);
  return result;
}

PUBLIC int sf_clone_name(sf_ticket ticket, int vmid, char *name, size_t size) {
  if (ticket.error) return ticket.error;
  struct sf_agent_request request = {.type = SF_AGENT_CLONE_NAME, .vmid = (uint32_t)vmid};
  struct sf_agent_answer answer;
  memcpy(request.ticket, ticket.id, SF_AGENT_ID_SIZE);
  request.ticket[SF_AGENT_ID_SIZE - 1] = 0;
  int error = sf_agent_ask(&request, NULL, &answer, NULL, NULL);
  if (error) return error;
  if (strlen(answer.message) >= size) return -ENAMETOOLONG;
  strcpy(name, answer.message);
  return 0;
}
