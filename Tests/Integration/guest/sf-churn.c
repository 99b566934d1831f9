/* sf-churn SEED FORKS GENERATIONS [MEBIBYTES [DIRECTORY [break]]]
 *
 * A random walk: memory is mapped, written, moved and unmapped, files are written and read, processes come and go, and
 * a model knows what each page that can be seen must hold. The machine is forked at random moments of it, often when
 * most of what is free was filled and freed just before. A clone finds everything as the model has it, takes free
 * memory, which must be zero, walks on, and forks again, down to GENERATIONS; the parent walks on meanwhile. The model
 * has MEBIBYTES (48; at least 8), a quarter of them in files of DIRECTORY (/tmp). With an odd seed the guest's kernel
 * uses huge pages. A seed gives the same walk as far as free memory and the time that forks take allow.
 *
 * Prints the seed; examples of what is wrong and what became of clones that were lost; and at its end "forks F clones C
 * generations G checks C wrong W". Status 0: nothing wrong, and no clone lost. `break` damages a page in every clone
 * for a while, behind the model's back: it must be found, once. */
#define _GNU_SOURCE
#include "churn-free.h"
#include "churn-walk.h"

enum { PENDING_MAX = 2, JOIN_MS = 240000 };

static long forks, clones, lost;
static int deepest, generations, must_break;
static struct pending {
  sf_ticket ticket;
  long fork;
} pending[PENDING_MAX];
static int pending_count;
/* How many moments there are until the next fork; -1: none is due. */
static long moments_left = -1;
/* Whether clones fork as deep as they may. */
static int is_deep;

static void check_all(void) {
  burst_end();
  check_regions();
  check_files();
  check_heap();
  check_streams();
  check_children();
}

static uint64_t sum_of_model(void) {
  return sum_of(sum_of(sum_of_files(sum_of_regions()), blocks, sizeof blocks), streams, sizeof streams);
}

/* How a clone ended, and what it found: "forks clones generation checks wrong lost", and a line for each example. */
static void take_report(const struct pending *of, const sf_exit_status *end) {
  char line[EXAMPLE_SIZE];
  char *text = calloc(1, end->result_length + 1);
  if (end->result_length) memcpy(text, end->result, end->result_length);
  long below[6];
  int is_report = end->how == SF_EXITED && !end->status &&
                  sscanf(text, "%ld %ld %ld %ld %ld %ld", &below[0], &below[1], &below[2], &below[3], &below[4],
                         &below[5]) == 6;
  if (is_report) {
    forks += below[0], clones += below[1], lost += below[5];
    checks += below[3];
    wrong += below[4];
    if (below[2] > deepest) deepest = (int)below[2];
    for (char *next = strchr(text, '\n'); next && next[1]; next = strchr(next + 1, '\n')) {
      tell_line(next + 1, (int)strcspn(next + 1, "\n"));
    }
  } else {
    lost++;
    int length = snprintf(line, sizeof line, "[%s] lost: clone %d of fork %ld %s %d: %.60s%.60s", lineage, end->vmid,
                          of->fork, how_ended(end), end->status, end->reason, text);
    tell_line(line, length < EXAMPLE_SIZE ? length : EXAMPLE_SIZE - 1);
  }
  free(text);
}

static void join_oldest(void) {
  struct pending oldest = pending[0];
  pending[0] = pending[--pending_count];
  sf_exit_status ends[4];
  int count = sf_join_timeout(oldest.ticket, ends, 4, JOIN_MS);
  if (count == -ETIMEDOUT) {
    tell_line("clones that do not end are killed", 40);
    sf_kill(oldest.ticket);
    count = sf_join(oldest.ticket, ends, 4);
  }
  must("sf_join", count);
  for (int i = 0; i < count; i++) take_report(&oldest, &ends[i]);
  sf_free_statuses(ends, count);
}

/* One page is not what the model says; all is checked; it is again. */
static void damage(void) {
  struct region *region = some_region();
  if (!region) return;
  region_make_writable(region);
  size_t page = chance(region->pages);
  uint64_t *words = region->memory + page * PAGE_WORDS, was = region->contents[page] &= ~(uint64_t)MAYBE_ZERO;
  switch (was ? chance(4) : 1) {
    case 0: memset(words, 0, PAGE_SIZE); break;
    case 1: memset(words, POISON_BYTE, PAGE_SIZE); break;
    case 2: write_page(words, was - 1024); break;
    case 3: memset(words + 64 * chance(8), 0, 512); break;
  }
  check_all();
  was ? write_page(words, was) : (void)memset(words, 0, PAGE_SIZE);
}

static void fork_once(void);

/* What a clone does from its fork to its end. */
static void clone_live(long fork, int me) __attribute__((noreturn));
static void clone_live(long fork, int me) {
  size_t used = strlen(lineage);
  snprintf(lineage + used, sizeof lineage - used, "%s%ld.%d", used ? "/" : "", fork, me);
  if (++generation > deepest) deepest = generation;
  random_state += (uint64_t)me * 0xD1B54A32D192ED03u;
  salt = 1 + (unsigned)chance((1 << 22) - 1);
  pending_count = 0;
  if (must_break) damage();

  switch (chance(6)) {
    case 0: usleep((useconds_t)chance(400000)); break;
    case 1: walk(1 + chance(8)); break;
    case 2: take_free_memory(); break;
    case 3: file_read_into(); break;
    default: break;
  }
  check_all();
  take_free_memory();
  walk(1 + chance(8));
  if (generation < generations && (is_deep || !chance(3))) {
    fork_once();
    walk(chance(6));
  }
  while (pending_count) join_oldest();
  check_all();

  char text[EXAMPLES * EXAMPLE_SIZE + 200];
  int length = snprintf(text, sizeof text, "%ld %ld %d %ld %ld %ld\n", forks, clones, deepest, checks, wrong, lost);
  for (int i = 0; i < examples_told && i < EXAMPLES; i++) {
    length += snprintf(text + length, sizeof text - (size_t)length, "%s\n", examples[i]);
  }
  sf_exit_with(0, text, (size_t)length);
}

static void fork_now(void) {
  static long number;
  if (pending_count == PENDING_MAX) join_oldest();
  long fork = ++number;
  sf_ticket ticket = must_request(1 + !chance(3), 0);
  uint64_t sum = sum_of_model();
  busy_hurry = 1;
  usleep((useconds_t)chance(3000));
  int me = sf_clone(ticket);
  errno = me < 0 ? -me : 0;
  must_do("sf_clone", me >= 0);
  busy_hurry = 0;
  if (me > 0) forks = clones = lost = checks = wrong = examples_told = deepest = number = 0;
  if (sum_of_model() != sum) tell("model", fork, 0, 0, sum, sum_of_model());
  if (me > 0) clone_live(fork, me);
  pending[pending_count++] = (struct pending){.ticket = ticket, .fork = fork};
  forks++, clones += ticket.granted;
}

static void moment(void) {
  if (is_child || moments_left < 0 || moments_left--) return;
  moments_left = -1;
  fork_now();
}

/* Forks at once or some moments later, after a burst or without. */
static void fork_once(void) {
  int has_burst = !chance(2);
  if (has_burst && chance(2)) poison_free_memory(), has_burst = 0;
  moments_left = chance(4) ? (long)chance(600) : 0;
  if (has_burst) chance(2) ? poison_free_memory() : take_free_memory();
  while (moments_left >= 0) walk(1);
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  uint64_t seed = strtoull(argv[1], NULL, 10);
  long wanted = atol(argv[2]);
  generations = atoi(argv[3]);
  size_t pages = (size_t)(argc > 4 ? atol(argv[4]) : 48) * 256;
  region_pages_max = pages - pages / 4, file_pages_max = pages / 4;
  directory = argc > 5 ? argv[5] : "/tmp";
  must_break = argc > 6;
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  signal(SIGPIPE, SIG_IGN);
  random_state = seed;
  salt = 1 + (unsigned)chance((1 << 22) - 1);
  tell_kernel("/sys/kernel/mm/transparent_hugepage/enabled", seed % 2 ? "always" : "never");
  streams_open();
  busy_file_write(directory);
  pthread_t busy;
  must_do("pthread_create", !pthread_create(&busy, NULL, busy_live, (void *)(uintptr_t)(seed + 1)));
  walk(100);

  for (long round = 0; forks < wanted; round++) {
    is_deep = round % 5 == 0;
    fork_once();
    walk(chance(8));
    if (!chance(4)) check_all();
  }
  while (pending_count) join_oldest();
  check_all();
  while (file_count) file_remove(&files[0]);
  for (int i = 0; i < examples_told && i < EXAMPLES; i++) puts(examples[i]);
  if (lost) printf("lost %ld\n", lost);
  printf("forks %ld clones %ld generations %d checks %ld wrong %ld\n", forks, clones, deepest, checks, wrong);
  fflush(stdout);
  _exit(wrong || lost);
}
