/* The floor of a WebSocket load client: what N OpenEnv sessions cost in C, one epoll thread.
 *
 *   cc -O2 -o ws_floor ws_floor.c && ./ws_floor N WAIT PORT [HANDSHAKES_IN_FLIGHT]
 *
 * Each session connects to 127.0.0.1, upgrades at /ws, resets, steps once (wait_seconds = WAIT) and closes. Nothing is
 * measured or recorded and no reply is understood: it is the least that a client can do. Prints one JSON line:
 * successes, failures, wall and CPU seconds, CPU microseconds per session, peak resident MiB.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, UPGRADING, RESETTING, STEPPING, CLOSING };

typedef struct {
  int fd;
  int state;
} Session;

static const char UPGRADE[] =
    "GET /ws HTTP/1.1\r\n"
    "Host: 127.0.0.1\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n";
static const unsigned char CLOSE_FRAME[6] = {0x88, 0x80};

static struct sockaddr_in server;
static int epfd;
static char step[96];
static int shaking; /* handshakes in flight */
static int ok, failed;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void watch(Session *s, int operation, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = s};
  epoll_ctl(epfd, operation, s->fd, &e);
}

/* One text frame. The mask is all zeroes: legal, and masking then costs nothing. */
static void say(int fd, const char *text) {
  unsigned char b[256] = {0x81};
  int n = strlen(text);
  b[1] = 0x80 | n;
  memcpy(b + 6, text, n);
  if (write(fd, b, n + 6) != n + 6) return; /* a lost connection shows at the next read */
}

static void begin(Session *s) {
  int one = 1;
  s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  s->state = CONNECTING;
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  connect(s->fd, (void *)&server, sizeof server);
  watch(s, EPOLL_CTL_ADD, EPOLLOUT);
  shaking++;
}

static void connected(Session *s) {
  if (write(s->fd, UPGRADE, sizeof UPGRADE - 1) < 0) {
    failed++;
    shaking--;
    close(s->fd);
    return;
  }
  watch(s, EPOLL_CTL_MOD, EPOLLIN);
  s->state = UPGRADING;
}

static void ended(Session *s) {
  if (s->state == UPGRADING) shaking--;
  if (s->state == CLOSING)
    ok++;
  else
    failed++;
  close(s->fd);
}

/* Whatever was read is taken for the whole reply: replies of the null server fit into one segment. */
static void answered(Session *s) {
  switch (s->state) {
    case UPGRADING:
      shaking--;
      s->state = RESETTING;
      say(s->fd, "{\"type\":\"reset\",\"data\":{}}");
      break;
    case RESETTING:
      s->state = STEPPING;
      say(s->fd, step);
      break;
    case STEPPING:
      s->state = CLOSING;
      say(s->fd, "{\"type\":\"close\"}");
      break;
    default:
      if (write(s->fd, CLOSE_FRAME, sizeof CLOSE_FRAME) < 0) return; /* the server may be gone already */
  }
}

static void readable(Session *s) {
  char b[4096];
  ssize_t got = read(s->fd, b, sizeof b);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0)
    ended(s);
  else
    answered(s);
}

static void run(int n, int window) {
  Session *all = calloc(n, sizeof *all);
  struct epoll_event ev[512];
  int started = 0;
  while (ok + failed < n) {
    while (started < n && shaking < window) begin(&all[started++]);
    int k = epoll_wait(epfd, ev, 512, 1000);
    for (int i = 0; i < k; i++) {
      Session *s = ev[i].data.ptr;
      if (s->state == CONNECTING)
        connected(s);
      else
        readable(s);
    }
  }
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: ws_floor N WAIT PORT [HANDSHAKES_IN_FLIGHT]\n");
    return 2;
  }
  int n = atoi(argv[1]);
  int window = argc > 4 ? atoi(argv[4]) : 256;
  snprintf(step, sizeof step, "{\"type\":\"step\",\"data\":{\"wait_seconds\":%g}}", atof(argv[2]));
  server.sin_family = AF_INET;
  server.sin_port = htons(atoi(argv[3]));
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  epfd = epoll_create1(0);

  double t0 = now();
  run(n, window);

  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  double cpu = u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
  printf("{\"sessions\": %d, \"ok\": %d, \"failed\": %d, \"wall_seconds\": %.3f, \"cpu_seconds\": %.3f, "
         "\"cpu_us_per_session\": %.1f, \"peak_rss_mib\": %ld}\n",
         n, ok, failed, now() - t0, cpu, cpu / n * 1e6, u.ru_maxrss / 1024);
  return failed > 0;
}
