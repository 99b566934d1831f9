/* UDP datagrams in numbers: many of one size in one call, by segmentation offload (Linux 4.18, 5.0). */
#ifndef CLINUX_DATAGRAM_H
#define CLINUX_DATAGRAM_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma clang assume_nonnull begin

/* A non-blocking UDP socket bound to `address:port` (network byte order), with buffers of `buffer_bytes` (beyond the
 * system's limit where the caller has CAP_NET_ADMIN). `shared`: others may bind the same. -1 and errno on failure. */
int clinux_datagram_socket(uint32_t address, uint16_t port, int buffer_bytes, int shared);

/* The port a socket is bound to, network byte order; -1 and errno. */
int clinux_datagram_port(int socket);

/* Receives the group's datagrams that reach the interface with address `local`. 0, or -1 and errno. */
int clinux_datagram_join(int socket, uint32_t group, uint32_t local);

/* Multicast leaves by the interface with address `local`, crosses `hops` routers at most, and reaches this machine's
 * own sockets as well. 0, or -1 and errno. */
int clinux_datagram_multicast(int socket, uint32_t local, int hops);

/* Sends `length` bytes as datagrams of `segment` bytes, the last one shorter. The bytes taken, or -1 and errno: EIO,
 * EINVAL, ENOPROTOOPT where segmentation offload is not to be had. */
ssize_t clinux_datagram_send(int socket, uint32_t address, uint16_t port, const void *bytes, size_t length,
                             size_t segment);

/* Receives one datagram, or many of one size from one sender. `segment` gets that size. The bytes received, or -1
 * and errno: EAGAIN when there is none. */
ssize_t clinux_datagram_receive(int socket, void *bytes, size_t length, uint32_t *address, uint16_t *port,
                                size_t *segment);

#pragma clang assume_nonnull end

#endif
