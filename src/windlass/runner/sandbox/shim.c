/* The two ends of a box, in one small static program.
 *
 *   shim PARENT USERS SPAN BWRAP ARGS EXE CONFIG [FD...]     outside: become nobody, then bubblewrap
 *   shim CONFIG RUNNER                                       inside: process 1, which starts the program
 *
 * Outside it takes a user of its own (USERS + its process id modulo SPAN; USERS 0: keep the caller's), gives
 * it the pipes FD..., opens RUNNER, a descriptor of its PARENT, and becomes BWRAP, which reads its arguments
 * from the descriptor ARGS and runs EXE, this file, inside.
 *
 * Inside it reads what to do from the descriptor CONFIG, starts the program in its cgroup, waits for it, ends
 * whatever the program left behind, copies one file out if it is asked to, and tells all of that in lines on
 * the status pipe. The program never gets that pipe: it is closed before the program is there, and nobody in
 * the box may trace process 1, send it a signal it does not want, or look into its /proc.
 *
 * When the runner ends, process 1 does, and with it everything inside. Nobody else may end of that: were
 * bubblewrap ended while it makes the box, its child would wait for it for ever, before it is this program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NOT_STARTED = 125, NOT_EXECUTABLE = 126 };

static int status = 2;

static void tell(const char *format, ...) {
    char line[512];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (length > (int)sizeof line - 2) length = sizeof line - 2;
    line[length++] = '\n';
    /* One write: a pipe takes so few bytes whole. */
    if (write(status, line, length) < 0) _exit(NOT_STARTED);
}

static void fail(const char *what) {
    tell("fault %s: %s", what, strerror(errno));
    _exit(NOT_STARTED);
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Everything as a fresh process has it: Python ignores SIGPIPE, and its threads may block signals. */
static void reset_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
}

/* --- outside ----------------------------------------------------------------------------------------- */

static int outside(int argc, char **argv) {
    long users = atol(argv[2]), span = atol(argv[3]);
    reset_signals();
    setsid(); /* Ctrl-C is for the runner */
    umask(022);
    if (users) {
        uid_t id = users + getpid() % span;
        for (int n = 8; n < argc; n++) { /* so that /dev/stdout can be opened inside */
            struct stat found;
            int fd = atoi(argv[n]);
            if (fstat(fd, &found) == 0 && S_ISFIFO(found.st_mode) && fchown(fd, id, id) != 0) fail("fchown");
        }
        if (setgroups(0, NULL) != 0 || setresgid(id, id, id) != 0 || setresuid(id, id, id) != 0)
            fail("cannot become an unprivileged user");
    }
    int runner = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
    if (getppid() != atoi(argv[1])) return NOT_STARTED; /* and the descriptor may be another's */
    if (runner < 0 || fcntl(runner, F_SETFD, 0) != 0) fail("pidfd_open");
    char to_runner[16];
    snprintf(to_runner, sizeof to_runner, "%d", runner);
    char *arguments[] = {"bwrap", "--args", argv[5], "--", argv[6], argv[7], to_runner, NULL};
    char *nothing[] = {NULL};
    execve(argv[4], arguments, nothing);
    fail("cannot start bubblewrap");
    return NOT_STARTED;
}

/* --- inside ------------------------------------------------------------------------------------------ */

static char *text, *end;

static char *word(void) {
    if (text >= end) {
        tell("fault the configuration is cut off");
        _exit(NOT_STARTED);
    }
    char *found = text;
    text += strlen(text) + 1;
    return found;
}

static long long number(void) { return atoll(word()); }

static char **words(void) {
    int count = number();
    char **list = calloc(count + 1, sizeof *list);
    if (list == NULL) fail("calloc");
    for (int n = 0; n < count; n++) list[n] = word();
    return list;
}

static void read_config(int fd) {
    struct stat found;
    if (fstat(fd, &found) != 0) fail("fstat");
    if ((text = malloc(found.st_size + 1)) == NULL) fail("malloc");
    size_t length = 0;
    for (ssize_t got; (got = pread(fd, text + length, found.st_size - length, length)) > 0;) length += got;
    text[length] = 0;
    end = text + length;
}

/* The path of the program, looked for as a shell does; NULL where there is none. */
static char *find(char *name, char **environment) {
    static char path[PATH_MAX];
    if (strchr(name, '/')) return access(name, F_OK) == 0 ? name : NULL;
    for (; *environment; environment++) {
        if (strncmp(*environment, "PATH=", 5)) continue;
        for (char *at = *environment + 5; *at;) {
            size_t length = strcspn(at, ":");
            snprintf(path, sizeof path, "%.*s/%s", (int)length, at, name);
            if (access(path, X_OK) == 0) return path;
            at += length + (at[length] == ':');
        }
    }
    return NULL;
}

static void close_others(void) {
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0) return;
    for (int fd = 3; fd < 65536; fd++) close(fd); /* before Linux 5.9 */
}

/* Brings one regular file out. Whoever could have changed it is gone by now. */
static void fetch(const char *path, int to, long long most) {
    struct stat found;
    int from = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (from < 0 && errno == ENOENT) return tell("unfetched there is no such file");
    if (from < 0 && errno == ELOOP) return tell("unfetched it is a link");
    if (from < 0 || fstat(from, &found) != 0) return tell("unfetched it cannot be opened");
    if (!S_ISREG(found.st_mode)) return tell("unfetched it is no regular file");
    if (found.st_size > most) return tell("unfetched it has more than %lld bytes", most);
    static char buffer[1 << 16];
    long long total = 0;
    for (ssize_t got; (got = read(from, buffer, sizeof buffer)) != 0;) {
        if (got < 0) return tell("unfetched it cannot be read");
        if ((total += got) > most) return tell("unfetched it has more than %lld bytes", most);
        for (ssize_t done = 0, wrote; done < got; done += wrote)
            if ((wrote = write(to, buffer + done, got - done)) < 0) fail("cannot write what is fetched");
    }
    tell("fetched");
}

static void woken(int number) { (void)number; }

/* Waits until `process` has ended, and buries whoever else does; 0 where the runner ended first. */
static int wait_for(pid_t process, int *how, int runner, const sigset_t *awake) {
    struct pollfd found = {.fd = runner, .events = POLLIN};
    while (ppoll(&found, 1, NULL, awake) <= 0) {
        pid_t gone;
        while ((gone = waitpid(-1, how, WNOHANG)) > 0)
            if (gone == process) return 1;
        if (gone < 0) fail("waitpid");
    }
    return 0;
}

static int inside(int config, int runner) {
    read_config(config);
    status = number();
    int standard[3];
    for (int fd = 0; fd < 3; fd++) standard[fd] = number();
    char *fetched = word();
    int fetch_to = number();
    long long fetch_most = number();
    char **groups = words(), **limits = words(), **arguments = words(), **environment = words();

    if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("prctl");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, woken);
    sigset_t awake, child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &awake); /* one that comes before we wait is kept */
    sigdelset(&awake, SIGCHLD);
    char *program = find(arguments[0], environment);
    if (program == NULL) {
        tell("fault there is no program %.200s in the box", arguments[0]);
        return NOT_STARTED;
    }
    long long began = now();
    tell("started %lld", began);
    pid_t main_process = fork();
    if (main_process < 0) fail("fork");
    if (main_process == 0) {
        for (; *groups; groups++)
            if (write(atoi(*groups), "0", 1) != 1) fail("cannot join the cgroup");
        for (; limits[0] && limits[1]; limits += 2) {
            struct rlimit limit, old;
            int resource = atoi(limits[0]);
            limit.rlim_cur = limit.rlim_max = strtoull(limits[1], NULL, 10);
            if (getrlimit(resource, &old) != 0) fail("getrlimit");
            if (limit.rlim_max > old.rlim_max) limit.rlim_cur = limit.rlim_max = old.rlim_max;
            if (setrlimit(resource, &limit) != 0) fail("setrlimit");
        }
        for (int fd = 0; fd < 3; fd++)
            if (dup2(standard[fd], fd) < 0) fail("dup2");
        close_others();
        reset_signals();
        setsid();
        execve(program, arguments, environment);
        dprintf(2, "%s: %s\n", arguments[0], strerror(errno));
        _exit(NOT_EXECUTABLE);
    }
    for (int fd = 0; fd < 3; fd++) /* a reader of them must find their end */
        if (standard[fd] > 2 && standard[fd] != fetch_to) close(standard[fd]);

    int how = 0;
    if (!wait_for(main_process, &how, runner, &awake)) return NOT_STARTED;
    /* At once: what is left to do takes as long as it does, and is none of the program's time. */
    tell("over %s %d %lld", WIFSIGNALED(how) ? "signal" : "exit",
         WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how), now());
    kill(-1, SIGKILL); /* everybody but process 1 */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) continue;
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    long long spent = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec +
                      used.ru_stime.tv_usec;
    tell("buried %lld %ld", spent, used.ru_maxrss);
    if (fetch_to >= 0) fetch(fetched, fetch_to, fetch_most);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return inside(atoi(argv[1]), atoi(argv[2]));
    if (argc >= 8) return outside(argc, argv);
    dprintf(2, "shim: started by the sandbox, not by people\n");
    return 2;
}
