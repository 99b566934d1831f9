/* What a process and the agent of its guest say to each other over the stream socket SF_AGENT_SOCKET.
 *
 * One request a connection: the process sends one sf_agent_request (for SF_AGENT_EXIT with a result behind it), the
 * agent answers with any number of SF_AGENT_STATUS and one SF_AGENT_ANSWER. Closing the connection before that
 * cancels the request. A ticket is the process's once it has read it: a process that ends with the answer unread
 * leaves none (a connection with a ticket in its answer is closed by the process). All numbers are in the machine's
 * order; both sides are in the same guest.
 *
 * SF_AGENT_RUN is a conversation: until its SF_AGENT_ANSWER the process may send any number of SF_AGENT_RUN_INPUT and
 * SF_AGENT_RUN_SIGNAL, and gets SF_AGENT_RUN_OUTPUT and SF_AGENT_RUN_CREDIT. It sends at most SF_AGENT_RUN_WINDOW
 * bytes of input, and what credit adds; who sends more is hung up on.
 *
 * The process that was told a clone's vmid, or claimed one, is that vmid's: when it ends without an SF_AGENT_EXIT
 * before, the agent reports its exit status, or 128 + signal, or 255 where another has reaped it already. */
#ifndef SNOWFLOCK_AGENT_PROTOCOL_H
#define SNOWFLOCK_AGENT_PROTOCOL_H

#include <stdint.h>

#define SF_AGENT_SOCKET "/run/snowflock/agent.sock"
/* The vmid of this VM (its first, if it has several) as decimal text; 0 in a parent. */
#define SF_AGENT_VMID_FILE "/run/snowflock/vmid"

enum {
  SF_AGENT_MAGIC = 0x47414653, /* "SFAG" */
  SF_AGENT_VERSION = 1,
  SF_AGENT_ID_SIZE = 40,
  SF_AGENT_MESSAGE_SIZE = 160,
  SF_AGENT_RESULT_MAX = 1 << 20,
  SF_AGENT_RUN_WINDOW = 64 << 10,
};

/* Requests. */
enum {
  SF_AGENT_REQUEST_TICKET = 1, /* number clones, flag hierarchical → id ticket, count granted */
  SF_AGENT_CLONE = 2,          /* ticket → vmid, count processes of this VM */
  SF_AGENT_CHECKPOINT = 3,     /* → id snapshot; in a clone also vmid, count */
  SF_AGENT_CREATE_CLONES = 4,  /* snapshot, ticket */
  SF_AGENT_EXIT = 5,           /* vmid, number status, result_length bytes behind */
  SF_AGENT_JOIN = 6,           /* ticket, timeout_ms (negative: none) → a status a clone, then the answer */
  SF_AGENT_KILL = 7,           /* ticket */
  SF_AGENT_CLAIM = 8,          /* vmid: it is this process's from now on */
  SF_AGENT_RUN = 9,            /* number arguments, flag environment strings; behind: the clone's name and those, each
                                  with its NUL → status of the command */
  SF_AGENT_RUN_INPUT = 10,     /* result_length bytes behind, at most 64 KiB; none: the end of the input */
  SF_AGENT_RUN_SIGNAL = 11,    /* number */
  SF_AGENT_CLONE_NAME = 12,    /* ticket, vmid → message: the name of its VM, once that runs */
  SF_AGENT_REQUEST_TICKET_ON = 13, /* as SF_AGENT_REQUEST_TICKET; behind: the host's name, without a NUL */
};

/* Answers. */
enum {
  SF_AGENT_ANSWER = 100,
  SF_AGENT_STATUS = 101, /* vmid, how, status, result_length bytes behind */
  SF_AGENT_RUN_OUTPUT = 102, /* how 1 output, 2 error; result_length bytes behind */
  SF_AGENT_RUN_CREDIT = 103, /* count bytes more of input may be sent */
};

/* Identifiers are NUL-padded and NUL-terminated. */
struct sf_agent_request {
  uint32_t magic;
  uint16_t version;
  uint16_t type;
  int32_t number;
  int32_t flag;
  uint32_t vmid;
  uint32_t result_length;
  int64_t timeout_ms;
  char ticket[SF_AGENT_ID_SIZE];
  char snapshot[SF_AGENT_ID_SIZE];
};

struct sf_agent_answer {
  uint32_t magic;
  uint16_t version;
  uint16_t type;
  int32_t error; /* 0, or a negative errno */
  uint32_t vmid;
  uint32_t count;
  int32_t how; /* as GuestWire's JoinStatus.How: 1 exited, 2 killed, 3 lost */
  int32_t status;
  uint32_t result_length;
  char id[SF_AGENT_ID_SIZE];
  char message[SF_AGENT_MESSAGE_SIZE];
};

_Static_assert(sizeof(struct sf_agent_request) == 112, "no padding");
_Static_assert(sizeof(struct sf_agent_answer) == 232, "no padding");

#endif
