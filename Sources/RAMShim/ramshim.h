// The parts of the RAM shim: interpose.c finds QEMU's guest RAM, channel.c hands it to the pager.
#pragma once
#include <stdbool.h>
#include <stddef.h>

// Guest RAM as QEMU mapped it. Written once, before the channel's thread starts.
struct guest_ram {
  void *address;
  size_t bytes;
  int file;  // a duplicate of QEMU's descriptor of the memory file
};

// Starts the thread that connects to the pager, and connects again whenever it has gone, until the process ends.
// False if no thread could be started.
__attribute__((visibility("hidden"))) bool channel_start(const struct guest_ram *ram);
