/* sf-api results|kill|timeout|checkpoint|errors: one part of the API each. Prints "right", or what was not, and exits
 * with 0 or 1. */
#include "report.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static int failures;

#define EXPECT(condition)                                          \
  do {                                                             \
    if (!(condition)) {                                            \
      printf("line %d: not so: %s\n", __LINE__, #condition);       \
      failures++;                                                  \
    }                                                              \
  } while (0)

static unsigned char result_byte(size_t index) { return (unsigned char)(index * 31 >> 3); }

/* Clones end in the reverse order of their numbers, each in another way. */
static int results(void) {
  sf_ticket ticket = must_request(4, 0);
  EXPECT(ticket.granted == 4);
  int me = must("sf_clone", sf_clone(ticket));
  EXPECT(sf_vmid() == me);
  if (me > 0) usleep((useconds_t)(4 - me) * 100000);
  if (me == 1) {
    unsigned char *large = malloc(SF_RESULT_MAX);
    for (size_t i = 0; i < SF_RESULT_MAX; i++) large[i] = result_byte(i);
    sf_exit_with(-5, large, SF_RESULT_MAX);
  }
  if (me == 2) sf_exit(7);
  if (me == 3) return 9;
  if (me == 4) abort();

  sf_exit_status ends[4];
  memset(ends, 0, sizeof ends);
  EXPECT(must("sf_join", sf_join(ticket, ends, 4)) == 4);
  for (int i = 0; i < 4; i++) EXPECT(ends[i].vmid == i + 1 && ends[i].how == SF_EXITED);
  EXPECT(ends[0].status == -5 && ends[0].result_length == SF_RESULT_MAX);
  size_t wrong = 0;
  for (size_t i = 0; i < ends[0].result_length; i++) wrong += ((unsigned char *)ends[0].result)[i] != result_byte(i);
  EXPECT(wrong == 0);
  EXPECT(ends[1].status == 7 && ends[1].result_length == 0);
  EXPECT(ends[2].status == 9);
  EXPECT(ends[3].status == 128 + 6);
  sf_free_statuses(ends, 4);
  return failures;
}

static int killed(void) {
  sf_ticket ticket = must_request(2, 0);
  if (must("sf_clone", sf_clone(ticket)) > 0) pause();
  EXPECT(sf_kill(ticket) == 0);
  sf_exit_status ends[2];
  EXPECT(sf_join(ticket, ends, 2) == 2);
  for (int i = 0; i < 2; i++) {
    EXPECT(ends[i].how == SF_KILLED && ends[i].vmid == i + 1);
    EXPECT(strlen(ends[i].reason) > 0);
  }
  sf_free_statuses(ends, 2);
  EXPECT(sf_join(ticket, ends, 2) == -ENOENT);
  return failures;
}

static int timed_out(void) {
  sf_ticket ticket = must_request(1, 0);
  if (must("sf_clone", sf_clone(ticket)) > 0) pause();
  EXPECT(sf_join_timeout(ticket, NULL, 0, 100) == -ETIMEDOUT);
  EXPECT(sf_join_timeout(ticket, NULL, 0, 0) == -ETIMEDOUT);
  EXPECT(sf_kill(ticket) == 0);
  EXPECT(sf_join(ticket, NULL, 0) == 1);
  return failures;
}

/* The clones of one checkpoint, made twice, both begin at its moment. */
static int checkpoint(void) {
  volatile int moment = 1;
  sf_checkpoint point = sf_checkpoint_parent();
  must("sf_checkpoint_parent", point.error);
  if (sf_vmid() > 0) sf_exit(moment * 100 + sf_vmid());

  for (int time = 0; time < 2; time++) {
    moment = 2;
    sf_ticket ticket = must_request(2, 0);
    must("sf_create_clones", sf_create_clones(point, ticket));
    sf_exit_status ends[2];
    EXPECT(must("sf_join", sf_join(ticket, ends, 2)) == 2);
    for (int i = 0; i < 2; i++) EXPECT(ends[i].how == SF_EXITED && ends[i].status == 100 + i + 1);
    sf_free_statuses(ends, 2);
  }
  return failures;
}

static int errors(void) {
  EXPECT(sf_vmid() == 0);
  EXPECT(sf_request_ticket(0, 0).error == -EINVAL);
  EXPECT(sf_request_ticket(-3, 0).error == -EINVAL);
  EXPECT(sf_request_ticket_on(0, 0, "nowhere").error == -EINVAL);
  EXPECT(sf_request_ticket_on(1, 0, "nowhere").error == -ENOENT);
  EXPECT(sf_request_ticket_on(1, 0, "\xff").error == -ENOENT);
  sf_ticket made_up;
  memset(&made_up, 0, sizeof made_up);
  strcpy(made_up.id, "t-0000000000000000");
  made_up.granted = 1;
  EXPECT(sf_clone(made_up) == -ENOENT);
  EXPECT(sf_join(made_up, NULL, 0) == -ENOENT);
  EXPECT(sf_kill(made_up) == -ENOENT);
  sf_checkpoint nowhere;
  memset(&nowhere, 0, sizeof nowhere);
  strcpy(nowhere.id, "s-0000000000000000");

  sf_ticket ticket = must_request(1, 0);
  EXPECT(sf_create_clones(nowhere, ticket) == -ENOENT);
  int me = must("sf_clone", sf_clone(ticket));
  if (me > 0) sf_exit(sf_clone(ticket) < 0 ? 3 : 4);
  EXPECT(sf_clone(ticket) < 0);
  sf_exit_status end;
  EXPECT(sf_join(ticket, &end, 1) == 1 && end.status == 3);
  EXPECT(sf_clone(ticket) == -ENOENT);
  EXPECT(cc_start("block") == 0 && cc_stop() == 0);
  EXPECT(strcmp(sf_strerror(-ENOENT), sf_strerror(-EINVAL)) != 0);
  printf("%s", failures ? "" : "right\n");
  if (!failures) sf_exit(42); /* of a parent: exit(42) */
  return failures;
}

int main(int argc, char **argv) {
  const char *part = argc > 1 ? argv[1] : "";
  int wrong = strcmp(part, "results") == 0      ? results()
              : strcmp(part, "kill") == 0       ? killed()
              : strcmp(part, "timeout") == 0    ? timed_out()
              : strcmp(part, "checkpoint") == 0 ? checkpoint()
              : strcmp(part, "errors") == 0     ? errors()
                                                : -1;
  if (sf_vmid() > 0) return wrong; /* a clone that ends by itself */
  if (wrong == 0) puts("right");
  return wrong != 0;
}
