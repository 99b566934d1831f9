#define _GNU_SOURCE
#include "clinux_process.h"

#include <sched.h>
#include <sys/prctl.h>

int clinux_unshare_mounts(void) { return unshare(CLONE_NEWNS); }

int clinux_set_subreaper(int on) { return prctl(PR_SET_CHILD_SUBREAPER, on, 0, 0, 0); }
