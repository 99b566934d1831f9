#define _GNU_SOURCE
#include "clinux_process.h"

#include <sched.h>
#include <sys/prctl.h>

int clinux_unshare_mounts(void) { return unshare(CLONE_NEWNS); }

int clinux_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }
