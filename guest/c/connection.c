#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int sf_agent_connect(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SF_AGENT_SOCKET};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int result;
  do {
    result = connect(fd, (struct sockaddr *)&address, sizeof address);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    close(fd);
    return -ENOTCONN;
  }
  return fd;
}

static int send_all(int fd, const void *bytes, size_t length) {
  const char *next = bytes;
  while (length > 0) {
    ssize_t count = send(fd, next, length, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -ENOTCONN;
    next += count;
    length -= (size_t)count;
  }
  return 0;
}

static int receive_all(int fd, void *bytes, size_t length) {
  char *next = bytes;
  while (length > 0) {
    ssize_t count = recv(fd, next, length, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return -ENOTCONN;
    next += count;
    length -= (size_t)count;
  }
  return 0;
}

int sf_agent_send(int fd, struct sf_agent_request *request, const void *result) {
  request->magic = SF_AGENT_MAGIC;
  request->version = SF_AGENT_VERSION;
  int error = send_all(fd, request, sizeof *request);
  return error ? error : send_all(fd, result, request->result_length);
}

int sf_agent_receive(int fd, struct sf_agent_answer *answer, void **result) {
  *result = NULL;
  int error = receive_all(fd, answer, sizeof *answer);
  if (error) return error;
  if (answer->magic != SF_AGENT_MAGIC || answer->version != SF_AGENT_VERSION ||
      answer->result_length > SF_AGENT_RESULT_MAX)
    return -EPROTO;
  answer->id[SF_AGENT_ID_SIZE - 1] = 0;
  answer->message[SF_AGENT_MESSAGE_SIZE - 1] = 0;
  if (answer->result_length == 0) return 0;
  *result = malloc(answer->result_length);
  if (!*result) return -ENOMEM;
  error = receive_all(fd, *result, answer->result_length);
  if (error) {
    free(*result);
    *result = NULL;
  }
  return error;
}

static int converse(int fd, struct sf_agent_request *request, const void *result, struct sf_agent_answer *answer,
                    sf_status_handler *on_status, void *context) {
  int error = sf_agent_send(fd, request, result);
  while (!error) {
    void *received;
    error = sf_agent_receive(fd, answer, &received);
    if (error) break;
    if (answer->type == SF_AGENT_STATUS && on_status) {
      on_status(context, answer, received);
      continue;
    }
    free(received);
    if (answer->type == SF_AGENT_ANSWER) return answer->error;
    error = -EPROTO;
  }
  return error;
}

int sf_agent_ask(struct sf_agent_request *request, const void *result, struct sf_agent_answer *answer,
                 sf_status_handler *on_status, void *context) {
  int fd = sf_agent_connect();
  if (fd < 0) return fd;
  int error = converse(fd, request, result, answer, on_status, context);
  close(fd);
  return error;
}
