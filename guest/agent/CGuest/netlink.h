/* netlink(7), of this directory's files alone. */
#pragma once
#include <linux/netlink.h>

/* Sends a message that asks for an acknowledgement, and waits for it: 0, or a negative errno of the call's or the
 * kernel's. */
int netlink_acknowledged(int fd, const struct nlmsghdr *message);
