/*
 * A cheap client for peers that do not speak HTTP, as wrk is for those that do.
 *
 *   closed_loop PROTOCOL OPERATION PORT CONNECTIONS SECONDS COUNT
 *
 * PROTOCOL   beanstalk | amqp | redis
 * OPERATION  send: a 100-byte message, and its confirmation
 *            receive: one message, and its acknowledgement
 * SECONDS    measured seconds, or 0 to go on until COUNT operations are done
 *
 * One thread, one epoll, one operation under way on each connection. The queue "bench" is there before:
 * a durable AMQP queue, a Redis stream with the group "bench". Prints "completed=N microseconds=T".
 * Every unexpected answer ends the program with an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONTENT = 100, INPUT = 65536, OUTPUT = 4096 };

struct connection {
    int fd, index, step; /* step: 0 asks for the message, 1 acknowledges it */
    size_t filled, queued;
    uint64_t tag; /* beanstalkd's job id, AMQP's delivery tag */
    char id[48];  /* Redis's entry id */
    char input[INPUT], output[OUTPUT];
};

/* `ask` writes the next request; `answered` returns the bytes of a complete answer, 0 for more to come. */
struct protocol {
    const char *name;
    void (*greet)(struct connection *, int receiving);
    void (*ask)(struct connection *, int receiving);
    size_t (*answered)(struct connection *, int receiving);
};

static char content[CONTENT + 1];

static void fail(const char *what, const struct connection *c) {
    fprintf(stderr, "closed_loop: %s", what);
    if (c) fprintf(stderr, ": connection %d, %zu bytes: %.*s", c->index, c->filled, (int)(c->filled < 200 ? c->filled : 200), c->input);
    fprintf(stderr, "\n");
    exit(1);
}

static void put(struct connection *c, const void *bytes, size_t size) {
    if (c->queued + size > OUTPUT) fail("a request is too large", c);
    memcpy(c->output + c->queued, bytes, size);
    c->queued += size;
}

static void flush(struct connection *c) {
    size_t sent = 0;
    while (sent < c->queued) {
        ssize_t n = write(c->fd, c->output + sent, c->queued - sent);
        if (n < 0 && errno == EAGAIN) continue;
        if (n <= 0) fail("write failed", c);
        sent += (size_t)n;
    }
    c->queued = 0;
}

static int begins(const struct connection *c, const char *text) {
    size_t size = strlen(text);
    return c->filled >= size && memcmp(c->input, text, size) == 0;
}

/* The bytes up to and with the first CRLF from `start`, or 0. */
static size_t line_end(const struct connection *c, size_t start) {
    if (start >= c->filled) return 0;
    const char *end = memmem(c->input + start, c->filled - start, "\r\n", 2);
    return end ? (size_t)(end - c->input) + 2 : 0;
}

/* ---- beanstalkd: protocol.txt ---- */

static void beanstalk_greet(struct connection *c, int receiving) { (void)c; (void)receiving; }

static void beanstalk_ask(struct connection *c, int receiving) {
    char text[256];
    int size;
    if (!receiving)
        size = snprintf(text, sizeof text, "put 0 0 60 %d\r\n%s\r\n", CONTENT, content);
    else if (c->step == 0)
        size = snprintf(text, sizeof text, "reserve-with-timeout 0\r\n");
    else
        size = snprintf(text, sizeof text, "delete %lu\r\n", c->tag);
    put(c, text, (size_t)size);
}

static size_t beanstalk_answered(struct connection *c, int receiving) {
    size_t end = line_end(c, 0);
    if (!end) return 0;
    if (!receiving) {
        if (!begins(c, "INSERTED ")) fail("put", c);
        return end;
    }
    if (c->step == 1) {
        if (!begins(c, "DELETED\r\n")) fail("delete", c);
        return end;
    }
    unsigned long size;
    if (sscanf(c->input, "RESERVED %lu %lu", &c->tag, &size) != 2) fail("reserve", c);
    return c->filled >= end + size + 2 ? end + size + 2 : 0;
}

/* ---- Redis streams: RESP2 ---- */

static void redis_greet(struct connection *c, int receiving) { (void)c; (void)receiving; }

static void redis_ask(struct connection *c, int receiving) {
    char text[512];
    int size;
    if (!receiving)
        size = snprintf(text, sizeof text, "*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nm\r\n$%d\r\n%s\r\n", CONTENT, content);
    else if (c->step == 0) {
        char name[16];
        int length = snprintf(name, sizeof name, "c%d", c->index);
        size = snprintf(text, sizeof text,
                        "*9\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$5\r\nbench\r\n$%d\r\n%s\r\n$5\r\nCOUNT\r\n$1\r\n1\r\n"
                        "$7\r\nSTREAMS\r\n$5\r\nbench\r\n$1\r\n>\r\n", length, name);
    } else {
        int length = (int)strlen(c->id);
        size = snprintf(text, sizeof text,
                        "*4\r\n$4\r\nXACK\r\n$5\r\nbench\r\n$5\r\nbench\r\n$%d\r\n%s\r\n"
                        "*3\r\n$4\r\nXDEL\r\n$5\r\nbench\r\n$%d\r\n%s\r\n", length, c->id, length, c->id);
    }
    put(c, text, (size_t)size);
}

/* The end of the RESP value at `start`, or 0 while it is incomplete. */
static size_t resp_end(const struct connection *c, size_t start) {
    size_t end = line_end(c, start);
    if (!end) return 0;
    long number = atol(c->input + start + 1);
    switch (c->input[start]) {
    case ':':
    case '+':
        return end;
    case '$':
        return number < 0 ? end : (c->filled >= end + (size_t)number + 2 ? end + (size_t)number + 2 : 0);
    case '*':
        for (long i = 0; i < number && end; i++) end = resp_end(c, end);
        return end;
    default:
        fail("redis", c);
        return 0;
    }
}

static size_t redis_answered(struct connection *c, int receiving) {
    size_t end = resp_end(c, 0);
    if (!end || !receiving) return end;
    if (c->step == 1) {
        if (c->input[1] != '1') fail("XACK", c);
        return resp_end(c, end);
    }
    /* One stream, one entry: the id is the only text with a dash, "1700000000000-0". */
    const char *dash = memchr(c->input, '-', end);
    if (!dash || c->input[1] != '1') fail("XREADGROUP", c);
    const char *from = dash, *to = dash;
    while (from[-1] != '\n') from--;
    while (*to != '\r') to++;
    size_t length = (size_t)(to - from);
    if (length >= sizeof c->id) fail("an entry id", c);
    memcpy(c->id, from, length);
    c->id[length] = 0;
    return end;
}

/* ---- AMQP 0-9-1: as RabbitMQ speaks it ---- */

static void put8(struct connection *c, unsigned v) { uint8_t b = (uint8_t)v; put(c, &b, 1); }
static void put16(struct connection *c, unsigned v) { uint16_t b = htons((uint16_t)v); put(c, &b, 2); }
static void put32(struct connection *c, uint32_t v) { v = htonl(v); put(c, &v, 4); }
static void put64(struct connection *c, uint64_t v) { put32(c, (uint32_t)(v >> 32)); put32(c, (uint32_t)v); }
static void put_short(struct connection *c, const char *s) { put8(c, (unsigned)strlen(s)); put(c, s, strlen(s)); }

static size_t frame_begin(struct connection *c, unsigned type, unsigned channel) {
    put8(c, type);
    put16(c, channel);
    put32(c, 0);
    return c->queued;
}

static void frame_end(struct connection *c, size_t start) {
    uint32_t size = htonl((uint32_t)(c->queued - start));
    memcpy(c->output + start - 4, &size, 4);
    put8(c, 0xCE);
}

static size_t method_begin(struct connection *c, unsigned channel, unsigned class_, unsigned method) {
    size_t start = frame_begin(c, 1, channel);
    put16(c, class_);
    put16(c, method);
    return start;
}

static uint32_t get32(const char *at) { uint32_t v; memcpy(&v, at, 4); return ntohl(v); }

/* The size of the frame at `start`, or 0 while it is incomplete. */
static size_t frame_size(const struct connection *c, size_t start) {
    if (c->filled < start + 8) return 0;
    size_t size = get32(c->input + start + 3) + 8;
    return c->filled >= start + size ? size : 0;
}

static unsigned frame_method(const struct connection *c) { return get32(c->input + 7); }

#define METHOD(class_, method) ((unsigned)(class_) << 16 | (method))

static void amqp_expect(struct connection *c, unsigned method) {
    size_t size;
    flush(c);
    while (!(size = frame_size(c, 0))) {
        ssize_t n = read(c->fd, c->input + c->filled, INPUT - c->filled);
        if (n < 0 && errno == EAGAIN) continue;
        if (n <= 0) fail("the broker hung up", c);
        c->filled += (size_t)n;
    }
    if (frame_method(c) != method) fail("an unexpected AMQP method", c);
    memmove(c->input, c->input + size, c->filled -= size);
}

static void amqp_greet(struct connection *c, int receiving) {
    static const char login[] = "\0guest\0guest";
    size_t f;
    put(c, "AMQP\0\0\x09\x01", 8);
    amqp_expect(c, METHOD(10, 10));
    f = method_begin(c, 0, 10, 11); /* start-ok */
    put32(c, 0);
    put_short(c, "PLAIN");
    put32(c, sizeof login - 1);
    put(c, login, sizeof login - 1);
    put_short(c, "en_US");
    frame_end(c, f);
    amqp_expect(c, METHOD(10, 30));
    f = method_begin(c, 0, 10, 31); /* tune-ok: one channel, 128 KiB frames, no heartbeat */
    put16(c, 1);
    put32(c, 131072);
    put16(c, 0);
    frame_end(c, f);
    f = method_begin(c, 0, 10, 40); /* open "/" */
    put_short(c, "/");
    put16(c, 0);
    frame_end(c, f);
    amqp_expect(c, METHOD(10, 41));
    f = method_begin(c, 1, 20, 10); /* channel.open */
    put8(c, 0);
    frame_end(c, f);
    amqp_expect(c, METHOD(20, 11));
    if (!receiving) {
        f = method_begin(c, 1, 85, 10); /* confirm.select */
        put8(c, 0);
        frame_end(c, f);
        amqp_expect(c, METHOD(85, 11));
        return;
    }
    f = method_begin(c, 1, 60, 10); /* basic.qos: one unacknowledged message */
    put32(c, 0);
    put16(c, 1);
    put8(c, 0);
    frame_end(c, f);
    amqp_expect(c, METHOD(60, 11));
    f = method_begin(c, 1, 60, 20); /* basic.consume, nowait: deliveries may follow at once */
    put16(c, 0);
    put_short(c, "bench");
    put_short(c, "bench");
    put8(c, 8);
    put32(c, 0);
    frame_end(c, f);
    flush(c);
}

static void amqp_ask(struct connection *c, int receiving) {
    size_t f;
    if (receiving) {
        if (!c->tag) return; /* the first delivery comes unasked, each next one after an acknowledgement */
        f = method_begin(c, 1, 60, 80); /* basic.ack */
        put64(c, c->tag);
        put8(c, 0);
        frame_end(c, f);
        return;
    }
    f = method_begin(c, 1, 60, 40); /* basic.publish to the default exchange, mandatory */
    put16(c, 0);
    put_short(c, "");
    put_short(c, "bench");
    put8(c, 1);
    frame_end(c, f);
    f = frame_begin(c, 2, 1); /* header: delivery-mode 2 */
    put16(c, 60);
    put16(c, 0);
    put64(c, CONTENT);
    put16(c, 0x1000);
    put8(c, 2);
    frame_end(c, f);
    f = frame_begin(c, 3, 1);
    put(c, content, CONTENT);
    frame_end(c, f);
}

static size_t amqp_answered(struct connection *c, int receiving) {
    size_t size = frame_size(c, 0);
    if (!size) return 0;
    if (!receiving) {
        if (frame_method(c) != METHOD(60, 80)) fail("publish", c);
        return size;
    }
    if (frame_method(c) != METHOD(60, 60)) fail("deliver", c);
    size_t header = frame_size(c, size);
    size_t body = header ? frame_size(c, size + header) : 0;
    if (!body) return 0;
    size_t at = 11 + 1 + (uint8_t)c->input[11]; /* after the consumer tag */
    c->tag = (uint64_t)get32(c->input + at) << 32 | get32(c->input + at + 4);
    return size + header + body;
}

static const struct protocol protocols[] = {
    {"beanstalk", beanstalk_greet, beanstalk_ask, beanstalk_answered},
    {"amqp", amqp_greet, amqp_ask, amqp_answered},
    {"redis", redis_greet, redis_ask, redis_answered},
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct connection *dial(int port, int index) {
    struct connection *c = calloc(1, sizeof *c);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->index = index;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect failed", NULL);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return c;
}

int main(int argc, char **argv) {
    if (argc != 7) fail("usage: PROTOCOL OPERATION PORT CONNECTIONS SECONDS COUNT", NULL);
    const struct protocol *protocol = NULL;
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (!strcmp(argv[1], protocols[i].name)) protocol = &protocols[i];
    if (!protocol) fail("an unknown protocol", NULL);
    int receiving = !strcmp(argv[2], "receive"), port = atoi(argv[3]), connections = atoi(argv[4]);
    double seconds = atof(argv[5]);
    long count = atol(argv[6]), completed = 0;
    int two_steps = receiving && strcmp(protocol->name, "amqp");
    memset(content, 'x', CONTENT);

    int poll = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        struct connection *c = dial(port, i);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        protocol->greet(c, receiving);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
        protocol->ask(c, receiving);
        flush(c);
    }
    double started = now(), deadline = started + (seconds > 0 ? seconds : 1e9);
    struct epoll_event events[64];
    while (now() < deadline && (seconds > 0 || completed < count)) {
        int ready = epoll_wait(poll, events, 64, 10000);
        if (ready <= 0) fail("no answer in 10 s: the queue ran dry, or the server hangs", NULL);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t n = read(c->fd, c->input + c->filled, INPUT - 1 - c->filled);
            if (n < 0 && errno == EAGAIN) continue;
            if (n <= 0) fail("the server hung up", c);
            c->filled += (size_t)n;
            size_t used = protocol->answered(c, receiving);
            if (!used) continue;
            memmove(c->input, c->input + used, c->filled -= used);
            if (two_steps && c->step == 0) {
                c->step = 1;
            } else {
                c->step = 0;
                completed++;
            }
            protocol->ask(c, receiving);
            flush(c);
        }
    }
    printf("completed=%ld microseconds=%.0f\n", completed, (now() - started) * 1e6);
    return 0;
}
