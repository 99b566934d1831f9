#define _GNU_SOURCE
#include "netlink.h"

#include <errno.h>
#include <sys/socket.h>

int netlink_acknowledged(int fd, const struct nlmsghdr *message) {
  if (send(fd, message, message->nlmsg_len, 0) < 0) return -errno;
  struct {
    struct nlmsghdr header;
    struct nlmsgerr error;
    char rest[256];
  } answer;
  if (recv(fd, &answer, sizeof answer, 0) < 0) return -errno;
  return answer.error.error;
}
