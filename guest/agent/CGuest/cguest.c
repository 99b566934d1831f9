#define _GNU_SOURCE
#include "cguest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Swift's runtime looks up its own path in /proc before main, and stops a program that finds none there. */
__attribute__((constructor(101))) static void mount_proc_for_an_init(void) {
  if (getpid() == 1) mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static int result_of(long result) { return result < 0 ? -errno : (int)result; }

int cguest_load_module(int fd) {
  int result = result_of(syscall(SYS_finit_module, fd, "", 0));
  return result == -EEXIST ? 0 : result;
}

int cguest_add_entropy(int random_fd, const void *bytes, size_t count) {
  /* struct rand_pool_info ends in an array of no length: this is it, with one. */
  struct {
    int entropy_count;
    int buf_size;
    unsigned char bytes[512];
  } pool = {.entropy_count = (int)count * 8, .buf_size = (int)count};
  if (count > sizeof pool.bytes) return -EINVAL;
  memcpy(pool.bytes, bytes, count);
  int result = result_of(ioctl(random_fd, RNDADDENTROPY, &pool));
  explicit_bzero(&pool, sizeof pool);
  return result;
}

int cguest_reseed(int random_fd) { return result_of(ioctl(random_fd, RNDRESEEDCRNG)); }

int cguest_pipe(int ends[2]) { return result_of(pipe2(ends, O_CLOEXEC)); }

int cguest_accept(int listener) { return result_of(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)); }

int cguest_pidfd_open(int pid) { return result_of(syscall(SYS_pidfd_open, pid, 0)); }

int cguest_timer(void) { return result_of(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)); }

int cguest_start_timer(int timer, int milliseconds) {
  struct itimerspec time = {.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000000L}};
  return result_of(timerfd_settime(timer, 0, &time, NULL));
}

int cguest_contains(const uint8_t *whole, size_t count, const uint8_t *part, size_t part_count) {
  return memmem(whole, count, part, part_count) != NULL;
}

int cguest_peer_pid(int socket_fd) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
  return peer.pid;
}

int cguest_exit_status(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}
