#define _GNU_SOURCE
#include "clinux_network.h"

#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/magic.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

int clinux_is_namespace(int file) {
  struct statfs status;
  if (fstatfs(file, &status) != 0) return -1;
  return status.f_type == NSFS_MAGIC;
}

int clinux_enter_network(int namespace_file) { return setns(namespace_file, CLONE_NEWNET); }

int clinux_enter_mounts(int namespace_file) { return setns(namespace_file, CLONE_NEWNS); }

int clinux_unshare_directories(void) { return unshare(CLONE_FS); }

int clinux_unshare_network(void) { return unshare(CLONE_NEWNET); }

int clinux_tap_attach(int file, const char *name, int has_virtio_header) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | (has_virtio_header ? IFF_VNET_HDR : 0)};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return ioctl(file, TUNSETIFF, &request);
}

int clinux_tap_set_persistent(int file, int is_persistent) { return ioctl(file, TUNSETPERSIST, is_persistent); }

int clinux_tap_set_owner(int file, uid_t owner) { return ioctl(file, TUNSETOWNER, owner); }

int clinux_tap_accept_segments(int file) { return ioctl(file, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4); }
