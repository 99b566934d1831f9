// libnl: sockets, messages and attributes of netlink; and the kernel's numbers for links, neighbours, addresses,
// routes and queueing disciplines. net/if.h and linux/if.h do not go together: neither is included.
#pragma once
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
