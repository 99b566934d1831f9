#define _GNU_SOURCE
#include "cguest.h"
#include "netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct diag_request {
  struct nlmsghdr header;
  struct inet_diag_req_v2 body;
};

struct found {
  struct inet_diag_sockid *sockets;
  size_t count, room;
};

/* Whether the socket's own address is this one, also as an IPv6 address that stands for it. */
static int is_local(const struct inet_diag_msg *message, uint32_t address) {
  const uint32_t *own = message->id.idiag_src;
  if (message->idiag_family == AF_INET) return own[0] == address;
  return own[0] == 0 && own[1] == 0 && own[2] == htonl(0xFFFF) && own[3] == address;
}

static int add(struct found *found, const struct inet_diag_sockid *socket) {
  if (found->count == found->room) {
    size_t room = found->room ? 2 * found->room : 16;
    void *grown = realloc(found->sockets, room * sizeof *found->sockets);
    if (!grown) return -ENOMEM;
    found->sockets = grown;
    found->room = room;
  }
  found->sockets[found->count++] = *socket;
  return 0;
}

static int find(int fd, int family, uint32_t address, struct found *found) {
  struct diag_request request = {
      .header = {.nlmsg_len = sizeof request,
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
      .body = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~(1U << TCP_LISTEN)},
  };
  int result = send(fd, &request, sizeof request, 0) < 0 ? -errno : 0;
  _Alignas(struct nlmsghdr) char buffer[8192];
  while (result == 0) {
    ssize_t length = recv(fd, buffer, sizeof buffer, 0);
    if (length < 0) return -errno;
    for (struct nlmsghdr *header = (void *)buffer; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
      if (header->nlmsg_type == NLMSG_DONE) return 0;
      if (header->nlmsg_type == NLMSG_ERROR) return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
      const struct inet_diag_msg *message = NLMSG_DATA(header);
      if (is_local(message, address)) result = add(found, &message->id);
    }
  }
  return result;
}

static int destroy(int fd, int family, const struct inet_diag_sockid *socket) {
  struct diag_request request = {
      .header = {.nlmsg_len = sizeof request,
                 .nlmsg_type = SOCK_DESTROY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
      .body = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .id = *socket},
  };
  int result = netlink_acknowledged(fd, &request.header);
  /* One that has ended meanwhile is as good. */
  return result == -ENOENT ? 0 : result;
}

static int each_connection(uint32_t address, int (*act)(int fd, int family, const struct inet_diag_sockid *)) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return -errno;
  int result = 0, count = 0;
  const int families[] = {AF_INET, AF_INET6};
  for (int i = 0; i < 2 && result == 0; i++) {
    struct found found = {0};
    result = find(fd, families[i], address, &found);
    for (size_t s = 0; s < found.count && result == 0; s++, count++)
      if (act) result = act(fd, families[i], &found.sockets[s]);
    free(found.sockets);
  }
  close(fd);
  return result < 0 ? result : count;
}

int cguest_count_connections(uint32_t address) { return each_connection(address, NULL); }

int cguest_destroy_connections(uint32_t address) { return each_connection(address, destroy); }
