#include "parallel.h"

#include <stdlib.h>

#define MOST_THREADS 256

static pool_fn pool_entry = 0;

void nightread_use_pool(pool_fn pool) { pool_entry = pool; }

struct work {
  task_fn run;
  void *arguments;
  int64_t count, next;
  size_t scratch_bytes;
  int failed;
};

static void drain(void *argument) {
  struct work *work = argument;
  void *scratch = 0;
  if (work->scratch_bytes && posix_memalign(&scratch, 64, work->scratch_bytes)) {
    __atomic_store_n(&work->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  for (;;) {
    int64_t task = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
    if (task >= work->count) break;
    work->run(work->arguments, task, scratch);
  }
  free(scratch);
}

static void *thread_main(void *argument) {
  drain(argument);
  return 0;
}

int parallel_tasks(task_fn run, void *arguments, int64_t count, int threads, size_t scratch_bytes) {
  struct work work = {run, arguments, count, 0, scratch_bytes, 0};
  if (threads > count) threads = (int)count;
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  if (threads <= 1) {
    drain(&work);
  } else if (pool_entry) {
    pool_entry(drain, &work, (unsigned)threads, 0);
  } else {
    pthread_t made[MOST_THREADS];
    int running = 0;
    while (running < threads - 1 && !pthread_create(&made[running], 0, thread_main, &work)) running++;
    drain(&work);
    for (int i = 0; i < running; i++) pthread_join(made[i], 0);
  }
  return work.failed;
}
