// A network card's frames, which QEMU reads from the tap into a buffer of its own and copies to guest RAM. A frame that
// has been split on its way is less than a page. One from a clone on the same host comes whole, up to 64 KiB, and the
// guest's network card takes it in buffers of a page each.
#include <string.h>

#include "ramshim.h"

// In glibc memcpy and memmove are one function; so the real one needs no search, which other libraries' first copies
// would come before.
INTERPOSED void *memcpy(void *to, const void *from, size_t length) {
  if (to != from) overwrite((uintptr_t)to, length);
  return memmove(to, from, length);
}
