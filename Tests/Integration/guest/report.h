/* How the test programs tell what happened: text, one line a fact. A clone's goes home as its result. */
#ifndef REPORT_H
#define REPORT_H

#include <snowflock.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the program if `result` is a negative errno. */
static inline int must(const char *what, int result) {
  if (result < 0) {
    printf("%s: %s\n", what, sf_strerror(result));
    exit(98);
  }
  return result;
}

static inline sf_ticket must_request(int clones, int hierarchical) {
  sf_ticket ticket = sf_request_ticket(clones, hierarchical);
  must("sf_request_ticket", ticket.error);
  return ticket;
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void exit_saying(const char *format, ...) {
  char text[4096];
  va_list values;
  va_start(values, format);
  int length = vsnprintf(text, sizeof text, format, values);
  va_end(values);
  sf_exit_with(0, text, (size_t)length);
}

static inline const char *how_ended(const sf_exit_status *end) {
  return end->how == SF_EXITED ? "exited" : end->how == SF_KILLED ? "killed" : end->how == SF_LOST ? "lost" : "?";
}

/* Joins, and appends a line for each clone to `text`: "VMID exited STATUS RESULT" or "VMID lost REASON". */
static inline void join_into(sf_ticket ticket, char *text, size_t room) {
  sf_exit_status ends[64];
  int count = must("sf_join", sf_join(ticket, ends, 64));
  size_t used = 0;
  for (int i = 0; i < count && used < room; i++) {
    int length = ends[i].how == SF_EXITED
                   ? snprintf(text + used, room - used, "%d exited %d %.*s\n", ends[i].vmid, ends[i].status,
                              (int)ends[i].result_length, (const char *)ends[i].result)
                   : snprintf(text + used, room - used, "%d %s %s\n", ends[i].vmid, how_ended(&ends[i]),
                              ends[i].reason);
    used += (size_t)length;
  }
  sf_free_statuses(ends, count);
}

static inline void join_and_print(sf_ticket ticket) {
  char text[16384] = "";
  join_into(ticket, text, sizeof text);
  fputs(text, stdout);
  fflush(stdout);
}

#endif
