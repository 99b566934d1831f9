/* The processes of a hierarchical clone: one on each virtual CPU, each with a vmid of its own. */
#ifndef SNOWFLOCK_HIERARCHY_H
#define SNOWFLOCK_HIERARCHY_H

/* In a clone that has `count` vmids from `first` on: forks this process count - 1 times and pins each to its virtual
 * CPU. Returns in every one, with its vmid. With a count of 1 it does nothing. */
int sf_become_processes(int first, int count);

/* Which of the clone's processes this is, from 0. */
int sf_process_index(void);

#endif
