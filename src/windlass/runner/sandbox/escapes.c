/* What a hostile program would try: `escapes NAME [ARGUMENT]`, run inside a box by the doctor.
 *
 * It exits with 0 where the attempt came to nothing, with 1 where it did not, and then says what it got.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int got(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    putchar('\n');
    fflush(stdout);
    _exit(1);
}

static void must_not_open(const char *path, int flags) {
    int fd = open(path, flags | O_NONBLOCK);
    if (fd >= 0) got("%s can be opened%s", path, flags & (O_WRONLY | O_RDWR) ? " for writing" : "");
}

static void must_fail(const char *what, long result) {
    if (result >= 0) got("%s works", what);
}

/* Fills `text` with a file, ended with a NUL; its length, 0 where it cannot be read. */
static ssize_t slurp(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY);
    ssize_t length = fd < 0 ? 0 : read(fd, text, size - 1);
    if (fd >= 0) close(fd);
    if (length < 0) length = 0;
    text[length] = 0;
    return length;
}

/* --- files ------------------------------------------------------------------------------------------- */

static int files(const char *unused) {
    (void)unused;
    const char *paths[] = {"/etc/shadow", "/etc/passwd", "/root", "/home", "/var", "/run", "/opt", "/srv",
                           "/sys", "/boot", "/mnt", "/proc/1/root/etc/shadow", "/proc/1/cwd/..", NULL};
    for (int n = 0; paths[n]; n++) must_not_open(paths[n], O_RDONLY);
    return 0;
}

static int elsewhere(const char *unused) {
    (void)unused;
    const char *places[] = {"/", "/usr", "/usr/bin", "/etc", "/dev", "/dev/shm", "/proc", "/var/tmp", "/run", NULL};
    for (int n = 0; places[n]; n++) {
        char path[256];
        snprintf(path, sizeof path, "%s/made-by-escapes", places[n]);
        must_not_open(path, O_WRONLY | O_CREAT);
    }
    must_not_open("/usr/bin/env", O_WRONLY);
    return 0;
}

static int kernel_settings(const char *unused) {
    (void)unused;
    const char *paths[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
                           "/proc/sys/user/max_user_namespaces", "/proc/sysrq-trigger", NULL};
    for (int n = 0; paths[n]; n++) must_not_open(paths[n], O_WRONLY);
    return 0;
}

static int devices(const char *unused) {
    (void)unused;
    const char *paths[] = {"/dev/mem", "/dev/kmsg", "/dev/tty", "/dev/ptmx", "/dev/fuse", "/dev/kvm",
                           "/dev/vda", "/dev/sda", "/dev/nvme0n1", NULL};
    for (int n = 0; paths[n]; n++) must_not_open(paths[n], O_RDONLY);
    must_fail("mknod", mknod("memory", S_IFCHR | 0600, makedev(1, 1)));
    must_fail("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    return 0;
}

static int fill(const char *limit) {
    static char block[65536];
    memset(block, 1, sizeof block);
    long long total = 0;
    int fd = open("filling", O_WRONLY | O_CREAT, 0600);
    for (ssize_t wrote; (wrote = write(fd, block, sizeof block)) > 0;)
        if ((total += wrote) > atoll(limit) + 4 * 4096) got("more than %s bytes can be written", limit);
    return errno == ENOSPC ? 0 : got("writing ends with %s", strerror(errno));
}

static int link_out(const char *unused) {
    (void)unused;
    return symlink("/proc/1/environ", "out") == 0 ? 0 : got("symlink: %s", strerror(errno));
}

/* --- namespaces and rights ----------------------------------------------------------------------------- */

static int namespaces(const char *hosts) {
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", hosts); /* pid:[4026531836],net:[...],... */
    for (char *each = strtok(copy, ","); each; each = strtok(NULL, ",")) {
        char path[64], name[32], found[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(each, ":"), each);
        snprintf(path, sizeof path, "/proc/self/ns/%s", name);
        ssize_t length = readlink(path, found, sizeof found - 1);
        found[length < 0 ? 0 : length] = 0;
        if (strcmp(found, each) == 0) got("it is in the host's %s namespace", name);
    }
    return 0;
}

/* Writes to the doctor's socket, which tells him who does. */
static int user(const char *unused) {
    (void)unused;
    return write(0, "x", 1) == 1 ? 0 : got("the socket cannot be written to: %s", strerror(errno));
}

static int rights(const char *unused) {
    (void)unused;
    char status[8192];
    slurp("/proc/self/status", status, sizeof status);
    const char *names[] = {"CapInh:", "CapPrm:", "CapEff:", "CapAmb:", NULL};
    for (int n = 0; names[n]; n++) {
        char *line = strstr(status, names[n]);
        if (line && strtoull(line + strlen(names[n]), NULL, 16)) got("it has capabilities, %.24s", line);
    }
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) got("set-uid programs give it rights");
    struct statvfs found;
    if (statvfs("/usr", &found) != 0 || !(found.f_flag & ST_NOSUID)) got("/usr has set-uid programs");
    if (setuid(0) == 0) got("it can become root");
    return 0;
}

static int nesting(const char *unused) {
    (void)unused;
    must_fail("unshare(CLONE_NEWUSER)", syscall(SYS_unshare, CLONE_NEWUSER));
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    must_fail("clone(CLONE_NEWUSER)", child);
    uint64_t arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    child = syscall(SYS_clone3, arguments, sizeof arguments);
    if (child == 0) _exit(0);
    must_fail("clone3(CLONE_NEWUSER)", child);
    return 0;
}

static int mounts(const char *unused) {
    (void)unused;
    must_fail("mount", mount("none", "/box", "tmpfs", 0, NULL));
    must_fail("remounting /usr", mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
    must_fail("umount", umount2("/proc", MNT_DETACH));
    must_fail("chroot", chroot("/box"));
    must_fail("pivot_root", syscall(SYS_pivot_root, "/box", "/box"));
    must_fail("fsopen", syscall(430, "tmpfs", 0));
    must_fail("open_tree", syscall(428, -100, "/", 1));
    return 0;
}

static int system_calls(const char *unused) {
    (void)unused;
    char zeros[256] = {0};
    must_fail("io_uring_setup", syscall(425, 1, zeros));
    must_fail("bpf", syscall(SYS_bpf, 5, zeros, 72));
    must_fail("perf_event_open", syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0));
    must_fail("userfaultfd", syscall(SYS_userfaultfd, 1));
    must_fail("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    must_fail("add_key", syscall(SYS_add_key, "user", "x", "x", 1, -3));
    must_fail("name_to_handle_at", syscall(SYS_name_to_handle_at, -100, "/", zeros, zeros, 0));
    must_fail("personality", syscall(SYS_personality, 0x0040000));
    if (prctl(PR_GET_SECCOMP) != 2) got("there is no filter of system calls");
    return 0;
}

/* --- processes ----------------------------------------------------------------------------------------- */

static int others(const char *unused) {
    (void)unused;
    DIR *directory = opendir("/proc");
    if (directory == NULL) return 0;
    for (struct dirent *each; (each = readdir(directory));) {
        int process = atoi(each->d_name);
        if (process > 1 && process != getpid()) got("process %d is to be seen", process);
    }
    return 0;
}

static int first(const char *unused) {
    (void)unused;
    must_not_open("/proc/1/environ", O_RDONLY);
    must_not_open("/proc/1/mem", O_RDONLY);
    must_not_open("/proc/1/fd", O_RDONLY);
    must_not_open("/proc/1/maps", O_RDONLY);
    char line[4096];
    ssize_t length = slurp("/proc/1/cmdline", line, sizeof line);
    for (ssize_t at = 0; at < length; at += strlen(line + at) + 1)
        if (line[at] == '/' && strncmp(line + at, "/proc/self/fd/", 14) && strcmp(line + at, "/shim"))
            got("the command line of process 1 tells %s", line + at);
    struct iovec own = {line, 8}, theirs = {(void *)0x400000, 8};
    must_fail("process_vm_readv", process_vm_readv(1, &own, 1, &theirs, 1, 0));
    must_fail("ptrace", ptrace(PTRACE_SEIZE, 1, 0, 0));
    int process = syscall(434, 1, 0); /* pidfd_open */
    must_fail("pidfd_getfd", syscall(438, process, 1, 0));
    struct rlimit none = {0, 0};
    must_fail("prlimit", prlimit(1, RLIMIT_CPU, &none, NULL));
    return 0;
}

static int killing(const char *unused) {
    (void)unused;
    for (int number = 1; number < NSIG; number++) kill(1, number);
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
    for (int process = 2; process < 40000; process++)
        if (process != getpid() && kill(process, SIGKILL) == 0) got("it ended process %d", process);
    return 0; /* and the box is there to say so */
}

static int forks(const char *limit) {
    int count = 1, most = atoi(limit);
    for (; count <= 4 * most; count++) {
        pid_t child = fork();
        if (child == 0) {
            setsid();
            pause();
        }
        if (child < 0) break;
    }
    return count > most ? got("%d processes at one time", count) : 0;
}

static int orphan(const char *unused) {
    (void)unused;
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            for (int number = 1; number < NSIG; number++) signal(number, SIG_IGN);
            for (int fd = 1; fd < 100; fd++) close(fd); /* but not stdin, by which the doctor sees it */
            for (;;) pause();
        }
    }
    return 0;
}

static int memory(const char *processes) {
    for (int more = atoi(processes) - 1; more > 0; more--)
        if (fork() == 0) break;
    for (int n = 0; n < 4096; n++) {
        char *block = malloc(1 << 20);
        if (block == NULL) break;
        memset(block, n + 1, 1 << 20);
        usleep(100);
    }
    while (wait(NULL) > 0) continue;
    return got("4 GiB of memory");
}

static void burn(double seconds) {
    struct timespec spent;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    while (spent.tv_sec + spent.tv_nsec / 1e9 < seconds);
}

/* Burns time in processes that nobody waits for. */
static int burning(const char *unused) {
    (void)unused;
    signal(SIGCHLD, SIG_IGN);
    for (int n = 0; n < 200; n++) {
        if (fork() == 0) {
            burn(0.05);
            _exit(0);
        }
        usleep(50000);
    }
    return got("10 s of processor time");
}

static int sleeping(const char *unused) {
    (void)unused;
    signal(SIGTERM, SIG_IGN);
    sleep(1000);
    return got("1,000 s");
}

/* --- the network, and pipes ---------------------------------------------------------------------------- */

static int network(const char *unused) {
    (void)unused;
    struct { int family; const char *name; } families[] = {
        {AF_INET, "IPv4"}, {AF_INET6, "IPv6"}, {AF_NETLINK, "netlink"}, {AF_PACKET, "packets"},
        {AF_VSOCK, "the hypervisor"}, {AF_ALG, "the kernel's ciphers"}, {AF_BLUETOOTH, "Bluetooth"}};
    for (size_t n = 0; n < sizeof families / sizeof *families; n++) {
        int fd = socket(families[n].family, families[n].family == AF_PACKET ? SOCK_RAW : SOCK_STREAM, 0);
        if (fd < 0) fd = socket(families[n].family, SOCK_RAW, 0);
        if (fd >= 0) got("a socket for %s", families[n].name);
    }
    char devices[4096];
    slurp("/proc/self/net/dev", devices, sizeof devices);
    if (strstr(devices, "eth") || strstr(devices, "enp") || strstr(devices, "wl")) got("a network device");
    return 0;
}

static int host_socket(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    must_fail("connecting to the host's abstract socket",
              connect(fd, (void *)&address, sizeof(sa_family_t) + 1 + strlen(name)));
    return 0;
}

static int flood(const char *descriptor) {
    static char block[65536];
    memset(block, 'x', sizeof block);
    for (long n = 0; n < (100L << 30) / (long)sizeof block; n++)
        if (write(atoi(descriptor), block, sizeof block) < 0) return 0;
    return got("100 GiB of output");
}

static int murmur(const char *unused) {
    (void)unused;
    static char block[65536];
    for (int n = 0; n < 256; n++)
        if (write(2, block, sizeof block) < 0) got("stderr is not read to its end");
    return 0;
}

static int victim(const char *unused) {
    (void)unused;
    char byte;
    puts("here");
    fflush(stdout);
    return read(0, &byte, 1) == 0 ? 0 : 1;
}

static const struct { const char *name; int (*try)(const char *); } TABLE[] = {
    {"files", files}, {"elsewhere", elsewhere}, {"kernel_settings", kernel_settings}, {"devices", devices},
    {"fill", fill}, {"link_out", link_out}, {"namespaces", namespaces}, {"user", user}, {"rights", rights},
    {"nesting", nesting}, {"mounts", mounts}, {"system_calls", system_calls}, {"others", others},
    {"first", first}, {"killing", killing}, {"forks", forks}, {"orphan", orphan}, {"memory", memory},
    {"burning", burning}, {"sleeping", sleeping}, {"network", network}, {"host_socket", host_socket},
    {"flood", flood}, {"murmur", murmur}, {"victim", victim},
};

int main(int argc, char **argv) {
    for (size_t n = 0; argc > 1 && n < sizeof TABLE / sizeof *TABLE; n++)
        if (strcmp(argv[1], TABLE[n].name) == 0) return TABLE[n].try(argc > 2 ? argv[2] : "");
    dprintf(2, "escapes: started by windlass doctor\n");
    return 2;
}
