/* What the supervisor and each of its tracers share: in a mapping of their own that outlives a tracer. */
#ifndef CTRACE_SHARED_H
#define CTRACE_SHARED_H

#include <stdint.h>
#include <sys/user.h>

/* How far a call has come. Whatever a tracer dies in, its successor knows from this what to do. */
enum ct_phase {
  CT_RUNNING = 0,   /* the program runs by itself */
  CT_AT_ENTRY = 1,  /* a thread sleeps at the entry, intact → the block runs at home */
  CT_PREPARING = 2, /* mappings are being added → they are taken back, and the block runs at home */
  CT_COMMITTING = 3 /* the result is being written → it is written again, from its beginning */
};

enum ct_breakpoint_kind { CT_BLOCK = 0, CT_CC_START = 1, CT_START = 2, CT_LOADER = 3, CT_CC_STOP = 4, CT_RETURN = 5 };

struct ct_breakpoint {
  uint64_t address;
  uint8_t original; /* the byte that int3 stands in for */
  uint8_t kind;     /* enum ct_breakpoint_kind */
  uint8_t is_set;
  uint8_t reserved[5];
};

enum { CT_BREAKPOINT_LIMIT = 16, CT_TICKET_SIZE = 40, CT_LEAVING_LIMIT = 4 };

struct ct_counters {
  uint64_t calls, offloaded, ran_at_home, conflicts, came_home_early, dropped, takeovers, kept_calls;
  uint64_t bytes_out, bytes_home, pages_home;
  uint64_t forward_us, run_us, merge_us, collect_us, receive_us, apply_us;
};

struct ct_shared {
  uint32_t phase;   /* enum ct_phase */
  int32_t tid;      /* whose call it is, from CT_AT_ENTRY on */
  int32_t program;
  uint32_t breakpoint_count;
  uint32_t found;   /* whether the block was found in the program */
  uint32_t ended;   /* the program has ended */
  uint32_t is_away; /* this is the clone: the program does not go on here by itself */
  uint32_t reserved;
  uint64_t struck;  /* the last call in which a test's fault has killed a tracer */
  uint64_t call;    /* its number, from 1 */
  uint64_t mask;    /* its signal mask at the entry */
  uint64_t result_bytes; /* how much of the journal is its result */
  uint64_t before_bytes; /* how much of the other is the state that CT_PREPARING began with */
  struct user_regs_struct entry; /* its registers there */
  uint8_t key[16];  /* of the seal of this call's result */
  char ticket[CT_TICKET_SIZE]; /* in use; empty: none */
  char ahead[CT_TICKET_SIZE];  /* for the next call */
  char leaving[CT_LEAVING_LIMIT][CT_TICKET_SIZE]; /* being ended */
  struct ct_counters counters;
  struct ct_breakpoint breakpoints[CT_BREAKPOINT_LIMIT];
};

static inline struct ct_breakpoint *_Nonnull ct_breakpoints(struct ct_shared *_Nonnull shared) {
  return shared->breakpoints;
}

static inline char *_Nonnull ct_ticket(struct ct_shared *_Nonnull shared) { return shared->ticket; }

static inline char *_Nonnull ct_ahead(struct ct_shared *_Nonnull shared) { return shared->ahead; }

static inline char *_Nonnull ct_leaving(struct ct_shared *_Nonnull shared, int index) {
  return shared->leaving[index];
}

static inline uint8_t *_Nonnull ct_key(struct ct_shared *_Nonnull shared) { return shared->key; }

#endif
