/*
 * Makes the disk under a Postgres server slow, as a cloud volume is, above all one that has spent its IOPS. Preloaded into the
 * server; told what to do through a shared file of 32-bit words:
 *
 *   0  microseconds added to each fsync and fdatasync
 *   1  microseconds added to each write that makes a table or an index longer
 *   2  microseconds added to the next such write only
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SYNC, EXTEND, EXTEND_ONCE };

static volatile uint32_t *words;

__attribute__((constructor)) static void open_words(void)
{
    const char *path = getenv("SLOW_DISK");
    int fd = path ? open(path, O_RDWR) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        words = mapped;
}

static void wait_for(uint32_t microseconds)
{
    struct timespec left = {microseconds / 1000000, microseconds % 1000000 * 1000L};
    while (microseconds && nanosleep(&left, &left) != 0)
        ;
}

/* Whether the file holds a table or an index, but for their maps of free and visible pages. */
static int is_relation(int fd)
{
    char link[32], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, "/base/") && !strstr(path, "_fsm") && !strstr(path, "_vm");
}

static void before_write(int fd, off_t offset)
{
    struct stat file;
    if (!words || !(words[EXTEND] | words[EXTEND_ONCE]) || fstat(fd, &file) != 0 || offset < file.st_size || !is_relation(fd))
        return;
    uint32_t once = __atomic_exchange_n(&words[EXTEND_ONCE], 0, __ATOMIC_SEQ_CST);
    wait_for(once ? once : words[EXTEND]);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SLOW_SYNC(name) \
    int name(int fd) \
    { \
        static __typeof__(&name) real; \
        if (!real) \
            real = REAL(name); \
        if (words) \
            wait_for(words[SYNC]); \
        return real(fd); \
    }
#define SLOW_WRITE(name, data, length) \
    ssize_t name(int fd, data bytes, length count, off_t offset) \
    { \
        static __typeof__(&name) real; \
        if (!real) \
            real = REAL(name); \
        before_write(fd, offset); \
        return real(fd, bytes, count, offset); \
    }

SLOW_SYNC(fsync)
SLOW_SYNC(fdatasync)
SLOW_WRITE(pwrite, const void *, size_t)
SLOW_WRITE(pwrite64, const void *, size_t)
SLOW_WRITE(pwritev, const struct iovec *, int)
SLOW_WRITE(pwritev64, const struct iovec *, int)
