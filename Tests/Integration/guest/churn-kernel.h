/* sf-churn's other memory: the heap, data in pipes and sockets, child processes that share pages, a thread that never
 * rests. */
#ifndef CHURN_KERNEL_H
#define CHURN_KERNEL_H

#include "churn-model.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { BLOCKS = 256, STREAMS = 6, CHILDREN_MAX = 2, BUSY_SLOTS = 8 };

/* Small objects, and a few large ones. */
static struct block {
  uint64_t *words, count, content;
} blocks[BLOCKS];

static void block_check(const char *what, long number, const struct block *block) {
  for (size_t i = 0; i < block->count; i++) {
    if (block->words[i] != block->content + i) return tell(what, number, 0, i, block->content + i, block->words[i]);
  }
}

static void block_fill(struct block *block, uint64_t count) {
  block->words = realloc(block->words, count * 8);
  must_do("realloc", !!block->words);
  block->count = count, block->content = fresh_content();
  for (size_t i = 0; i < count; i++) block->words[i] = block->content + i;
}

static void heap_churn(void) {
  for (size_t round = 0; round < 48; round++) {
    size_t place = chance(BLOCKS);
    struct block *block = &blocks[place];
    block_check("heap", (long)place, block);
    moment();
    if (chance(2)) free(block->words), *block = (struct block){0};
    if (chance(3)) block_fill(block, 1 + chance(chance(24) ? 200 : 1000));
    if (!chance(100)) block_fill(block, 10000 + chance(10000));
  }
}

static void check_heap(void) {
  for (size_t i = 0; i < BLOCKS; i++) block_check("heap", (long)i, &blocks[i]);
}

/* Pipes and pairs of sockets, with what was written and not yet read. Word W of a stream is `first` + W. */
static struct stream {
  int in, out;
  uint64_t first, written, read;
} streams[STREAMS];

static unsigned char stream_byte(const struct stream *stream, uint64_t place) {
  return (unsigned char)((stream->first + place / 8) >> place % 8 * 8);
}

static void streams_open(void) {
  for (int i = 0; i < STREAMS; i++) {
    int ends[2];
    must_do("pipe", !(i & 1 ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) : pipe2(ends, O_NONBLOCK)));
    streams[i] = (struct stream){.in = ends[1], .out = ends[0], .first = (uint64_t)(i + 1) << 41};
  }
}

static void stream_write(void) {
  struct stream *stream = &streams[chance(STREAMS)];
  unsigned char bytes[1 + chance(20000)];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = stream_byte(stream, stream->written + i);
  ssize_t length = write(stream->in, bytes, sizeof bytes);
  if (length > 0) stream->written += (uint64_t)length;
}

static void stream_read(struct stream *stream, size_t most) {
  while (most && stream->read < stream->written) {
    unsigned char bytes[8192];
    ssize_t length = read(stream->out, bytes, most < sizeof bytes ? most : sizeof bytes);
    if (length <= 0) return tell("stream", stream - streams, 0, 0, stream->written, stream->read);
    for (ssize_t i = 0; i < length; i++) {
      unsigned char expected = stream_byte(stream, stream->read + (uint64_t)i);
      if (bytes[i] == expected) continue;
      tell("stream", stream - streams, (stream->read + (uint64_t)i) / PAGE_SIZE, (size_t)i, expected, bytes[i]);
      break;
    }
    stream->read += (uint64_t)length, most -= (size_t)length;
  }
}

static void stream_read_some(void) { stream_read(&streams[chance(STREAMS)], 1 + chance(20000)); }

static void check_streams(void) {
  for (int i = 0; i < STREAMS; i++) stream_read(&streams[i], SIZE_MAX);
}

/* Child processes keep some regions and the heap as they were when they began, and check them when asked. */
static struct child {
  pid_t pid;
  int to, from;
} children[CHILDREN_MAX];

struct answer {
  long checks, wrong;
  char example[EXAMPLE_SIZE];
};

static void child_live(int from, int to) {
  is_child = 1;
  regions_drop(region_pages_max / 8);
  char command;
  while (read(from, &command, 1) == 1) {
    struct answer answer = {0};
    checks = wrong = examples_told = 0;
    check_regions();
    check_heap();
    struct region *region = some_region();
    size_t start, count = region ? some_run(region->pages, &start) : 0;
    if (count) region_write(region, start, count);
    answer.checks = checks, answer.wrong = wrong;
    if (examples_told) memcpy(answer.example, examples[0], EXAMPLE_SIZE);
    if (write(to, &answer, sizeof answer) != sizeof answer) break;
  }
  _exit(0);
}

static void child_ask(struct child *child) {
  struct answer answer = {0};
  must_do("child", write(child->to, "c", 1) == 1);
  moment();
  if (read(child->from, &answer, sizeof answer) != sizeof answer) tell("child", child->pid, 0, 0, 1, 0);
  checks += answer.checks;
  wrong += answer.wrong;
  if (answer.wrong) tell_line(answer.example, EXAMPLE_SIZE - 1);
}

static void child_begin_or_end(void) {
  struct child *child = &children[chance(CHILDREN_MAX)];
  if (child->pid) {
    child_ask(child);
    close(child->to);
    close(child->from);
    kill(child->pid, SIGKILL);
    must_do("waitpid", waitpid(child->pid, NULL, 0) == child->pid);
    child->pid = 0;
    return;
  }
  int commands[2], answers[2];
  must_do("pipe", !pipe2(commands, O_CLOEXEC) && !pipe2(answers, O_CLOEXEC));
  child->pid = fork();
  must_do("fork", child->pid >= 0);
  if (!child->pid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    child_live(commands[0], answers[1]);
  }
  close(commands[0]);
  close(answers[1]);
  child->to = commands[1], child->from = answers[0];
}

static void check_children(void) {
  for (int i = 0; i < CHILDREN_MAX; i++) {
    if (children[i].pid) child_ask(&children[i]);
  }
}

/* Processes that hardly live: their page tables and stacks are freed and used again. */
static void brief_processes(void) {
  pid_t pids[3];
  size_t count = 1 + chance(3), pages = chance(64);
  for (size_t i = 0; i < count; i++) {
    char *arguments[] = {"true", NULL};
    if (!chance(4) && !posix_spawnp(&pids[i], "true", NULL, NULL, arguments, environ)) continue;
    pids[i] = fork();
    must_do("fork", pids[i] >= 0);
    if (!pids[i]) {
      memset(pattern_pages(pages + 1), POISON_BYTE, pages * PAGE_SIZE);
      _exit(0);
    }
    moment();
  }
  for (size_t i = 0; i < count; i++) waitpid(pids[i], NULL, 0);
}

/* A thread that allocates, writes or has a disk write, checks and frees: at the fork the kernel's allocator is at work,
 * and a device too. */
static atomic_int busy_hurry;
static int busy_file;
enum { BUSY_PAGES = 48, BUSY_CONTENT = 1 << 20 };

static void busy_file_write(const char *directory) {
  char path[200];
  snprintf(path, sizeof path, "%s/churn-busy", directory);
  uint64_t *page = pattern_pages(1);
  int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  for (uint64_t i = 0; i < BUSY_PAGES; i++) {
    write_page(page, BUSY_CONTENT + i * 1024);
    must_do(path, write(file, page, PAGE_SIZE) == PAGE_SIZE);
  }
  must_do("fsync", !fsync(file));
  busy_file = open(path, O_RDONLY | O_DIRECT);
  if (busy_file < 0) busy_file = file;
  must_do("unlink", !unlink(path));
}

static void *busy_live(void *seed) {
  struct block mapped[BUSY_SLOTS] = {0}, allocated[BUSY_SLOTS] = {0};
  random_state = (uint64_t)(uintptr_t)seed;
  for (size_t round = 0;; round++) {
    size_t place = chance(BUSY_SLOTS), pages = 1 + chance(chance(6) ? 4 : BUSY_PAGES);
    struct block *block = &mapped[place];
    for (size_t i = 0; i < block->count; i++) {
      check_page("busy", (long)place, i, block->words + i * PAGE_WORDS, block->content + i * 1024);
    }
    if (block->count) {
      munmap(block->words, block->count * PAGE_SIZE);
      block->count = 0;
    } else {
      int is_read = !!chance(2);
      block->content = is_read ? BUSY_CONTENT : (uint64_t)salt << 41 | 1ull << 40 | (round & 0xFFFFFF) << 16;
      block->words = pattern_pages(pages);
      block->count = pages;
      ssize_t size = (ssize_t)(pages * PAGE_SIZE);
      if (is_read) must_do("busy read", pread(busy_file, block->words, (size_t)size, 0) == size);
      for (size_t i = 0; i < pages && !is_read; i++) {
        write_page(block->words + i * PAGE_WORDS, block->content + i * 1024);
      }
    }
    block_check("busy heap", (long)place, &allocated[place]);
    block_fill(&allocated[place], 1 + chance(600));
    if (!busy_hurry) usleep(3000);
  }
  return NULL;
}

#endif
