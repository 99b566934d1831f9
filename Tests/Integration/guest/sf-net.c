/* What a guest says in its network.
 *
 *   sf-net serve PORT                 echoes what comes by TCP and by UDP
 *   sf-net tcp ADDRESS PORT TEXT      says TEXT and prints what is answered; status 1: nothing within 3 s
 *   sf-net udp ADDRESS PORT TEXT
 *   sf-net hold ADDRESS PORT          says numbers on one connection until there is /tmp/stop: "kept", or "lost", why
 *   sf-net take PORT >FILE            what one connection brings;  sf-net send ADDRESS PORT <FILE  sends it
 *   sf-net spoof MAC ADDRESS OTHER-MAC OTHER-ADDRESS     sends frames to all: its own, and such as are not its own
 *   sf-net watch SECONDS              prints which of those frames come here, a word each
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 3000 };

static int fail(const char *what) {
  printf("%s: %s\n", what, strerror(errno));
  return 1;
}

static struct sockaddr_in endpoint(const char *address, const char *port) {
  struct sockaddr_in result = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  if (inet_pton(AF_INET, address, &result.sin_addr) != 1) exit(99);
  return result;
}

static int is_readable(int fd, int milliseconds) {
  struct pollfd event = {.fd = fd, .events = POLLIN};
  return poll(&event, 1, milliseconds) == 1;
}

static int serve(const char *port) {
  struct sockaddr_in any = endpoint("0.0.0.0", port);
  int one = 1, tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
  setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(tcp, (void *)&any, sizeof any) < 0 || bind(udp, (void *)&any, sizeof any) < 0 || listen(tcp, 16) < 0)
    return fail("listen");
  puts("serving");
  fflush(stdout);
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char text[2048];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    for (;;) {
      ssize_t count = recvfrom(udp, text, sizeof text, 0, (void *)&from, &length);
      if (count > 0) sendto(udp, text, (size_t)count, 0, (void *)&from, length);
    }
  }
  for (;;) {
    int client = accept(tcp, NULL, NULL);
    if (client < 0) continue;
    if (fork() == 0) {
      char text[65536];
      for (ssize_t count; (count = read(client, text, sizeof text)) > 0;)
        for (ssize_t done = 0, step; done < count; done += step)
          if ((step = write(client, text + done, (size_t)(count - done))) <= 0) _exit(0);
      _exit(0);
    }
    close(client);
  }
}

static int dial(int type, const char *address, const char *port) {
  struct sockaddr_in to = endpoint(address, port);
  int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
  if (connect(fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS) return -1;
  struct pollfd event = {.fd = fd, .events = POLLOUT};
  int error = ETIMEDOUT;
  socklen_t length = sizeof error;
  if (poll(&event, 1, WAIT_MS) == 1) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0) return fd;
  errno = error;
  return -1;
}

static int say(int type, const char *address, const char *port, const char *text) {
  char answer[2048];
  int fd = dial(type, address, port);
  if (fd < 0) return fail("connect");
  for (int attempt = 0; attempt < 3; attempt++) {
    if (write(fd, text, strlen(text)) < 0) return fail("write");
    if (!is_readable(fd, WAIT_MS / 3)) continue;
    ssize_t count = read(fd, answer, sizeof answer);
    if (count <= 0) return fail("read");
    printf("%.*s\n", (int)count, answer);
    return 0;
  }
  errno = ETIMEDOUT;
  return fail("read");
}

static int hold(const char *address, const char *port) {
  int fd = dial(SOCK_STREAM, address, port);
  if (fd < 0) return fail("connect");
  puts("connected");
  fflush(stdout);
  for (uint32_t number = 1, echo = 0; access("/tmp/stop", F_OK) != 0; number++) {
    usleep(20000);
    if (write(fd, &number, sizeof number) != sizeof number || !is_readable(fd, 30000) ||
        read(fd, &echo, sizeof echo) != sizeof echo) {
      printf("lost: %s\n", strerror(errno));
      return 0;
    }
    if (echo != number) return puts("wrong"), 0;
  }
  puts("kept");
  return 0;
}

static int copy(int from, int to) {
  static char bytes[65536];
  for (ssize_t count; (count = read(from, bytes, sizeof bytes)) != 0;)
    for (ssize_t done = 0, step; done < count || count < 0; done += step)
      if (count < 0 || (step = write(to, bytes + done, (size_t)(count - done))) < 0) return fail("copy");
  return 0;
}

static int take(const char *port) {
  struct sockaddr_in any = endpoint("0.0.0.0", port);
  int one = 1, tcp = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(tcp, (void *)&any, sizeof any) < 0 || listen(tcp, 1) < 0) return fail("listen");
  fputs("taking\n", stderr);
  return copy(accept(tcp, NULL, NULL), 1);
}

static int send_all(const char *address, const char *port) {
  struct sockaddr_in to = endpoint(address, port);
  int tcp = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(tcp, (void *)&to, sizeof to) < 0) return fail("connect");
  return copy(0, tcp);
}

struct frame {
  uint8_t bytes[128];
  size_t length;
};

static void put(struct frame *frame, const void *bytes, size_t count) {
  memcpy(frame->bytes + frame->length, bytes, count);
  frame->length += count;
}

static void put16(struct frame *frame, uint16_t number) { put(frame, &(uint16_t){htons(number)}, 2); }

static struct frame ethernet(const uint8_t *mac, uint16_t type) {
  struct frame frame = {0};
  memset(frame.bytes, 0xFF, frame.length = 6);
  put(&frame, mac, 6);
  put16(&frame, type);
  return frame;
}

static void put_udp(struct frame *frame, uint32_t source, uint16_t from, uint16_t to, const char *word) {
  uint8_t header[20] = {0x45, 0, 0, 28 + 32, 0, 0, 0, 0, 64, 17};
  memcpy(header + 12, &source, 4);
  memset(header + 16, 0xFF, 4);
  uint32_t sum = 0;
  for (int i = 0; i < 20; i += 2) sum += (uint32_t)header[i] << 8 | header[i + 1];
  sum = ~((sum & 0xFFFF) + (sum >> 16));
  header[10] = (uint8_t)(sum >> 8);
  header[11] = (uint8_t)sum;
  put(frame, header, sizeof header);
  put16(frame, from);
  put16(frame, to);
  put16(frame, 8 + 32);
  put16(frame, 0);
  char padded[32] = {0};
  strncpy(padded, word, sizeof padded - 1);
  put(frame, padded, sizeof padded);
}

static void put_arp(struct frame *frame, uint16_t operation, const uint8_t *mac, uint32_t address, const char *word) {
  put16(frame, 1);
  put16(frame, ETH_P_IP);
  put(frame, (uint8_t[]){6, 4}, 2);
  put16(frame, operation);
  for (int i = 0; i < 2; i++) {
    put(frame, mac, 6);
    put(frame, &address, 4);
  }
  char padded[32] = {0};
  strncpy(padded, word, sizeof padded - 1);
  put(frame, padded, sizeof padded);
}

static int packet_socket(void) {
  int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  struct sockaddr_ll at = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex("eth0")};
  if (bind(fd, (void *)&at, sizeof at) < 0) exit(fail("eth0"));
  return fd;
}

static void parse_mac(const char *text, uint8_t *mac) {
  if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) exit(99);
}

static int spoof(char **arguments) {
  uint8_t mac[6], other_mac[6];
  parse_mac(arguments[0], mac);
  parse_mac(arguments[2], other_mac);
  uint32_t address = inet_addr(arguments[1]), other = inet_addr(arguments[3]);
  struct frame frames[12] = {
      ethernet(mac, ETH_P_IP),    ethernet(mac, ETH_P_ARP), ethernet(other_mac, ETH_P_IP), ethernet(mac, ETH_P_IP),
      ethernet(mac, ETH_P_ARP),   ethernet(mac, ETH_P_ARP), ethernet(mac, ETH_P_IP),       ethernet(mac, ETH_P_IP),
      ethernet(mac, ETH_P_IPV6),  ethernet(mac, 0x8100),    ethernet(mac, 0x88CC),  ethernet(other_mac, ETH_P_ARP),
  };
  put_udp(&frames[0], address, 4000, 4000, "SPOOF-own-ip");
  put_arp(&frames[1], 1, mac, address, "SPOOF-own-arp");
  put_udp(&frames[2], address, 4000, 4000, "SPOOF-mac");
  put_udp(&frames[3], other, 4000, 4000, "SPOOF-ip");
  put_arp(&frames[4], 1, mac, other, "SPOOF-arp-request");
  put_arp(&frames[5], 2, mac, other, "SPOOF-arp-reply");
  put_udp(&frames[6], address, 67, 68, "SPOOF-dhcp-offer");
  put_udp(&frames[7], 0, 68, 67, "SPOOF-dhcp-request");
  /* A neighbour advertisement's frame is dropped like every other of IPv6. */
  put(&frames[8], "\x60\0\0\0\0\x20\x3a\xff", 8);
  put(&frames[8], (uint8_t[32]){0xfe, 0x80}, 32);
  put(&frames[8], "SPOOF-ipv6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32);
  put16(&frames[9], 0);
  put16(&frames[9], ETH_P_IP);
  put_udp(&frames[9], address, 4000, 4000, "SPOOF-vlan");
  put(&frames[10], "SPOOF-lldp\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 48);
  put_arp(&frames[11], 1, other_mac, other, "SPOOF-whole-arp");
  int fd = packet_socket();
  for (int round = 0; round < 5; round++)
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
      if (send(fd, frames[i].bytes, frames[i].length, 0) < 0) return fail("send");
  return 0;
}

static int watch(const char *seconds) {
  int fd = packet_socket();
  time_t end = time(NULL) + atoi(seconds);
  puts("watching");
  fflush(stdout);
  while (time(NULL) < end) {
    uint8_t frame[2048];
    if (!is_readable(fd, 200)) continue;
    struct sockaddr_ll from;
    socklen_t length = sizeof from;
    ssize_t count = recvfrom(fd, frame, sizeof frame, 0, (void *)&from, &length);
    if (count <= 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
    const uint8_t *word = memmem(frame, (size_t)count, "SPOOF-", 6);
    if (word) printf("%.*s\n", (int)strnlen((const char *)word, (size_t)(frame + count - word)), word);
    fflush(stdout);
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *verb = argc > 1 ? argv[1] : "";
  if (argc == 3 && strcmp(verb, "serve") == 0) return serve(argv[2]);
  if (argc == 5 && strcmp(verb, "tcp") == 0) return say(SOCK_STREAM, argv[2], argv[3], argv[4]);
  if (argc == 5 && strcmp(verb, "udp") == 0) return say(SOCK_DGRAM, argv[2], argv[3], argv[4]);
  if (argc == 4 && strcmp(verb, "hold") == 0) return hold(argv[2], argv[3]);
  if (argc == 3 && strcmp(verb, "take") == 0) return take(argv[2]);
  if (argc == 4 && strcmp(verb, "send") == 0) return send_all(argv[2], argv[3]);
  if (argc == 6 && strcmp(verb, "spoof") == 0) return spoof(argv + 2);
  if (argc == 3 && strcmp(verb, "watch") == 0) return watch(argv[2]);
  return 99;
}
