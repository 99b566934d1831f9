#define _GNU_SOURCE
#include "cguest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

/* One ioctl on a datagram socket of its own: these are rare, and a socket kept would be one more thing to fork. */
static int interface_ioctl(unsigned long request, void *argument) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int result = result_of(ioctl(fd, request, argument));
  close(fd);
  return result;
}

static struct ifreq request_for(const char *name) {
  struct ifreq request = {0};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return request;
}

int cguest_set_interface_up(const char *name, int up) {
  struct ifreq request = request_for(name);
  int result = interface_ioctl(SIOCGIFFLAGS, &request);
  if (result < 0) return result;
  if (up)
    request.ifr_flags |= IFF_UP;
  else
    request.ifr_flags &= ~IFF_UP;
  return interface_ioctl(SIOCSIFFLAGS, &request);
}

int cguest_set_mac(const char *name, const uint8_t *mac) {
  struct ifreq request = request_for(name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, mac, 6);
  return interface_ioctl(SIOCSIFHWADDR, &request);
}

static void set_ipv4(struct sockaddr *to, uint32_t address) {
  struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_addr = {address}};
  memcpy(to, &ipv4, sizeof ipv4);
}

int cguest_set_address(const char *name, uint32_t address, uint32_t netmask) {
  struct ifreq request = request_for(name);
  set_ipv4(&request.ifr_addr, address);
  int result = interface_ioctl(SIOCSIFADDR, &request);
  if (result < 0) return result;
  set_ipv4(&request.ifr_netmask, netmask);
  return interface_ioctl(SIOCSIFNETMASK, &request);
}

uint32_t cguest_address(const char *name) {
  struct ifreq request = request_for(name);
  if (interface_ioctl(SIOCGIFADDR, &request) < 0) return 0;
  struct sockaddr_in address;
  memcpy(&address, &request.ifr_addr, sizeof address);
  return address.sin_addr.s_addr;
}

int cguest_add_default_route(uint32_t gateway) {
  struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
  set_ipv4(&route.rt_dst, 0);
  set_ipv4(&route.rt_genmask, 0);
  set_ipv4(&route.rt_gateway, gateway);
  int result = interface_ioctl(SIOCADDRT, &route);
  return result == -EEXIST ? 0 : result;
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
