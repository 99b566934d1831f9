#define _GNU_SOURCE
#include "hierarchy.h"

#include <sched.h>
#include <unistd.h>

#include "connection.h"

/* Set before the process returns from sf_clone, and inherited by what it forks: those are the same clone. */
static int process_index;

int sf_process_index(void) { return process_index; }

static void pin_to_cpu(int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET((size_t)cpu, &cpus);
  /* A program that may not run there still computes rightly elsewhere. */
  (void)sched_setaffinity(0, sizeof cpus, &cpus);
}

static int tell_agent(int type, int vmid, int status) {
  struct sf_agent_request request = {.type = (uint16_t)type, .vmid = (uint32_t)vmid, .number = status};
  struct sf_agent_answer answer;
  return sf_agent_ask(&request, NULL, &answer, NULL, NULL);
}

int sf_become_processes(int first, int count) {
  process_index = 0;
  if (count <= 1) return first;
  for (int index = 1; index < count; index++) {
    pid_t pid = fork();
    if (pid < 0) {
      /* A join must not wait for a process that never was. */
      (void)tell_agent(SF_AGENT_EXIT, first + index, 255);
    } else if (pid == 0) {
      process_index = index;
      pin_to_cpu(index);
      if (tell_agent(SF_AGENT_CLAIM, first + index, 0) != 0) _exit(255);
      return first + index;
    }
  }
  pin_to_cpu(0);
  return first;
}
