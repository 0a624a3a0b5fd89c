// Tasks in parallel, on the thread pool that torch already runs where it can be had.
//
// torch's pool is libgomp; its entry point is handed over at load time, so that our tasks and torch's own
// loops never compete with two pools. Without it, threads are made for the call.
#pragma once
#include <pthread.h>
#include <stdint.h>

typedef void (*task_fn)(void *arguments, int64_t task, void *scratch);
typedef void (*pool_fn)(void (*body)(void *), void *argument, unsigned threads, unsigned flags);

void nightread_use_pool(pool_fn pool);

// Runs task 0 .. count-1, each thread with scratch_bytes of its own. Returns 0, or 1 without memory.
int parallel_tasks(task_fn run, void *arguments, int64_t count, int threads, size_t scratch_bytes);
