/* A null OpenEnv server: the least that a server can cost, so that what is left is the client's.
 *
 *   cc -O2 -o null_server null_server.c && ./null_server PORT [MAX_SESSIONS]
 *
 * One epoll thread on 127.0.0.1; PORT 0 takes a free one, and the first line on stderr names it. Speaks the WebSocket
 * messages reset, step (waits wait_seconds), state and close at /ws, and GET /health, POST /reset, POST /step with
 * keep-alive; GET /steps counts the steps answered so far. On SIGTERM it prints one JSON line: sessions seen, most open
 * at once, its own view of how long each step took beyond the wait asked for (frame read -> reply written, seconds), and
 * of how long clients paused before a step (reply written -> frame read). A client's step latency minus the first is
 * latency that the client invented; the second minus a think time that is always the same is how late it sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum { LARGEST_MESSAGE = 3000, TAKEN_AT_ONCE = 64 };

/* One slot per descriptor. `id` tells this connection from earlier ones in the same slot; 0 is nobody. */
typedef struct {
  int fd;
  int upgraded;
  int http; /* the step in progress came as POST /step */
  int steps;
  int len; /* bytes in buf */
  unsigned long id;
  double replied_at; /* when the last observation was written */
  unsigned char buf[4096];
} Conn;

/* A step that waits. The connection may be gone when it is due, its slot taken by another: `id` shows it. */
typedef struct {
  double due;
  double read_at;
  Conn *c;
  unsigned long id;
  double wait;
} Timer;

/* Seconds, one value for every step. */
typedef struct {
  double *values;
  int n, room;
} Series;

static Conn *slots;
static int nslots, epfd, listener;
static Timer *heap;
static int nheap, capheap;
static Series over, pauses; /* beyond the wait, and before the step */
static long opened, open_now, peak, refused, max_sessions;
static unsigned long next_id = 1;
static volatile sig_atomic_t stop;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void on_term(int s) {
  (void)s;
  stop = 1;
}

/* SHA-1 and base64, for Sec-WebSocket-Accept only. */

static uint32_t rol(uint32_t v, int n) { return v << n | v >> (32 - n); }

static void sha1_block(uint32_t h[5], const unsigned char *m) {
  uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)m[4 * i] << 24 | m[4 * i + 1] << 16 | m[4 * i + 2] << 8 | m[4 * i + 3];
  for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  for (int i = 0; i < 80; i++) {
    uint32_t f, k;
    if (i < 20) {
      f = (b & c) | (~b & d);
      k = 0x5A827999;
    } else if (i < 40) {
      f = b ^ c ^ d;
      k = 0x6ED9EBA1;
    } else if (i < 60) {
      f = (b & c) | (b & d) | (c & d);
      k = 0x8F1BBCDC;
    } else {
      f = b ^ c ^ d;
      k = 0xCA62C1D6;
    }
    uint32_t t = rol(a, 5) + f + e + k + w[i];
    e = d;
    d = c;
    c = rol(b, 30);
    b = a;
    a = t;
  }
  h[0] += a;
  h[1] += b;
  h[2] += c;
  h[3] += d;
  h[4] += e;
}

static void sha1(const unsigned char *text, int n, unsigned char out[20]) {
  uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  unsigned char m[192] = {0}; /* a key of at most 60 characters and the GUID, padded */
  int total = ((n + 8) / 64 + 1) * 64;
  uint64_t bits = (uint64_t)n * 8;
  memcpy(m, text, n);
  m[n] = 0x80;
  for (int i = 0; i < 8; i++) m[total - 1 - i] = bits >> (8 * i);
  for (int o = 0; o < total; o += 64) sha1_block(h, m + o);
  for (int i = 0; i < 5; i++)
    for (int j = 0; j < 4; j++) out[4 * i + j] = h[i] >> (24 - 8 * j);
}

static void base64(const unsigned char *d, int n, char *o) {
  static const char t[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int i = 0; i < n; i += 3) {
    uint32_t v = d[i] << 16 | (i + 1 < n ? d[i + 1] << 8 : 0) | (i + 2 < n ? d[i + 2] : 0);
    *o++ = t[v >> 18];
    *o++ = t[v >> 12 & 63];
    *o++ = i + 1 < n ? t[v >> 6 & 63] : '=';
    *o++ = i + 2 < n ? t[v & 63] : '=';
  }
  *o = 0;
}

/* What a connection is told. Replies are small: a write that does not go through whole means the client is gone. */

static void drop(Conn *c) {
  if (c->fd < 0) return;
  close(c->fd);
  c->fd = -1;
  c->id = 0;
  if (c->upgraded) open_now--;
  c->upgraded = 0;
}

static void put(Conn *c, const void *b, size_t n) {
  if (write(c->fd, b, n) != (ssize_t)n) drop(c);
}

static void put_frame(Conn *c, int op, const char *s, int n) {
  unsigned char b[1200];
  int o = 2;
  b[0] = 0x80 | op;
  if (n < 126) {
    b[1] = n;
  } else {
    b[1] = 126;
    b[2] = n >> 8;
    b[3] = n;
    o = 4;
  }
  memcpy(b + o, s, n);
  put(c, b, n + o);
}

static void put_response(Conn *c, const char *status, const char *body, int n) {
  char r[700];
  int length = snprintf(r, sizeof r,
                        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%.*s", status, n, n,
                        body);
  put(c, r, length);
}

static void put_observation(Conn *c, double waited) {
  char s[400];
  int http = c->http;
  int n = snprintf(s, sizeof s,
                   "%s{\"observation\":{\"waited_seconds\":%g,\"pid\":%d,\"session_hash\":\"%012lx\","
                   "\"host_url\":\"null:0\",\"step_count\":%d},\"reward\":null,\"done\":false}%s",
                   http ? "" : "{\"type\":\"observation\",\"data\":", waited, getpid(), c->id, c->steps,
                   http ? "" : "}");
  c->replied_at = now();
  if (http) {
    c->http = 0;
    put_response(c, "200 OK", s, n);
  } else {
    put_frame(c, TEXT, s, n);
  }
}

static void put_state(Conn *c) {
  char b[160];
  int n = snprintf(b, sizeof b, "{\"type\":\"state\",\"data\":{\"episode_id\":\"%012lx\",\"step_count\":%d}}", c->id,
                   c->steps);
  put_frame(c, TEXT, b, n);
}

/* Steps that wait, in a binary heap: the one due first on top. */

static void push(Timer t) {
  if (nheap == capheap) {
    capheap = capheap ? capheap * 2 : 1024;
    heap = realloc(heap, capheap * sizeof *heap);
  }
  int i = nheap++;
  while (i && heap[(i - 1) / 2].due > t.due) {
    heap[i] = heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  heap[i] = t;
}

static Timer pop(void) {
  Timer top = heap[0], last = heap[--nheap];
  int i = 0;
  for (;;) {
    int k = 2 * i + 1;
    if (k >= nheap) break;
    if (k + 1 < nheap && heap[k + 1].due < heap[k].due) k++;
    if (heap[k].due >= last.due) break;
    heap[i] = heap[k];
    i = k;
  }
  heap[i] = last;
  return top;
}

static void keep(Series *series, double seconds) {
  if (series->n == series->room) {
    series->room = series->room ? series->room * 2 : 4096;
    series->values = realloc(series->values, series->room * sizeof *series->values);
  }
  series->values[series->n++] = seconds;
}

static void answer_step(Timer t) {
  t.c->steps++;
  put_observation(t.c, t.wait);
  keep(&over, now() - t.read_at - t.wait);
}

static void answer_due(void) {
  while (nheap && heap[0].due <= now()) {
    Timer t = pop();
    if (t.c->id == t.id) answer_step(t);
  }
}

/* What a connection says. JSON is not parsed: the words searched for decide. */

static void step(Conn *c, const char *s) {
  const char *found = strstr(s, "wait_seconds\"");
  double wait = found ? atof(strchr(found, ':') + 1) : 0;
  double at = now();
  Timer timer = {at + wait, at, c, c->id, wait};
  keep(&pauses, at - c->replied_at);
  if (wait > 0)
    push(timer);
  else
    answer_step(timer);
}

static void reset(Conn *c) {
  c->steps = 0;
  put_observation(c, 0);
}

static void part(Conn *c) {
  static const unsigned char normal_closure[4] = {0x80 | CLOSE, 2, 0x03, 0xE8};
  put(c, normal_closure, sizeof normal_closure);
  drop(c);
}

static void text_message(Conn *c, const char *s) {
  if (strstr(s, "\"reset\""))
    reset(c);
  else if (strstr(s, "\"step\""))
    step(c, s);
  else if (strstr(s, "\"state\""))
    put_state(c);
  else if (strstr(s, "\"close\""))
    part(c);
}

static void message(Conn *c, int op, const char *s) {
  if (op == CLOSE) {
    put_frame(c, CLOSE, "", 0);
    drop(c);
  } else if (op == PING) {
    put_frame(c, PONG, s, strlen(s));
  } else if (op == TEXT) {
    text_message(c, s);
  }
}

/* Answer the opening handshake whose head lies in the buffer. */
static void upgrade(Conn *c) {
  char r[512], joined[128], accept[40];
  unsigned char digest[20];
  if (max_sessions && open_now >= max_sessions) {
    refused++;
    put(c, r, snprintf(r, sizeof r, "HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n"));
    drop(c);
    return;
  }
  char *key = strcasestr((char *)c->buf, "sec-websocket-key:") + 18;
  while (*key == ' ') key++;
  int n = strcspn(key, "\r\n");
  if (n > 60) {
    drop(c);
    return;
  }
  n = snprintf(joined, sizeof joined, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", n, key);
  sha1((unsigned char *)joined, n, digest);
  base64(digest, 20, accept);
  c->upgraded = 1;
  opened++;
  if (++open_now > peak) peak = open_now;
  n = snprintf(r, sizeof r,
               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Accept: %s\r\n\r\n",
               accept);
  put(c, r, n);
}

/* One plain HTTP request, if a whole one is there: answer it and return the bytes it used, else 0. */
static int request(Conn *c, char *end) {
  char *h = (char *)c->buf;
  char *field = strcasestr(h, "content-length:");
  int head = end + 4 - h;
  int body = field && field < end ? atoi(field + 15) : 0;
  if (c->len < head + body) return 0;
  char s[LARGEST_MESSAGE + 8];
  int n = body < (int)sizeof s - 1 ? body : (int)sizeof s - 1;
  memcpy(s, h + head, n);
  s[n] = 0;
  if (!strncmp(h, "POST /step", 10)) {
    c->http = 1;
    step(c, s);
  } else if (!strncmp(h, "POST /reset", 11)) {
    c->http = 1;
    reset(c);
  } else if (!strncmp(h, "GET /health", 11)) {
    put_response(c, "200 OK", "{\"status\":\"healthy\"}", 20);
  } else if (!strncmp(h, "GET /steps", 10)) {
    put_response(c, "200 OK", s, snprintf(s, sizeof s, "{\"steps\":%d}", over.n));
  } else {
    put_response(c, "404 Not Found", "{}", 2);
  }
  return head + body;
}

/* Take used bytes off the front of the buffer; what is left ends in a zero, so that it can be searched as text. */
static void consume(Conn *c, int used) {
  c->len -= used;
  memmove(c->buf, c->buf + used, c->len);
  c->buf[c->len] = 0;
}

/* Answer one head (and body) at the front of the buffer; returns 0 where there is not yet a whole one. */
static int take_request(Conn *c) {
  char *head = (char *)c->buf;
  char *end = strstr(head, "\r\n\r\n");
  if (!end) return 0;
  char *key = strcasestr(head, "sec-websocket-key:");
  int used = end + 4 - head;
  if (key && key < end)
    upgrade(c);
  else if (!(used = request(c, end)))
    return 0;
  if (c->fd >= 0) consume(c, used);
  return 1;
}

/* Answer one frame at the front of the buffer; returns 0 where there is not yet a whole one. */
static int take_frame(Conn *c) {
  if (c->len < 6) return 0;
  int op = c->buf[0] & 15;
  int l = c->buf[1] & 127;
  int o = 2;
  if (l == 126) {
    l = c->buf[2] << 8 | c->buf[3];
    o = 4;
  } else if (l == 127) {
    l = LARGEST_MESSAGE + 1; /* eight bytes of length: larger than anything a client has to say here */
  }
  if (l > LARGEST_MESSAGE) {
    drop(c);
    return 0;
  }
  if (c->len < o + 4 + l) return 0;
  char s[LARGEST_MESSAGE + 8];
  for (int i = 0; i < l; i++) s[i] = c->buf[o + 4 + i] ^ c->buf[o + (i & 3)];
  s[l] = 0;
  consume(c, o + 4 + l);
  message(c, op, s);
  return 1;
}

static void readable(Conn *c) {
  ssize_t n = read(c->fd, c->buf + c->len, sizeof c->buf - 1 - c->len);
  if (n <= 0) {
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) drop(c);
    return;
  }
  c->len += n;
  c->buf[c->len] = 0;
  while (c->fd >= 0 && !c->upgraded)
    if (!take_request(c)) return;
  while (c->fd >= 0 && take_frame(c));
}

static void watch(int fd, Conn *c) {
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
}

static void welcome(int fd) {
  int one = 1;
  Conn *c = &slots[fd];
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c->fd = fd;
  c->upgraded = c->http = c->steps = c->len = 0;
  c->id = next_id++;
  c->replied_at = now();
  watch(fd, c);
}

static void take_connections(void) {
  for (int k = 0; k < TAKEN_AT_ONCE; k++) {
    int fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (fd >= nslots) {
      close(fd);
      refused++;
      continue;
    }
    welcome(fd);
  }
}

static int wait_for_events(struct epoll_event *evs, int most) {
  double d = nheap ? heap[0].due - now() : 1;
  d = d < 0 ? 0 : d > 1 ? 1 : d;
  struct timespec timeout = {(time_t)d, (long)((d - (time_t)d) * 1e9)};
  return epoll_pwait2(epfd, evs, most, &timeout, 0);
}

static void serve(void) {
  struct epoll_event evs[256];
  while (!stop) {
    int n = wait_for_events(evs, 256);
    answer_due();
    for (int i = 0; i < n; i++) {
      Conn *c = evs[i].data.ptr;
      if (!c)
        take_connections();
      else if (c->fd >= 0)
        readable(c);
    }
  }
}

/* Descriptors up to the hard limit, and a slot for each. */
static void make_room(void) {
  struct rlimit rl;
  getrlimit(RLIMIT_NOFILE, &rl);
  rl.rlim_cur = rl.rlim_max;
  setrlimit(RLIMIT_NOFILE, &rl);
  nslots = rl.rlim_cur > 1000000 ? 1000000 : rl.rlim_cur;
  slots = calloc(nslots, sizeof *slots);
}

static void end_on_signals(void) {
  struct sigaction sa = {.sa_handler = on_term};
  signal(SIGPIPE, SIG_IGN);
  sigaction(SIGTERM, &sa, 0);
  sigaction(SIGINT, &sa, 0);
}

/* Listen on the port, 0 for a free one; returns the port, or -1. */
static int open_listener(int port) {
  int one = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof a;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, 65535)) {
    perror("bind");
    return -1;
  }
  getsockname(listener, (void *)&a, &length);
  return ntohs(a.sin_port);
}

static int by_value(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return (d > 0) - (d < 0);
}

/* Return the value that this share of a series is at most, in seconds; sorts it. */
static double percentile(Series *series, double share) {
  qsort(series->values, series->n, sizeof *series->values, by_value);
  if (!series->n) return 0;
  return series->values[share == .5 ? series->n / 2 : (int)((series->n - 1) * share)];
}

static void tell_truth(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"sessions\": %ld, \"peak_open\": %ld, \"refused\": %ld, \"steps\": %d, \"step_over_p50\": %.6f, "
         "\"step_over_p99\": %.6f, \"pause_p50\": %.6f, \"pause_p99\": %.6f, \"cpu_seconds\": %.3f}\n",
         opened, peak, refused, over.n, percentile(&over, .5), percentile(&over, .99), percentile(&pauses, .5),
         percentile(&pauses, .99),
         u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6);
}

int main(int argc, char **argv) {
  max_sessions = argc > 2 ? atol(argv[2]) : 0;
  make_room();
  end_on_signals();
  int port = open_listener(argc > 1 ? atoi(argv[1]) : 8000);
  if (port < 0) return 1;
  epfd = epoll_create1(0);
  watch(listener, NULL);
  fprintf(stderr, "listening on 127.0.0.1:%d\n", port);
  serve();
  tell_truth();
  return 0;
}
