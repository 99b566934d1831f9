#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "clinux.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static struct sockaddr_in endpoint(uint32_t address, uint16_t port) {
  struct sockaddr_in result = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {.s_addr = htonl(address)}};
  return result;
}

int clinux_udp_socket(void) { return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

int clinux_udp_bind(int udp, uint32_t address, uint16_t port) {
  struct sockaddr_in local = endpoint(address, port);
  return bind(udp, (struct sockaddr *)&local, sizeof local);
}

int clinux_udp_local_port(int udp) {
  struct sockaddr_in local;
  socklen_t size = sizeof local;
  if (getsockname(udp, (struct sockaddr *)&local, &size) < 0) return -1;
  return ntohs(local.sin_port);
}

int clinux_udp_share(int udp) {
  int one = 1;
  return setsockopt(udp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
}

int clinux_udp_buffers(int udp, int bytes) {
  if (setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0) return -1;
  return setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
}

int clinux_udp_multicast_from(int udp, uint32_t address, int ttl) {
  struct ip_mreqn from = {.imr_address = {.s_addr = htonl(address)}};
  int one = 1;
  if (setsockopt(udp, IPPROTO_IP, IP_MULTICAST_IF, &from, sizeof from) < 0) return -1;
  if (setsockopt(udp, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof one) < 0) return -1;
  return setsockopt(udp, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl);
}

int clinux_udp_join(int udp, uint32_t group, uint32_t address) {
  struct ip_mreqn membership = {.imr_multiaddr = {.s_addr = htonl(group)}, .imr_address = {.s_addr = htonl(address)}};
  int zero = 0;
  if (setsockopt(udp, IPPROTO_IP, IP_MULTICAST_ALL, &zero, sizeof zero) < 0) return -1;
  return setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership);
}

int clinux_udp_coalesce(int udp) {
  int one = 1;
  return setsockopt(udp, IPPROTO_UDP, UDP_GRO, &one, sizeof one);
}

ssize_t clinux_udp_send(int udp, uint32_t address, uint16_t port, const void *bytes, size_t length, uint16_t segment) {
  struct sockaddr_in to = endpoint(address, port);
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
  if (segment > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(header), &segment, sizeof segment);
  }
  return sendmsg(udp, &message, MSG_NOSIGNAL);
}

ssize_t clinux_udp_receive(int udp, void *buffer, size_t length, uint32_t *address, uint16_t *port, int *segment) {
  struct sockaddr_in from;
  struct iovec part = {.iov_base = buffer, .iov_len = length};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {.msg_name = &from,
                           .msg_namelen = sizeof from,
                           .msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t count = recvmsg(udp, &message, 0);
  if (count < 0) return -1;
  *address = ntohl(from.sin_addr.s_addr);
  *port = ntohs(from.sin_port);
  *segment = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
    if (header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_GRO)
      memcpy(segment, CMSG_DATA(header), sizeof *segment);
  return count;
}

int clinux_timerfd_create(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }

int clinux_timerfd_set(int timer, uint64_t deadline) {
  struct itimerspec when = {.it_value = {.tv_sec = (time_t)(deadline / 1000000000),
                                         .tv_nsec = (long)(deadline % 1000000000)}};
  return timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}
