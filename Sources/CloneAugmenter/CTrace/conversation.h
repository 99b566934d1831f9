/* The conversation with the guest's agent, from libsnowflock's own sources: sf-offload has several under way at once,
 * each with a time limit, and so polls their descriptors itself. */
#ifndef CTRACE_CONVERSATION_H
#define CTRACE_CONVERSATION_H

#include "connection.h"

#endif
