/* A wall clock that a test can set. It is preloaded into a redis-server. The file that CLOCK names has two numbers of microseconds:
   how far the clock is ahead of the machine's, and the time at which it stands still, or 0. The monotonic clock is left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile struct { int64_t ahead, stands; } *set;
static int (*machines)(clockid_t, struct timespec *); /* without a system call; not there yet while the process starts */

__attribute__((constructor)) static void find_clock(void) {
  const char *path = getenv("CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *set, PROT_READ, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) _exit(97);
  set = at;
  machines = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int settable = set && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE);
  int64_t us = settable ? set->stands : 0;
  if (!us) {
    int failed = machines ? machines(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    if (failed || !settable) return failed;
    us = now->tv_sec * 1000000 + now->tv_nsec / 1000 + set->ahead;
  }
  now->tv_sec = us / 1000000;
  now->tv_nsec = us % 1000000 * 1000;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec t;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &t);
  now->tv_sec = t.tv_sec;
  now->tv_usec = t.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *to) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (to) *to = t.tv_sec;
  return t.tv_sec;
}
