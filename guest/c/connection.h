/* A conversation with the agent: one request on a connection of its own, so that threads and processes that fork
 * need not share anything. */
#ifndef SNOWFLOCK_CONNECTION_H
#define SNOWFLOCK_CONNECTION_H

#include <stddef.h>

#include "agent_protocol.h"

/* Called for each answer that is not the last; `result` is malloc'ed and the callee's, NULL if there is none. */
typedef void sf_status_handler(void *context, const struct sf_agent_answer *status, void *result);

/* Asks, and waits for the last answer. 0, or the answer's error, or -ENOTCONN, -ENOMEM, -EPROTO.
 * `result` of request->result_length bytes goes with the request. `on_status` may be NULL. */
int sf_agent_ask(struct sf_agent_request *request, const void *result, struct sf_agent_answer *answer,
                 sf_status_handler *on_status, void *context);

/* The parts of a conversation that is more than that.
 * Connects: a descriptor, or -ENOTCONN or another negative errno. */
int sf_agent_connect(void);
/* Sends the request with result_length bytes behind it. 0 or -ENOTCONN. */
int sf_agent_send(int fd, struct sf_agent_request *request, const void *result);
/* Receives one answer; `*result` is malloc'ed, or NULL if nothing is behind it. 0, -ENOTCONN, -ENOMEM or -EPROTO. */
int sf_agent_receive(int fd, struct sf_agent_answer *answer, void **result);

#endif
