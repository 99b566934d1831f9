// UDP over IPv4, and timers. Same conventions as clinux.h; addresses and ports are numbers in the machine's byte order.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma clang assume_nonnull begin

/// socket(2) SOCK_DGRAM, non-blocking. Linux 2.6.27.
int clinux_udp_socket(void);
/// bind(2); port 0: the kernel chooses.
int clinux_udp_bind(int udp, uint32_t address, uint16_t port);
/// getsockname(2): the port.
int clinux_udp_local_port(int udp);
/// SO_REUSEADDR: several sockets of one group and port each get every multicast datagram.
int clinux_udp_share(int udp);
/// SO_RCVBUFFORCE and SO_SNDBUFFORCE; needs CAP_NET_ADMIN. Linux 2.6.14.
int clinux_udp_buffers(int udp, int bytes);
/// IP_MULTICAST_IF (the interface with this address), IP_MULTICAST_LOOP on, IP_MULTICAST_TTL.
int clinux_udp_multicast_from(int udp, uint32_t address, int ttl);
/// IP_ADD_MEMBERSHIP on the interface with this address; IP_MULTICAST_ALL off: nothing of other groups. Linux 2.6.31.
int clinux_udp_join(int udp, uint32_t group, uint32_t address);
/// UDP_GRO: one receive may give many datagrams of equal size. Linux 5.0.
int clinux_udp_coalesce(int udp);
/// sendmsg(2). `segment` > 0 (UDP_SEGMENT, Linux 4.18): cut into datagrams of so many bytes, the last may be shorter.
ssize_t clinux_udp_send(int udp, uint32_t address, uint16_t port, const void *bytes, size_t length, uint16_t segment);
/// recvmsg(2). `*segment`: what was received is datagrams of so many bytes, the last may be shorter; 0: one datagram.
ssize_t clinux_udp_receive(int udp, void *buffer, size_t length, uint32_t *address, uint16_t *port, int *segment);

/// timerfd_create(2) of CLOCK_MONOTONIC, non-blocking. Linux 2.6.27.
int clinux_timerfd_create(void);
/// timerfd_settime(2): readable from `deadline` (nanoseconds of CLOCK_MONOTONIC) on; 0: never.
int clinux_timerfd_set(int timer, uint64_t deadline);

#pragma clang assume_nonnull end
