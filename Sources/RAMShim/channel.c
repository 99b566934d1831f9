// The shim's thread: says hello to the pager and does what it asks. It never touches guest RAM itself, so that it
// can always answer, and it keeps the userfaultfd and the cache file: with the pager dead, faulting threads wait
// instead of reading zeros, and its successor gets both back.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "../CLinux/include/ramshim_protocol.h"
#include "ramshim.h"

enum { descriptors_max = 3, backoff_ms_min = 5, backoff_ms_max = 100 };

static const struct guest_ram *ram;
static char token[RAMSHIM_TOKEN_BYTES];
static char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];
static int uffd = -1;
static int cache = -1;
static char snapshot[RAMSHIM_SNAPSHOT_BYTES];

static bool send_all(int channel, const void *bytes, size_t length, const int *descriptors, size_t count) {
  union {
    char bytes[CMSG_SPACE(descriptors_max * sizeof(int))];
    struct cmsghdr align;
  } control = {0};
  struct iovec part = {(void *)bytes, length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(channel, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == (ssize_t)length;  // a few bytes into an empty socket: all or nothing
}

// Reads one whole structure and the descriptors with it. False: the pager has gone.
static bool receive_all(int channel, void *bytes, size_t length, int *descriptors, size_t *count) {
  size_t done = 0;
  *count = 0;
  while (done < length) {
    union {
      char bytes[CMSG_SPACE(descriptors_max * sizeof(int))];
      struct cmsghdr align;
    } control;
    struct iovec part = {(char *)bytes + done, length - done};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      size_t present = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < present; i++) {
        int descriptor;
        memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
        if (*count < descriptors_max)
          descriptors[(*count)++] = descriptor;
        else
          close(descriptor);
      }
    }
    done += (size_t)got;
  }
  return true;
}

// The outcome of a command: 0, or the step that failed with errno set.
static enum ramshim_step open_uffd(int device, uint64_t features) {
  if (uffd >= 0) return 0;
  int made = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
  if (made < 0) return RAMSHIM_STEP_UFFD;
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(made, UFFDIO_API, &api) < 0) {
    int saved = errno;
    close(made);
    errno = saved;
    return RAMSHIM_STEP_UFFD_API;
  }
  uffd = made;
  return 0;
}

// Puts the cache file under the guest's RAM. Between mmap and UFFDIO_REGISTER the range has no permissions: a stray
// access would end the process, where otherwise it would read a hole as zeros and leave a page of zeros in the file
// for every sibling.
static enum ramshim_step map_cache(int file, int runs, uint32_t run_count) {
  if (syscall(SYS_mmap, ram->address, ram->bytes, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file, 0) ==
      (long)MAP_FAILED)
    return RAMSHIM_STEP_MAP;
  struct uffdio_register range = {.range = {(uintptr_t)ram->address, ram->bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(uffd, UFFDIO_REGISTER, &range) < 0) return RAMSHIM_STEP_REGISTER;
  madvise(ram->address, ram->bytes, MADV_NOHUGEPAGE);  // the cache keeps holes of 4 KiB
  if (!zeros_map(ram, runs, run_count)) return RAMSHIM_STEP_MAP;
  madvise(ram->address, ram->bytes, MADV_DONTFORK);  // as QEMU had it
  if (mprotect(ram->address, ram->bytes, PROT_READ | PROT_WRITE) < 0) return RAMSHIM_STEP_PROTECT;
  // The slot's own memory is not seen any more: give it back.
  fallocate(ram->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)ram->bytes);
  return 0;
}

static enum ramshim_step obey(const struct ramshim_command *command, const int *descriptors, size_t count) {
  bool maps = command->kind == RAMSHIM_MAP_CACHE, counts = command->kind == RAMSHIM_COUNT;
  errno = EPROTO;
  if (command->magic != RAMSHIM_MAGIC || (!maps && !counts && command->kind != RAMSHIM_OPEN_UFFD) ||
      count != (maps ? 3 : counts ? 0 : 1))
    return RAMSHIM_STEP_COMMAND;
  if (counts) return 0;
  if (maps && cache >= 0) {
    errno = EALREADY;
    return RAMSHIM_STEP_COMMAND;
  }
  enum ramshim_step failed = open_uffd(descriptors[0], command->uffd_features);
  if (failed || !maps) return failed;
  if (command->avoid) overwrite_prepare(ram);
  failed = map_cache(descriptors[1], descriptors[2], command->run_count);
  if (failed) {
    fprintf(stderr, "snowfork-ramshim: remapping RAM failed at step %d: %m\n", failed);
    return failed;
  }
  cache = fcntl(descriptors[1], F_DUPFD_CLOEXEC, 0);
  memcpy(snapshot, command->snapshot, sizeof snapshot);
  if (command->avoid) overwrite_start(ram, uffd);
  return 0;
}

// One connection, from hello to the pager's end.
static void converse(int channel) {
  struct ramshim_hello hello = {.magic = RAMSHIM_MAGIC,
                                .version = RAMSHIM_VERSION,
                                .pid = (uint32_t)getpid(),
                                .flags = (uffd >= 0 ? RAMSHIM_HAS_UFFD : 0) | (cache >= 0 ? RAMSHIM_IS_MAPPED : 0),
                                .ram_address = (uintptr_t)ram->address,
                                .ram_bytes = ram->bytes};
  memcpy(hello.token, token, sizeof token);
  memcpy(hello.snapshot, snapshot, sizeof snapshot);
  int kept[descriptors_max] = {ram->file, uffd, cache};
  size_t kept_count = 1 + (uffd >= 0) + (cache >= 0);
  if (!send_all(channel, &hello, sizeof hello, kept, kept_count)) return;

  struct ramshim_command command;
  int descriptors[descriptors_max];
  size_t count;
  while (receive_all(channel, &command, sizeof command, descriptors, &count)) {
    enum ramshim_step failed = obey(&command, descriptors, count);
    struct ramshim_reply reply = {.magic = RAMSHIM_MAGIC,
                                  .error_number = failed ? errno : 0,
                                  .step = failed,
                                  .pages_overwritten = overwrite_count()};
    for (size_t i = 0; i < count; i++) close(descriptors[i]);
    bool has_uffd = !failed && command.kind != RAMSHIM_COUNT;
    if (!send_all(channel, &reply, sizeof reply, &uffd, has_uffd)) return;
  }
}

static void *run(void *unused) {
  (void)unused;
  pthread_setname_np(pthread_self(), "snowfork-shim");
  int backoff_ms = backoff_ms_min;
  while (true) {
    int channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, sizeof socket_path);
    if (channel >= 0 && connect(channel, (struct sockaddr *)&address, sizeof address) == 0) {
      backoff_ms = backoff_ms_min;
      converse(channel);
    }
    if (channel >= 0) close(channel);
    nanosleep(&(struct timespec){0, backoff_ms * 1000000L}, NULL);
    if (backoff_ms < backoff_ms_max) backoff_ms *= 2;
  }
  return NULL;
}

bool channel_start(const struct guest_ram *guest_ram) {
  const char *path = getenv("SNOWFORK_SHIM_SOCKET");
  const char *secret = getenv("SNOWFORK_SHIM_TOKEN");
  if (!path || strlen(path) >= sizeof socket_path || !secret || strlen(secret) != sizeof token) return false;
  strcpy(socket_path, path);
  memcpy(token, secret, sizeof token);
  ram = guest_ram;

  // QEMU's signals are its own threads' business.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int failed = pthread_create(&thread, NULL, run, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!failed) pthread_detach(thread);
  return !failed;
}
