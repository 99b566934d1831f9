/* sf-align CLONES INDEX READS: aligns the reads (FASTQ) to the genome with bowtie2, shared among CLONES clones of this
 * VM, and prints the alignments (SAM records, no header) in the order of the reads.
 *
 * Genome index and reads are in the parent's memory: each clone has them from the moment of the fork, and fetches only
 * the pages it touches. A clone sends its alignments home with sf_exit_with. The ticket is told on standard error. */
#include <errno.h>
#include <fcntl.h>
#include <snowflock.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "sf-align: %s: %s\n", what, why);
  exit(1);
}

/* A FASTQ record is four lines. */
static long count_reads(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) fail(path, strerror(errno));
  long lines = 0;
  for (int c; (c = getc(file)) != EOF;) lines += c == '\n';
  fclose(file);
  return lines / 4;
}

/* Runs bowtie2 on `count` reads after the first `skip`. Its output, to be freed, and its exit status. */
static char *align(const char *index, const char *reads, long skip, long count, size_t *length, int *status) {
  char skip_text[24], count_text[24];
  snprintf(skip_text, sizeof skip_text, "%ld", skip);
  snprintf(count_text, sizeof count_text, "%ld", count);
  char *arguments[] = {"bowtie2-align-s", "--quiet",      "--no-hd", "-x", (char *)index, "-U", (char *)reads,
                       "--skip",          skip_text, "--upto",  count_text, NULL};
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) fail("pipe", strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child;
  int error = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
  if (error) fail(arguments[0], strerror(error));
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);

  char *text = NULL;
  size_t used = 0, room = 0;
  for (;;) {
    if (used == room && !(text = realloc(text, room += 1 << 18))) fail("memory", strerror(errno));
    ssize_t got = read(ends[0], text + used, room - used);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    used += (size_t)got;
  }
  close(ends[0]);
  int ended = 0;
  waitpid(child, &ended, 0);
  *status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
  *length = used;
  return text;
}

int main(int argc, char **argv) {
  if (argc != 4) fail("usage", "sf-align CLONES INDEX READS");
  const char *index = argv[2], *reads = argv[3];
  long total = count_reads(reads);

  sf_ticket ticket = sf_request_ticket(atoi(argv[1]), 0);
  if (ticket.error) fail("sf_request_ticket", sf_strerror(ticket.error));
  fprintf(stderr, "%s\n", ticket.id);
  long share = (total + ticket.granted - 1) / ticket.granted;

  int me = sf_clone(ticket);
  if (me < 0) fail("sf_clone", sf_strerror(me));
  if (me > 0) {
    size_t length;
    int status;
    char *text = align(index, reads, (me - 1) * share, share, &length, &status);
    if (length > SF_RESULT_MAX) status = 1;
    sf_exit_with(status, text, length);
  }

  sf_exit_status *ends = calloc((size_t)ticket.granted, sizeof *ends);
  int count = sf_join(ticket, ends, ticket.granted);
  if (count < 0) fail("sf_join", sf_strerror(count));
  int failed = 0;
  for (int i = 0; i < count; i++) {
    if (ends[i].how != SF_EXITED || ends[i].status != 0) {
      fprintf(stderr, "sf-align: clone %d: status %d %s\n", ends[i].vmid, ends[i].status, ends[i].reason);
      failed = 1;
    }
    fwrite(ends[i].result, 1, ends[i].result_length, stdout);
  }
  sf_free_statuses(ends, count);
  return failed;
}
