/* Preloaded into a daemon or a trainer: moves its wall clock, and lets its larger allocations fail, while the file
   named by FAULTS_CONTROL says so. The file is mapped, so that a test changes it at the instant it wants. Monotonic
   clocks are left alone, as they are when an administrator or NTP sets the time. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_offset_s; /* for every process with this file */
    int64_t largest_bytes;  /* allocations above fail; 0 is no limit */
    int64_t pid;            /* the process that `largest_bytes` is for */
};

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static volatile struct control *control;

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) control = mapped;
}

static int64_t offset_s(void) { return control ? control->clock_offset_s : 0; }

static int refused(size_t size) {
    if (!control || !control->largest_bytes || size <= (size_t)control->largest_bytes) return 0;
    return control->pid == (int64_t)getpid();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

void *malloc(size_t size) {
    if (refused(size)) { errno = ENOMEM; return NULL; }
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    if (refused(count * size)) { errno = ENOMEM; return NULL; }
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    if (refused(size)) { errno = ENOMEM; return NULL; }
    return __libc_realloc(old, size);
}
