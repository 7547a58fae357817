/* Preloaded into a daemon: whoever opens a file below the folder named by SLOW_FOLDER waits for SLOW_SECONDS, as on a
   file server that is overloaded. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void wait_for(const char *path) {
    const char *folder = getenv("SLOW_FOLDER");
    if (folder && path && strncmp(path, folder, strlen(folder)) == 0) sleep((unsigned)atoi(getenv("SLOW_SECONDS")));
}

#define OPENING(NAME)                                                              \
    int NAME(const char *path, int flags, ...) {                                   \
        va_list more;                                                              \
        va_start(more, flags);                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;    \
        va_end(more);                                                              \
        wait_for(path);                                                            \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #NAME))(path, flags, mode); \
    }

OPENING(open)
OPENING(open64)
