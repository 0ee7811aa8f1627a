/* A disk that can lose power, fill up or fail, for one process and one directory.
 *
 * Loaded with LD_PRELOAD. Whatever the process does to files under POWERCUT_ROOT is carried out and then
 * recorded, data included, in the file POWERCUT_LOG. The test replays that log to build a directory that a
 * power cut could have left (disk.py), so what is durable is decided there and not here.
 *
 * POWERCUT_CONTROL names a page shared with the test. Through it the test fills the disk, makes fsync or
 * write fail, makes the directory read-only, moves the wall clock, or cuts the power (SIGKILL) just before
 * the n-th change. What this library cannot record (a writable mapping, a hard link) it records as
 * UNSEEN, and the replay refuses to go on.
 *
 * fsync does not reach the real disk: the page cache survives SIGKILL, and the log says what was synced.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The page shared with the test. disk.py packs the same fields in the same order. */
struct control {
    int64_t operations;  /* changes and syncs seen so far; written here, read by the test */
    int64_t cut_at;      /* SIGKILL before this operation; 0: never */
    int64_t room;        /* bytes by which files may still grow; -1: no limit */
    int64_t clock_shift; /* nanoseconds added to the wall clock */
    int64_t sync_delay;  /* microseconds that every sync takes */
    int64_t sync_errno;  /* every sync fails with it; 0: none */
    int64_t write_errno; /* every write fails with it; 0: none */
    int64_t read_only;   /* every change fails with EROFS */
    uint64_t sequence;   /* of the last record: one for the process and its children */
};

/* A record of the log; `bytes` bytes follow: the data of a write, or a path (two with a NUL between). */
struct record {
    uint32_t kind;
    uint32_t bytes;
    uint64_t sequence;
    uint64_t inode;
    uint64_t position; /* write: offset. truncate: size. sync: the sequence number when it began */
};

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FAILED, RENAME, UNLINK, MKDIR, RMDIR, UNSEEN };

static struct control quiet = {.room = -1};
static volatile struct control *control = &quiet;
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...)                                 \
    static result (*real)(__VA_ARGS__);                         \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t real_pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return real(fd, data, length, offset);
}

static int real_openat(int directory, const char *path, int flags, mode_t mode) {
    REAL(int, "openat64", int, const char *, int, ...);
    return real(directory, path, flags, mode);
}

static void take(void) { pthread_mutex_lock(&lock); }

static void give(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void start(void) {
    pthread_atfork(take, give, give); /* or a child could find it taken for ever */
    const char *name = getenv("POWERCUT_CONTROL");
    if (name) {
        int fd = real_openat(AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
        void *page = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || page == MAP_FAILED) abort();
        close(fd);
        control = page;
    }
    name = getenv("POWERCUT_ROOT");
    if (!name) return;
    if (!realpath(name, root)) abort();
    root_length = strlen(root);
    name = getenv("POWERCUT_LOG");
    if (!name) return;
    int fd = real_openat(AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900); /* out of the way of the program's own numbers */
    if (log_fd < 0) abort();
    close(fd);
}

static int within(const char *path) {
    return root_length && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || !path[root_length]);
}

/* The absolute path of something that need not exist, its folder without symbolic links. 0 if outside. */
static int resolve(int directory, const char *path, char *out) {
    char full[2 * PATH_MAX], folder[PATH_MAX];
    if (!root_length || !path || !*path || strlen(path) >= PATH_MAX) return 0;
    if (*path == '/') {
        strcpy(full, path);
    } else {
        char link[64];
        snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, full, PATH_MAX - 1);
        if (length < 0) return 0;
        snprintf(full + length, sizeof full - (size_t)length, "/%s", path);
    }
    for (size_t end = strlen(full); end > 1 && full[end - 1] == '/'; end--) full[end - 1] = 0;
    char *slash = strrchr(full, '/');
    const char *name = slash + 1;
    *slash = 0;
    if (!realpath(*full ? full : "/", folder)) return 0;
    if (strlen(folder) + strlen(name) + 2 > PATH_MAX) return 0;
    int written = snprintf(out, PATH_MAX, "%s/%s", strcmp(folder, "/") ? folder : "", name);
    return written > 0 && written < PATH_MAX && within(out);
}

/* Whether the descriptor is a file or folder under the root; remembered until its number gets another inode. */
static int watched(int fd, struct stat *status) {
    static struct { dev_t device; ino_t inode; int yes; } known[65536];
    if (!root_length || fd < 0 || fd >= 65536 || fd == log_fd || fstat(fd, status)) return 0;
    if (!S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode)) return 0;
    if (known[fd].inode != status->st_ino || known[fd].device != status->st_dev) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length < 0) return 0;
        path[length] = 0;
        known[fd].yes = within(path);
        known[fd].device = status->st_dev;
        known[fd].inode = status->st_ino;
    }
    return known[fd].yes;
}

static void write_record(enum kind kind, ino_t inode, uint64_t position, const struct iovec *data, int count,
                         size_t bytes) {
    if (log_fd < 0) return;
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    uint64_t sequence = __atomic_add_fetch(&control->sequence, 1, __ATOMIC_SEQ_CST);
    struct record head = {kind, (uint32_t)bytes, sequence, inode, position};
    struct iovec parts[IOV_MAX];
    size_t left = bytes;
    int used = 0;
    parts[used++] = (struct iovec){&head, sizeof head};
    for (int i = 0; i < count && left && used < IOV_MAX; i++) {
        size_t take = data[i].iov_len < left ? data[i].iov_len : left;
        parts[used++] = (struct iovec){data[i].iov_base, take};
        left -= take;
    }
    if (left || real(log_fd, parts, used) != (ssize_t)(sizeof head + bytes)) abort();
}

static void record_path(enum kind kind, ino_t inode, const char *path, size_t bytes) {
    struct iovec data = {(void *)path, bytes};
    write_record(kind, inode, 0, &data, 1, bytes);
}

static void unseen(const char *what) {
    pthread_mutex_lock(&lock);
    record_path(UNSEEN, 0, what, strlen(what));
    pthread_mutex_unlock(&lock);
}

/* Count one operation, and cut the power if it is the one. */
static void step(void) {
    int64_t now = __atomic_add_fetch(&control->operations, 1, __ATOMIC_SEQ_CST);
    if (control->cut_at && now >= control->cut_at) kill(getpid(), SIGKILL);
}

static int fail(int code) {
    errno = code;
    return -1;
}

/* ---- opening ---- */

static int do_open(int directory, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) || !resolve(directory, path, full))
        return real_openat(directory, path, flags, mode);
    if (control->read_only) return fail(EROFS);
    pthread_mutex_lock(&lock);
    int existed = !faccessat(directory, path, F_OK, 0);
    if (!existed || (flags & O_TRUNC)) step();
    int fd = real_openat(directory, path, flags, mode);
    int saved = errno;
    struct stat status;
    if (fd >= 0 && !fstat(fd, &status) && S_ISREG(status.st_mode)) {
        if (!existed)
            record_path(CREATE, status.st_ino, full, strlen(full));
        else if (flags & O_TRUNC)
            write_record(TRUNCATE, status.st_ino, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define OPENS(name, ...)                                         \
    int name(__VA_ARGS__, int flags, ...) {                      \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);
OPENS(open, const char *path) return do_open(AT_FDCWD, path, flags, mode); }
OPENS(open64, const char *path) return do_open(AT_FDCWD, path, flags, mode); }
OPENS(openat, int directory, const char *path) return do_open(directory, path, flags, mode); }
OPENS(openat64, int directory, const char *path) return do_open(directory, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* A stream keeps its buffer, which stays empty: see fwrite. Its mode in letters is the flags in words. */
FILE *fopen64(const char *path, const char *mode) {
    REAL(FILE *, "fopen64", const char *, const char *);
    char full[PATH_MAX];
    int flags = strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
    if (flags == O_RDONLY || !resolve(AT_FDCWD, path, full)) return real(path, mode);
    if (*mode != 'r') flags |= O_CREAT | (*mode == 'a' ? O_APPEND : O_TRUNC);
    int fd = do_open(AT_FDCWD, path, flags | (strchr(mode, 'e') ? O_CLOEXEC : 0), 0666);
    return fd < 0 ? NULL : fdopen(fd, mode);
}

FILE *fopen(const char *path, const char *mode) { return fopen64(path, mode); }

/* ---- writing ---- */

/* The bytes, of `length` at `offset`, for which the disk has room; and what the file then grows by. */
static size_t fits(const struct stat *status, off_t offset, size_t length, int64_t *growth) {
    int64_t over = offset + (int64_t)length - status->st_size, room = control->room;
    *growth = over > 0 ? over : 0;
    if (room < 0 || *growth <= room) return length;
    int64_t kept = (int64_t)length - (*growth - room);
    *growth = room;
    return kept > 0 ? (size_t)kept : 0;
}

/* `offset` -1: at the descriptor's own position, which moves on. Returns -2 if it is not watched. */
static ssize_t do_write(int fd, const struct iovec *data, int count, off_t offset) {
    struct stat status;
    if (!watched(fd, &status)) return -2;
    if (control->read_only) return fail(EROFS);
    if (control->write_errno) return fail((int)control->write_errno);
    pthread_mutex_lock(&lock);
    step();
    size_t total = 0, done = 0;
    for (int i = 0; i < count; i++) total += data[i].iov_len;
    int moves = offset < 0, appends = fcntl(fd, F_GETFL) & O_APPEND;
    fstat(fd, &status);
    if (appends) offset = status.st_size;
    else if (moves) offset = lseek(fd, 0, SEEK_CUR);
    int64_t growth;
    size_t room = fits(&status, offset, total, &growth);
    for (int i = 0; i < count && done < room; i++) {
        size_t part = data[i].iov_len < room - done ? data[i].iov_len : room - done;
        ssize_t written = real_pwrite(fd, data[i].iov_base, part, offset + (off_t)done);
        if (written < 0) break;
        done += (size_t)written;
        if ((size_t)written < part) break;
    }
    int saved = done < room ? errno : ENOSPC;
    if (done) write_record(WRITE, status.st_ino, (uint64_t)offset, data, count, done);
    if (done && control->room >= 0) control->room -= growth;
    if (moves) lseek(fd, offset + (off_t)done, SEEK_SET);
    pthread_mutex_unlock(&lock);
    if (!done && total) return fail(saved);
    return (ssize_t)done;
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    struct iovec part = {(void *)data, length};
    ssize_t result = do_write(fd, &part, 1, -1);
    return result == -2 ? real(fd, data, length) : result;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    struct iovec part = {(void *)data, length};
    ssize_t result = do_write(fd, &part, 1, offset);
    return result == -2 ? real_pwrite(fd, data, length, offset) : result;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return pwrite64(fd, data, length, offset);
}

ssize_t writev(int fd, const struct iovec *data, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    ssize_t result = do_write(fd, data, count, -1);
    return result == -2 ? real(fd, data, count) : result;
}

ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t offset) {
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off64_t);
    ssize_t result = do_write(fd, data, count, offset);
    return result == -2 ? real(fd, data, count, offset) : result;
}

ssize_t pwritev(int fd, const struct iovec *data, int count, off_t offset) {
    return pwritev64(fd, data, count, offset);
}

/* The C library writes a stream's buffer past this library, so what goes to a watched file goes at once. */
size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    struct stat status;
    int fd = fileno(stream);
    if (!watched(fd, &status)) return real(data, size, count, stream);
    size_t total = size * count, done = 0;
    while (done < total) {
        ssize_t written = write(fd, (const char *)data + done, total - done);
        if (written < 0) break;
        done += (size_t)written;
    }
    return done == total ? count : done / size;
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    struct stat status;
    if (!watched(fd, &status)) return real(fd, size);
    if (control->read_only) return fail(EROFS);
    pthread_mutex_lock(&lock);
    step();
    int result = real(fd, size); /* longer is a hole, which takes no room */
    int saved = errno;
    if (!result) write_record(TRUNCATE, status.st_ino, (uint64_t)size, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int truncate64(const char *path, off64_t size) {
    REAL(int, "truncate64", const char *, off64_t);
    char full[PATH_MAX];
    if (!resolve(AT_FDCWD, path, full)) return real(path, size);
    int fd = do_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, size), saved = errno;
    close(fd);
    errno = saved;
    return result;
}

int truncate(const char *path, off_t size) { return truncate64(path, size); }

/* ---- syncing ---- */

static int do_sync(int fd, int *result) {
    struct stat status;
    if (!watched(fd, &status)) return 0;
    pthread_mutex_lock(&lock);
    step();
    uint64_t began = control->sequence;
    pthread_mutex_unlock(&lock);
    if (control->sync_delay) usleep((useconds_t)control->sync_delay);
    int code = (int)control->sync_errno;
    pthread_mutex_lock(&lock);
    write_record(code ? SYNC_FAILED : SYNC, status.st_ino, began, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    *result = code ? fail(code) : 0;
    return 1;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    int result;
    return do_sync(fd, &result) ? result : real(fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    int result;
    return do_sync(fd, &result) ? result : real(fd);
}

/* ---- directory entries ---- */

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    char old[PATH_MAX], new[PATH_MAX];
    int leaves = resolve(from_directory, from, old), arrives = resolve(to_directory, to, new);
    if (!leaves && !arrives) return real(from_directory, from, to_directory, to);
    if (control->read_only) return fail(EROFS);
    if (leaves != arrives) unseen("a rename across the edge of the directory");
    pthread_mutex_lock(&lock);
    step();
    struct stat status = {0};
    fstatat(from_directory, from, &status, AT_SYMLINK_NOFOLLOW);
    int result = real(from_directory, from, to_directory, to), saved = errno;
    if (!result && leaves && arrives) {
        char both[2 * PATH_MAX];
        size_t first = strlen(old) + 1, second = strlen(new);
        memcpy(both, old, first);
        memcpy(both + first, new, second);
        record_path(S_ISDIR(status.st_mode) ? UNSEEN : RENAME, status.st_ino, both, first + second);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char full[PATH_MAX];
    if (!resolve(directory, path, full)) return real(directory, path, flags);
    if (control->read_only) return fail(EROFS);
    pthread_mutex_lock(&lock);
    step();
    int result = real(directory, path, flags), saved = errno;
    if (!result) record_path(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, full, strlen(full));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int directory, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    char full[PATH_MAX];
    if (!resolve(directory, path, full)) return real(directory, path, mode);
    if (control->read_only) return fail(EROFS);
    pthread_mutex_lock(&lock);
    step();
    int result = real(directory, path, mode), saved = errno;
    struct stat status;
    if (!result && !fstatat(directory, path, &status, 0)) record_path(MKDIR, status.st_ino, full, strlen(full));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- what is not recorded ---- */

/* SQLite's -shm is shared memory that it builds anew after a crash; any other writable mapping is news. */
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    REAL(void *, "mmap64", void *, size_t, int, int, int, off64_t);
    struct stat status;
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && watched(fd, &status)) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t size = readlink(link, path, sizeof path - 1);
        if (size < 4 || memcmp(path + size - 4, "-shm", 4)) unseen("a writable mapping");
    }
    return real(address, length, protection, flags, fd, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap64(address, length, protection, flags, fd, offset);
}

int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char full[PATH_MAX];
    if (resolve(to_directory, to, full)) unseen("a hard link");
    return real(from_directory, from, to_directory, to, flags);
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    REAL(int, "posix_fallocate64", int, off64_t, off64_t);
    struct stat status;
    if (watched(fd, &status)) unseen("posix_fallocate");
    return real(fd, offset, length);
}

/* ---- the wall clock ---- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(clock, now);
    int64_t shift = control->clock_shift;
    if (result || !shift || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
    int64_t nanoseconds = now->tv_nsec + shift % 1000000000;
    now->tv_sec += shift / 1000000000 + (nanoseconds >= 1000000000) - (nanoseconds < 0);
    now->tv_nsec = (nanoseconds + 1000000000) % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
