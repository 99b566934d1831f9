// What the RAM shim inside QEMU and the pager say to each other, over the Unix stream socket named by
// SNOWFORK_SHIM_SOCKET. Structures of fixed size, in the machine's own byte order (both ends are on one host);
// descriptors travel as SCM_RIGHTS with the first byte of a structure.
//
//   shim                                             pager
//    | -- hello {token, pid, RAM} + ram [uffd [cache]] -> |   at once when RAM is mapped, and again on every reconnect
//    | <- command {uffd}  + /dev/userfaultfd ------------ |   before the first freeze
//    | -- reply   {}      + uffd -----------------------> |
//    | <- command {map, snapshot} + /dev/userfaultfd, cache, runs |  a slot becomes a clone
//    | -- reply   {}      + uffd -----------------------> |
//    | <- command {count} ------------------------------- |   whenever the pager is asked for figures
//    | -- reply   {pages overwritten} ------------------> |
//
//   hello    0 magic | 4 version | 8 pid | 12 flags | 16 RAM address | 24 RAM bytes | 32 token[64] | 96 snapshot[64]
//   command  0 magic | 4 kind    | 8 uffd features   | 16 snapshot[64] | 80 avoid | 84 runs
//   reply    0 magic | 4 errno   | 8 step            | 12 0            | 16 pages overwritten
//
// The shim never speaks unasked after its hello. Either end closes on a structure it does not understand. When the
// pager goes away the shim connects again for ever, with the userfaultfd and the cache file it keeps for that.
#pragma once
#include <stdint.h>

enum ramshim_constant {
  RAMSHIM_MAGIC = 0x4d524653,  // "SFRM"
  RAMSHIM_VERSION = 2,
  RAMSHIM_TOKEN_BYTES = 64,     // 256 bits in lower-case hexadecimal, not terminated
  RAMSHIM_SNAPSHOT_BYTES = 64,  // filled up with zeros, terminated
};

// ramshim_hello.flags: which descriptors follow the RAM file, in this order.
enum ramshim_flag {
  RAMSHIM_HAS_UFFD = 1 << 0,
  RAMSHIM_IS_MAPPED = 1 << 1,  // RAM is mapped on the cache file of `snapshot`; the cache's descriptor follows
};

struct ramshim_hello {
  uint32_t magic, version, pid, flags;
  uint64_t ram_address, ram_bytes;
  char token[RAMSHIM_TOKEN_BYTES];
  char snapshot[RAMSHIM_SNAPSHOT_BYTES];
};

enum ramshim_kind {
  RAMSHIM_OPEN_UFFD = 1,  // make a userfaultfd of this process, if there is none yet, and hand it over
  RAMSHIM_MAP_CACHE = 2,  // the same; then map the cache file privately over RAM, faults of missing pages on
  RAMSHIM_COUNT = 3,      // no descriptors either way: the reply's figures
};

struct ramshim_command {
  uint32_t magic, kind;
  uint64_t uffd_features;
  char snapshot[RAMSHIM_SNAPSHOT_BYTES];
  uint32_t avoid;      // RAMSHIM_MAP_CACHE: not 0, do not fetch what a device is about to fill whole
  uint32_t run_count;  // RAMSHIM_MAP_CACHE: runs of zeros in the third file, to be memory of the process's own
};

struct ramshim_run {
  uint32_t first, count;  // pages
};

// ramshim_reply.step: the call that failed, if error_number is not 0. From RAMSHIM_STEP_MAP on the process is unusable.
enum ramshim_step {
  RAMSHIM_STEP_COMMAND = 1,
  RAMSHIM_STEP_UFFD = 2,
  RAMSHIM_STEP_UFFD_API = 3,
  RAMSHIM_STEP_MAP = 4,
  RAMSHIM_STEP_REGISTER = 5,
  RAMSHIM_STEP_PROTECT = 6,
};

struct ramshim_reply {
  uint32_t magic;
  int32_t error_number;
  uint32_t step, zero;
  uint64_t pages_overwritten;  // mapped as zeros because a device was about to fill them whole
};
