#define _GNU_SOURCE
#include <sys/prctl.h>

#include "clinux.h"

int clinux_set_thread_name(const char *name) { return prctl(PR_SET_NAME, name); }
