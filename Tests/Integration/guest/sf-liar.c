/* sf-liar PORT LIE: answers the daemon's hello as an agent does, and lies at the first thing asked after it: an earlier
 * lie may come before the daemon calls the VM started.
 *
 * LIE: garbage (bytes that are no frame), length (a body beyond the limit), checksum (a flipped bit), unknown (no such
 * message), direction (a message that only the host sends), flood (requests without end), forged (a ticket it was
 * never given), fields (a list that claims to be longer than its body). none: it stays honest, and silent.
 * The format is drawn in Sources/GuestWire/Frame.swift. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER = 32, HELLO = 1, GRANTED = 16, WELCOME = 65, REQUEST_TICKET = 80, JOIN = 85, CANCEL = 87 };

static int port;
static uint64_t epoch;

static uint32_t crc32c(const unsigned char *bytes, size_t length) {
  uint32_t crc = ~0u;
  while (length--) {
    crc ^= *bytes++;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
  }
  return ~crc;
}

static void put32(unsigned char *at, uint32_t value) { memcpy(at, &value, 4); }

static void send_all(const void *bytes, size_t length) {
  for (const char *at = bytes; length;) {
    ssize_t sent = write(port, at, length);
    if (sent <= 0) {
      usleep(1000);
      continue;
    }
    at += sent;
    length -= (size_t)sent;
  }
}

static void header(unsigned char *frame, int type, uint32_t request, uint32_t length, uint32_t body_crc) {
  memcpy(frame, "SNWF", 4);
  frame[4] = 1;
  frame[5] = (unsigned char)type;
  frame[6] = frame[7] = 0;
  memcpy(frame + 8, &epoch, 8);
  put32(frame + 16, request);
  put32(frame + 20, length);
  put32(frame + 24, body_crc);
  put32(frame + 28, crc32c(frame, 28));
}

static void send_frame(int type, uint32_t request, const void *body, uint32_t length) {
  unsigned char frame[HEADER + 256];
  header(frame, type, request, length, crc32c(body, length));
  memcpy(frame + HEADER, body, length);
  send_all(frame, HEADER + length);
}

static void read_all(unsigned char *at, size_t length) {
  while (length) {
    ssize_t got = read(port, at, length);
    if (got <= 0) {
      usleep(10000);
      continue;
    }
    at += got;
    length -= (size_t)got;
  }
}

static uint32_t put_text(unsigned char *at, const char *text) {
  put32(at, (uint32_t)strlen(text));
  memcpy(at + 4, text, strlen(text));
  return 4 + (uint32_t)strlen(text);
}

static void welcome(uint32_t request) {
  unsigned char body[200];
  uint32_t length = put_text(body, "1.0");
  length += put_text(body + length, "6.1.0-liar");
  put32(body + length, 1);
  length += 4;
  length += put_text(body + length, "00000000-0000-0000-0000-000000000000");
  memcpy(body + length, &epoch, 8);
  send_frame(WELCOME, request, body, length + 8);
}

static void lie(const char *what) {
  unsigned char bytes[HEADER + 256] = {0};
  if (!strcmp(what, "garbage")) {
    memset(bytes, 0x5A, sizeof bytes);
    for (int i = 0; i < 64; i++) send_all(bytes, sizeof bytes);
  } else if (!strcmp(what, "length")) {
    header(bytes, JOIN, 1, 0xFFFFFFF0u, 0);
    send_all(bytes, HEADER);
  } else if (!strcmp(what, "checksum")) {
    header(bytes, CANCEL, 1, 0, 0);
    bytes[16] ^= 4;
    send_all(bytes, HEADER);
  } else if (!strcmp(what, "unknown")) {
    send_frame(200, 1, "", 0);
  } else if (!strcmp(what, "direction")) {
    uint32_t length = put_text(bytes, "t-1");
    put32(bytes + length, 1);
    send_frame(GRANTED, 1, bytes, length + 4);
  } else if (!strcmp(what, "flood")) {
    for (uint32_t i = 1; i < 100000; i++) send_frame(CANCEL, i, "", 0);
  } else if (!strcmp(what, "forged")) {
    uint32_t length = put_text(bytes, "t-0123456789abcdef");
    memset(bytes + length, 0, 8);
    send_frame(JOIN, 1, bytes, length + 8);
  } else if (!strcmp(what, "fields")) {
    put32(bytes, 200); /* a ticket of 200 bytes, of which 4 come */
    send_frame(JOIN, 1, bytes, 8);
  }
}

int main(int argc, char **argv) {
  if (argc != 3 || (port = open(argv[1], O_RDWR)) < 0) return 1;
  for (int lied = 0;;) {
    unsigned char frame[HEADER], body[1 << 12];
    uint32_t request, length;
    read_all(frame, HEADER);
    memcpy(&epoch, frame + 8, 8);
    memcpy(&request, frame + 16, 4);
    memcpy(&length, frame + 20, 4);
    if (length > sizeof body) return 2;
    read_all(body, length);
    if (frame[5] == HELLO)
      welcome(request);
    else if (!lied++)
      lie(argv[2]);
  }
}
