/* System calls that Swift cannot make by itself (variadic, or numbers behind macros). One function, one call.
 * Each returns what the call returns, or the negative errno. */
#ifndef CGUEST_H
#define CGUEST_H

#include <stddef.h>
#include <stdint.h>

/* Headers that Swift's Glibc module leaves out. */
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

/* finit_module(2), without parameters. Linux 3.8. 0 also if the module is already there. */
int cguest_load_module(int fd);

/* ioctl(RNDADDENTROPY): mixes `count` bytes (at most 512) into the kernel's pool, credited as 8 bits each. */
int cguest_add_entropy(int random_fd, const void *_Nonnull bytes, size_t count);

/* ioctl(RNDRESEEDCRNG): the next random number comes from a newly keyed generator. Linux 4.14. */
int cguest_reseed(int random_fd);

/* pipe2(2) with O_CLOEXEC: ends[0] is to be read. Linux 2.6.27. */
int cguest_pipe(int ends[_Nonnull 2]);

/* accept4(2) with SOCK_CLOEXEC and SOCK_NONBLOCK. Linux 2.6.28. */
int cguest_accept(int listener);

/* pidfd_open(2). Linux 5.3. */
int cguest_pidfd_open(int pid);

/* The network; addresses in network order. Sockets are opened by the first call and kept. */

/* SIOCSIFFLAGS: the interface up, or down. */
int cguest_set_interface_up(const char *_Nonnull name, int up);
/* SIOCSIFHWADDR: six bytes. -EBUSY: the driver can not while the interface is up. */
int cguest_set_mac(const char *_Nonnull name, const uint8_t *_Nonnull mac);
int cguest_interface_index(const char *_Nonnull name);
/* RTM_DELADDR, RTM_NEWADDR: with the last address of an interface its routes go. */
int cguest_remove_address(int index, uint32_t address, int prefix);
int cguest_add_address(int index, uint32_t address, int prefix);
/* RTM_NEWROUTE, in place of the one there is. */
int cguest_set_default_route(int index, uint32_t gateway);
/* How many TCP connections have this as their own address. sock_diag(7): the modules inet_diag and tcp_diag. */
int cguest_count_connections(uint32_t address);
/* Ends them: whoever reads from them gets ECONNABORTED. How many; -EOPNOTSUPP, -ENOENT: a kernel without
 * CONFIG_INET_DIAG_DESTROY (Linux 4.5). */
int cguest_destroy_connections(uint32_t address);

/* timerfd_create(2), not blocking; one that goes off once after so long. */
int cguest_timer(void);
int cguest_start_timer(int timer, int milliseconds);

/* memmem(3): 1 if the part is in the whole. */
int cguest_contains(const uint8_t *_Nonnull whole, size_t count, const uint8_t *_Nonnull part, size_t part_count);

/* The peer's process, by SO_PEERCRED. */
int cguest_peer_pid(int socket_fd);

/* 128 + signal, or the exit status, from a wait status. */
int cguest_exit_status(int wait_status);

#endif
