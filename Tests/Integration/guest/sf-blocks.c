/* Blocks of every kind, for sf-offload: `sf-blocks KIND [N]` calls block() N times and prints what came of it. The
 * output has to be the same with and without sf-offload. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snowflock.h"

static const char *kind;
static unsigned long table[4096];
static char *memory;
static volatile sig_atomic_t signals;
static jmp_buf out;
static int file = -1;
static unsigned long mappings_digest;

static unsigned long digest(const void *bytes, size_t count) {
  const unsigned char *next = bytes;
  unsigned long value = 14695981039346656037UL;
  for (size_t index = 0; index < count; index++) value = (value ^ next[index]) * 1099511628211UL;
  return value;
}

static void count_signal(int number) { signals += number; }

static void leave(int number) {
  (void)number;
  longjmp(out, 2);
}

static unsigned long use_stack(int depth) {
  volatile unsigned char frame[4096];
  memset((void *)frame, depth, sizeof frame);
  return depth == 0 ? frame[7] : use_stack(depth - 1) + frame[depth];
}

static unsigned long use_floats(int number) {
  double sum = 0, vector[64];
  for (int index = 0; index < 64; index++) vector[index] = sqrt(index + number) / 3;
  for (int round = 0; round < 200; round++)
    for (int index = 0; index < 64; index++) sum += vector[index] * vector[63 - index] / (round + 1);
  return (unsigned long)(sum * 1e6);
}

static unsigned long use_mappings(int number) {
  size_t size = 1 << 20;
  char *old = memory;
  memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(memory, number + 1, size / 2);
  mprotect(memory + 8192, 4096, PROT_READ);
  madvise(memory + 65536, 65536, MADV_DONTNEED);
  munmap(memory + 16384, 4096);
  if (old) {
    munmap(old, 16384);
    munmap(old + 20480, size - 20480);
  }
  return digest(memory, 12288) + digest(memory + 65536, 4096);
}

/* What the program does to its memory between two calls. */
static void change_memory(int number) {
  size_t size = 1 << 20;
  static char *mappings[3];
  char **place = &mappings[number % 3];
  if (*place) munmap(*place, size - 4096 * (size_t)(number % 2));
  *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(*place, number, size / 4);
  madvise(*place + 8192, 8192, MADV_DONTNEED);
  mprotect(*place + 65536, 4096, PROT_READ);
  for (int index = number; index < 4096; index += 37) table[index] ^= (unsigned long)(number * index);
  if (number % 4 == 2) {
    free(memory);
    memory = NULL;
  }
  if (!memory) {
    memory = malloc(600000);
    memset(memory, number, 600000);
  }
  for (int page = 0; page < 140; page += number) memory[page * 4096 + number] += (char)page;
  if (sbrk(12288) != (void *)-1) *((char *)sbrk(0) - 12288 + number) = (char)number;
  mappings_digest = digest(*place, size / 2);
}

static unsigned long use_file(void) {
  char text[700];
  if (file < 0) file = open("/etc/group", O_RDONLY);
  lseek(file, 2, SEEK_SET);
  ssize_t count = read(file, text, 5);
  int passwords = open("/etc/passwd", O_RDONLY);
  ssize_t more = read(passwords, text + 5, sizeof text - 5);
  close(passwords);
  return digest(text, (size_t)(count + more));
}

static unsigned long call_home(int number) {
  char line[64];
  int pipes[2], status = 0;
  if (pipe(pipes) < 0) return 1;
  pid_t child = fork();
  if (child == 0) {
    dprintf(pipes[1], "child of block %d", number);
    _exit(9);
  }
  waitpid(child, &status, 0);
  ssize_t count = read(pipes[0], line, sizeof line);
  close(pipes[0]);
  close(pipes[1]);
  return digest(line, (size_t)count) + (unsigned long)WEXITSTATUS(status);
}

__attribute__((noinline)) unsigned long block(int number) {
  table[number & 4095] += (unsigned long)number * 3 + 1;
  if (!strcmp(kind, "heap")) {
    char *piece = malloc((size_t)(70000 + number * 1000));
    memset(piece, number, 70000);
    *(char **)piece = memory;
    memory = piece;
    return digest(piece + 8, 65000);
  }
  if (!strcmp(kind, "mappings")) return use_mappings(number);
  if (!strcmp(kind, "changes")) {
    unsigned long before = mappings_digest;
    if (memory) memory[number * 4096] += 5;
    change_memory(number + 1);
    return before + mappings_digest + (memory ? digest(memory, 600000) : 0) + digest((char *)sbrk(0) - 12288, 12288);
  }
  if (!strcmp(kind, "stack")) return use_stack(60 + number * 10);
  if (!strcmp(kind, "floats")) return use_floats(number);
  if (!strcmp(kind, "file")) return use_file();
  if (!strcmp(kind, "home")) return call_home(number);
  if (!strcmp(kind, "static"))
    for (int index = 0; index < 4096; index++) table[index] += (unsigned long)(index * number);
  if (!strcmp(kind, "big")) {
    if (!memory) memory = calloc(1, 24 << 20);
    for (size_t at = 0; at < 24 << 20; at += 4096) memory[at + (size_t)number] += (char)(at >> 12);
    return digest(memory, 1 << 16);
  }
  if (!strcmp(kind, "recursive")) return number < 2 ? 1 : block(number - 1) + block(number - 2);
  if (!strcmp(kind, "handler")) {
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(number % 2 ? SIGUSR1 : SIGUSR2, &action, NULL);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGHUP);
    sigprocmask(number % 2 ? SIG_BLOCK : SIG_UNBLOCK, &blocked, NULL);
  }
  if (!strcmp(kind, "raise")) {
    signal(SIGUSR1, count_signal);
    raise(SIGUSR1);
  }
  if (!strcmp(kind, "print")) {
    printf("in block %d\n", number);
    fflush(stdout);
  }
  if (!strcmp(kind, "timer")) {
    signal(SIGALRM, count_signal);
    ualarm(20000, 0);
    while (!signals) __asm__ volatile("pause");
    signals = 0;
  }
  if (!strcmp(kind, "jump")) longjmp(out, 1);
  if (!strcmp(kind, "fault")) *(volatile int *)(long)number = 1;
  if (!strcmp(kind, "caught")) {
    signal(SIGSEGV, leave);
    sigset_t fault;
    sigemptyset(&fault);
    sigaddset(&fault, SIGSEGV);
    sigprocmask(SIG_UNBLOCK, &fault, NULL);
    *(volatile int *)(long)number = 1;
  }
  if (!strcmp(kind, "exit")) exit(40 + number);
  return digest(table, sizeof table);
}

static volatile int stops;
static unsigned long turns[512];

/* Writes to memory of its own while blocks are away. */
static void *other_thread(void *argument) {
  while (!stops) {
    for (int index = 0; index < 512; index++) turns[index]++;
    usleep(1000);
  }
  return argument;
}

static void check_others(void) {
  for (int index = 1; index < 512; index++)
    if (turns[index] != turns[0]) printf("turn %d: %lu of %lu\n", index, turns[index], turns[0]);
}

/* Not in a register that longjmp brings back. */
static volatile int turn;

int main(int count, char **arguments) {
  kind = count > 1 ? arguments[1] : "static";
  int calls = count > 2 ? atoi(arguments[2]) : 3;
  pthread_t thread;
  int has_thread = !strcmp(kind, "threads");
  if (has_thread) pthread_create(&thread, NULL, other_thread, NULL);
  for (turn = 1; turn <= calls; turn++) {
    const int index = turn;
    static unsigned long value;
    value = 0;
    if (!strcmp(kind, "changes") && index > 1) change_memory(index);
    int jumped = setjmp(out);
    if (jumped) {
      printf("jumped %d\n", jumped);
    } else if (!strcmp(kind, "marked")) {
      cc_start("marked block");
      for (int at = 0; at < 4096; at++) table[at] += (unsigned long)(at * index);
      value = digest(table, sizeof table);
      cc_stop();
    } else {
      value = block(index);
    }
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    printf("%d %lx %lx %d %d %ld\n", index, value, digest(table, sizeof table), (int)signals,
           sigismember(&mask, SIGHUP), file < 0 ? 0 : (long)lseek(file, 0, SEEK_CUR));
    if (!strcmp(kind, "handler")) raise(index % 2 ? SIGUSR1 : SIGUSR2);
    fflush(stdout);
  }
  if (has_thread) {
    stops = 1;
    pthread_join(thread, NULL);
    check_others();
  }
  if (memory) printf("%lx\n", digest(memory + 8, 12280));
  return 7;
}
