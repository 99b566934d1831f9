#define _GNU_SOURCE
#include "cguest.h"
#include "netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Opened once and kept: in a clone, where everything is done for the first time, opening costs milliseconds. */
static int kept_socket(int *kept, int family, int type, int protocol) {
  if (*kept < 0) *kept = socket(family, type | SOCK_CLOEXEC, protocol);
  return *kept < 0 ? -errno : *kept;
}

static int interface_ioctl(unsigned long request, struct ifreq *argument) {
  static int kept = -1;
  int fd = kept_socket(&kept, AF_INET, SOCK_DGRAM, 0);
  return fd < 0 ? fd : ioctl(fd, request, argument) < 0 ? -errno : 0;
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

int cguest_interface_index(const char *name) {
  int index = (int)if_nametoindex(name);
  return index == 0 ? -errno : index;
}

/* A message of rtnetlink(7) that is acknowledged. */
struct message {
  struct nlmsghdr header;
  union {
    struct ifaddrmsg address;
    struct rtmsg route;
  } body;
  char attributes[64];
};

static void add(struct message *message, unsigned short type, uint32_t value) {
  struct rtattr *attribute = (void *)((char *)message + message->header.nlmsg_len);
  attribute->rta_type = type;
  attribute->rta_len = RTA_LENGTH(sizeof value);
  memcpy(RTA_DATA(attribute), &value, sizeof value);
  message->header.nlmsg_len += RTA_SPACE(sizeof value);
}

static int carry_out(struct message *message) {
  static int kept = -1;
  int fd = kept_socket(&kept, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  if (fd < 0) return fd;
  message->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
  return netlink_acknowledged(fd, &message->header);
}

static struct message address_message(unsigned short type, int index, uint32_t address, int prefix) {
  struct message message = {
      .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)), .nlmsg_type = type},
      .body.address = {.ifa_family = AF_INET, .ifa_prefixlen = (unsigned char)prefix, .ifa_index = (unsigned)index},
  };
  add(&message, IFA_LOCAL, address);
  return message;
}

int cguest_remove_address(int index, uint32_t address, int prefix) {
  struct message message = address_message(RTM_DELADDR, index, address, prefix);
  return carry_out(&message);
}

int cguest_add_address(int index, uint32_t address, int prefix) {
  struct message message = address_message(RTM_NEWADDR, index, address, prefix);
  message.header.nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
  uint32_t hosts = prefix == 32 ? 0 : ~0U >> prefix;
  add(&message, IFA_ADDRESS, address);
  add(&message, IFA_BROADCAST, address | __builtin_bswap32(hosts));
  return carry_out(&message);
}

int cguest_set_default_route(int index, uint32_t gateway) {
  struct message message = {
      .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
                 .nlmsg_type = RTM_NEWROUTE,
                 .nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE},
      .body.route = {.rtm_family = AF_INET,
                     .rtm_table = RT_TABLE_MAIN,
                     .rtm_protocol = RTPROT_STATIC,
                     .rtm_type = RTN_UNICAST},
  };
  add(&message, RTA_GATEWAY, gateway);
  add(&message, RTA_OIF, (uint32_t)index);
  return carry_out(&message);
}
