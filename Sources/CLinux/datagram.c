#define _GNU_SOURCE
#include "clinux_datagram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static struct sockaddr_in name_of(uint32_t address, uint16_t port) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = address};
  return name;
}

static void set_buffer(int socket, int forced, int usual, int bytes) {
  if (setsockopt(socket, SOL_SOCKET, forced, &bytes, sizeof bytes) == -1)
    setsockopt(socket, SOL_SOCKET, usual, &bytes, sizeof bytes);
}

int clinux_datagram_socket(uint32_t address, uint16_t port, int buffer_bytes, int shared) {
  int file = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (file == -1) return -1;
  int one = 1;
  set_buffer(file, SO_RCVBUFFORCE, SO_RCVBUF, buffer_bytes);
  set_buffer(file, SO_SNDBUFFORCE, SO_SNDBUF, buffer_bytes);
  setsockopt(file, IPPROTO_UDP, UDP_GRO, &one, sizeof one); /* without it each datagram is a call */
  struct sockaddr_in name = name_of(address, port);
  if ((shared && setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == -1) ||
      bind(file, (struct sockaddr *)&name, sizeof name) == -1) {
    int saved = errno;
    close(file);
    errno = saved;
    return -1;
  }
  return file;
}

int clinux_datagram_port(int socket) {
  struct sockaddr_in name;
  socklen_t length = sizeof name;
  if (getsockname(socket, (struct sockaddr *)&name, &length) == -1) return -1;
  return name.sin_port;
}

int clinux_datagram_join(int socket, uint32_t group, uint32_t local) {
  struct ip_mreqn membership = {.imr_multiaddr.s_addr = group, .imr_address.s_addr = local};
  int none = 0;
  setsockopt(socket, IPPROTO_IP, IP_MULTICAST_ALL, &none, sizeof none);
  return setsockopt(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership);
}

int clinux_datagram_multicast(int socket, uint32_t local, int hops) {
  struct ip_mreqn interface = {.imr_address.s_addr = local};
  int one = 1;
  if (setsockopt(socket, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface) == -1) return -1;
  if (setsockopt(socket, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops) == -1) return -1;
  return setsockopt(socket, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof one);
}

ssize_t clinux_datagram_send(int socket, uint32_t address, uint16_t port, const void *bytes, size_t length,
                             size_t segment) {
  struct sockaddr_in name = name_of(address, port);
  struct iovec part = {(void *)bytes, length};
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr header;
  } control;
  struct msghdr message = {
      .msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part, .msg_iovlen = 1};
  if (length > segment) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    uint16_t size = (uint16_t)segment;
    memcpy(CMSG_DATA(header), &size, sizeof size);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t clinux_datagram_receive(int socket, void *bytes, size_t length, uint32_t *address, uint16_t *port,
                                size_t *segment) {
  struct sockaddr_in name;
  struct iovec part = {bytes, length};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr header;
  } control;
  struct msghdr message = {.msg_name = &name,
                           .msg_namelen = sizeof name,
                           .msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t count = recvmsg(socket, &message, 0);
  if (count < 0) return -1;
  if (message.msg_flags & MSG_TRUNC) count = 0; /* no datagram of ours is that long */
  *address = name.sin_addr.s_addr;
  *port = name.sin_port;
  *segment = (size_t)count;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != IPPROTO_UDP || header->cmsg_type != UDP_GRO) continue;
    int size;
    memcpy(&size, CMSG_DATA(header), sizeof size);
    if (size > 0) *segment = (size_t)size;
  }
  return count;
}
