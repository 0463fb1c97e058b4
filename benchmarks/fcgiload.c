/* fcgiload - closed-loop load client for FastCGI, SCGI, uwsgi and HTTP/1.1 servers (unix or TCP socket).
 *
 * Build: cc -O2 -Wall -o fcgiload fcgiload.c
 * Usage: fcgiload -u SOCK | -a HOST:PORT  [options]
 *   -p fcgi|scgi|uwsgi|http   protocol (default fcgi)
 *   -k           keep the connection (FCGI_KEEP_CONN / HTTP keep-alive); default: one connection per request
 *   -c N         concurrent connections (default 16)
 *   -d SECS      duration (float, default 3)         -n N   stop after N requests
 *   -U URI       request path (default /hello)       -s F   SCRIPT_FILENAME (for PHP-FPM)
 *   -b BYTES     POST body of that size (pseudo-random, fixed)
 *   -V N         send N different requests in turn (path, query, address, port, agent and cookie differ; default 1)
 *   -x any|hello|echo|big|len:N|file:PATH    what the response body must be (default hello);
 *                hello="Hello World\n", echo=the request body, big=1 MiB of 0123456789abcdef, file=what stands in PATH
 *   -t MS        time-out for one request (default 5000)
 *   -E           SCGI/uwsgi: finish at Content-Length (as nginx does) instead of waiting for EOF
 *   -I N         first open N idle connections (nothing sent) and hold them
 *   -J N         first open N connections, make one keep-conn request on each (time-out -t each, sequential), hold them
 *   -F           with -J: the load that follows opens a connection for each request, although the idle ones are kept
 *   -A N         first N aborts: send the whole request, close at once without reading
 *   -B N         first N aborts: send half of the PARAMS block, close
 *   -D MS        after -A/-B wait MS before the load (default 300)
 *   -G           probe only: FCGI_GET_VALUES;  -M K  probe only: K multiplexed requests on one connection
 *   -j           one JSON line instead of text
 * What is checked on every response: record framing, request id, FCGI_END_REQUEST (REQUEST_COMPLETE), status 200,
 * Content-Length (if sent) = body bytes, body content.  Counted: ok, errors by kind, time-outs, reconnects (server
 * closed a kept connection: re-sent on a new one, not an error), backlog_full (connect EAGAIN on a unix socket).
 * stalled: requests still unanswered at the end that were older than 40 % of the run and 0.3 s (starved connections).
 * Latency is from before connect()/write() to the last byte (fcgi: END_REQUEST), so a queue wait counts.
 * The PARAMS block is what nginx sends: 27 variables of which 8 are HTTP_ headers.  One write() per request.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { P_FCGI, P_SCGI, P_UWSGI, P_HTTP };
static int proto = P_FCGI, keep, nconn = 16, json, fin_len;
static double dur = 3;
static uint64_t maxreq = UINT64_MAX;
static const char *uri = "/hello", *script = "/srv/app/hello.php", *upath, *tcp;
static size_t bodylen;
static char *body;
static const char *expect;      /* expected body or NULL */
static int64_t expect_len = -1; /* or only a length */
static int timeout_ms = 5000, idle_n, idlej_n, abort_n, abortb_n, abort_wait = 300;

enum { MAXV = 256 };
static struct { char *req; size_t len; } reqs[MAXV]; /* the different requests */
static int nvar = 1, next_v, fresh;
static const char *idle_req; static size_t idle_len; /* what -J sends */
static char *req; static size_t reqlen, half; /* the request that is being built; half = middle of PARAMS */

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static void die(const char *m) { perror(m); exit(2); }

/* ---------- request building ---------- */
static char *pbuf; static size_t plen, pcap;
static void add(char **b, size_t *l, size_t *cap, const void *d, size_t n) {
    if (*l + n > *cap) { *cap = (*l + n) * 2; *b = realloc(*b, *cap); }
    memcpy(*b + *l, d, n); *l += n;
}
static void pv(const char *k, const char *v) {
    size_t a = strlen(k), b = strlen(v); unsigned char h[8]; int n = 0;
    if (proto == P_FCGI) {
        size_t x[2] = {a, b};
        for (int i = 0; i < 2; i++) {
            if (x[i] < 128) h[n++] = x[i];
            else { h[n++] = (x[i] >> 24) | 0x80; h[n++] = x[i] >> 16; h[n++] = x[i] >> 8; h[n++] = x[i]; }
        }
        add(&pbuf, &plen, &pcap, h, n); add(&pbuf, &plen, &pcap, k, a); add(&pbuf, &plen, &pcap, v, b);
    } else if (proto == P_SCGI) {
        add(&pbuf, &plen, &pcap, k, a + 1); add(&pbuf, &plen, &pcap, v, b + 1);
    } else {
        h[0] = a; h[1] = a >> 8; add(&pbuf, &plen, &pcap, h, 2); add(&pbuf, &plen, &pcap, k, a);
        h[0] = b; h[1] = b >> 8; add(&pbuf, &plen, &pcap, h, 2); add(&pbuf, &plen, &pcap, v, b);
    }
}
static const char *HDR[8][2] = {
    {"HOST", "www.example.org"},
    {"USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
    {"ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,image/svg+xml,*/*;q=0.8"},
    {"ACCEPT_LANGUAGE", "en-GB,en;q=0.8,fr-CH;q=0.5,de;q=0.3"},
    {"ACCEPT_ENCODING", "gzip, deflate, br, zstd"},
    {"COOKIE", "session=eyJ1c2VyX2lkIjo0MiwiY3NyZiI6IjJmN2E5YyJ9.Zx1Yyw.Q3dHnUu2mS8k0pVt7LrJ5bXeWcA; theme=dark; tz=Europe%2FZurich; "
               "consent=analytics%3D0%26ads%3D0; _visit=7f3b1c9e2d5a48f6b0c7; lastpage=%2Fcatalogue%2Fitems%3Fpage%3D3"},
    {"REFERER", "https://www.example.org/catalogue/items?page=2&sort=price"},
    {"UPGRADE_INSECURE_REQUESTS", "1"},
};
static char v_uri[512], v_query[64], v_request[600], v_addr[32], v_port[16], v_agent[256], v_cookie[512];
/* The v-th request: number 0 of one is the plain one, with an empty query. */
static void vary(int v) {
    if (nvar == 1) {
        snprintf(v_uri, sizeof v_uri, "%s", uri); v_query[0] = 0; snprintf(v_request, sizeof v_request, "%s", uri);
        strcpy(v_addr, "127.0.0.1"); strcpy(v_port, "51234"); strcpy(v_agent, HDR[1][1]); strcpy(v_cookie, HDR[5][1]);
        return;
    }
    unsigned h = (v + 1) * 2654435761u;
    snprintf(v_uri, sizeof v_uri, "%s/%.*s/%u", uri, 1 + v % 24, "catalogue-of-many-things", h % 100000);
    snprintf(v_query, sizeof v_query, "page=%u&sort=%.*s", h % 977, 1 + v % 9, "price-down");
    snprintf(v_request, sizeof v_request, "%s?%s", v_uri, v_query);
    snprintf(v_addr, sizeof v_addr, "10.%u.%u.%u", h >> 24, h >> 16 & 255, h >> 8 & 255);
    snprintf(v_port, sizeof v_port, "%u", 1024 + h % 64000);
    snprintf(v_agent, sizeof v_agent, "%s.%u", HDR[1][1], h % 40);
    snprintf(v_cookie, sizeof v_cookie, "id=%08x%08x; %s", h, h * 40503u, HDR[5][1] + v % 16);
}
static const char *header(int i) { return i == 1 ? v_agent : i == 5 ? v_cookie : HDR[i][1]; }
static void params(int v) {
    vary(v);
    char cl[32]; snprintf(cl, sizeof cl, "%zu", bodylen);
    if (proto == P_SCGI) pv("CONTENT_LENGTH", cl), pv("SCGI", "1");
    pv("QUERY_STRING", v_query); pv("REQUEST_METHOD", bodylen ? "POST" : "GET");
    pv("CONTENT_TYPE", bodylen ? "application/octet-stream" : "");
    if (proto != P_SCGI) pv("CONTENT_LENGTH", bodylen ? cl : "");
    pv("SCRIPT_FILENAME", script); pv("SCRIPT_NAME", ""); pv("PATH_INFO", v_uri); pv("REQUEST_URI", v_request); pv("DOCUMENT_URI", v_uri);
    pv("DOCUMENT_ROOT", "/srv/www"); pv("SERVER_PROTOCOL", "HTTP/1.1"); pv("REQUEST_SCHEME", "http");
    pv("GATEWAY_INTERFACE", "CGI/1.1"); pv("SERVER_SOFTWARE", "nginx/1.22.1"); pv("REMOTE_ADDR", v_addr); pv("REMOTE_PORT", v_port);
    pv("SERVER_ADDR", "127.0.0.1"); pv("SERVER_PORT", "80"); pv("SERVER_NAME", "localhost");
    for (int i = 0; i < 8; i++) { char k[64]; snprintf(k, sizeof k, "HTTP_%s", HDR[i][0]); pv(k, header(i)); }
}
static size_t cap_;
static void rec(int type, int id, const void *d, size_t n) {
    unsigned char h[8] = {1, type, id >> 8, id, n >> 8, n, (8 - n % 8) % 8, 0}; static const char z[8];
    add(&req, &reqlen, &cap_, h, 8); add(&req, &reqlen, &cap_, d, n); add(&req, &reqlen, &cap_, z, h[6]);
}
static void build_fcgi(int id, int keepflag) {
    unsigned char b[8] = {0, 1, keepflag, 0, 0, 0, 0, 0};
    rec(1, id, b, 8);
    for (size_t o = 0; o < plen; o += 32768) rec(4, id, pbuf + o, plen - o < 32768 ? plen - o : 32768);
    rec(4, id, "", 0);
    for (size_t o = 0; o < bodylen; o += 32760) rec(5, id, body + o, bodylen - o < 32760 ? bodylen - o : 32760);
    rec(5, id, "", 0);
}
static void build_body(void) {
    if (bodylen) {
        body = malloc(bodylen); uint64_t s = 88172645463325252ull;
        for (size_t i = 0; i < bodylen; i++) { s ^= s << 13; s ^= s >> 7; s ^= s << 17; body[i] = s; }
    }
}
static void build(int v) {
    req = NULL; reqlen = cap_ = plen = 0;
    params(v);
    if (proto == P_FCGI) build_fcgi(1, keep);
    else if (proto == P_SCGI) {
        char n[32]; int k = snprintf(n, sizeof n, "%zu:", plen);
        add(&req, &reqlen, &cap_, n, k); add(&req, &reqlen, &cap_, pbuf, plen); add(&req, &reqlen, &cap_, ",", 1); add(&req, &reqlen, &cap_, body, bodylen);
    } else if (proto == P_UWSGI) {
        unsigned char h[4] = {0, plen & 255, plen >> 8, 0};
        add(&req, &reqlen, &cap_, h, 4); add(&req, &reqlen, &cap_, pbuf, plen); add(&req, &reqlen, &cap_, body, bodylen);
    } else {
        char l[1024]; int k = snprintf(l, sizeof l, "%s %s HTTP/1.1\r\n%s", bodylen ? "POST" : "GET", v_request, keep ? "" : "Connection: close\r\n");
        add(&req, &reqlen, &cap_, l, k);
        for (int i = 0; i < 8; i++) {
            char hn[64]; snprintf(hn, sizeof hn, "%s", HDR[i][0]); for (char *q = hn; *q; q++) if (*q == '_') *q = '-';
            k = snprintf(l, sizeof l, "%s: %s\r\n", hn, header(i)); add(&req, &reqlen, &cap_, l, k);
        }
        if (bodylen) { k = snprintf(l, sizeof l, "Content-Type: application/octet-stream\r\nContent-Length: %zu\r\n", bodylen); add(&req, &reqlen, &cap_, l, k); }
        add(&req, &reqlen, &cap_, "\r\n", 2); add(&req, &reqlen, &cap_, body, bodylen);
    }
    half = plen / 2; reqs[v].req = req; reqs[v].len = reqlen;
}

/* ---------- connections ---------- */
typedef struct {
    int fd, reg, out, reused, began; /* reg: in epoll; out: EPOLLOUT wanted; began: response bytes seen */
    const char *req; size_t len; /* the request it sends */
    uint64_t t0, conns;
    size_t sent;
    /* response state */
    unsigned char h[8]; int hn; size_t clen, pad; int type; unsigned char endb[8]; int endn;
    char hb[4096]; size_t hbn; int inbody, status; int64_t clen_hdr; uint64_t got; int bad; /* bad: first error kind */
    int done, waitretry;
} C;
enum { E_PROTO = 1, E_STATUS, E_BODY, E_LEN, E_EOF, E_CONN, E_APP, E_MAX };
static const char *EN[] = {"", "protocol", "status", "body", "length", "eof", "connect", "endreq"};
static uint64_t stalled, ok, errs[E_MAX], timeouts, reconnects, backlog_full, connects, stderr_bytes, trailing;
static uint32_t *lat; static uint64_t nlat, clat;
static int ep, waiting;
static char rb[262144];

static int sock_open(int blocking) {
    int fd;
    if (upath) {
        struct sockaddr_un a = {.sun_family = AF_UNIX}; strncpy(a.sun_path, upath, sizeof a.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM | (blocking ? 0 : SOCK_NONBLOCK), 0); if (fd < 0) die("socket");
        if (connect(fd, (void *)&a, sizeof a) < 0 && errno != EINPROGRESS) { int e = errno; close(fd); errno = e; return -1; }
    } else {
        struct sockaddr_in a = {.sin_family = AF_INET}; char h[64]; const char *c = strrchr(tcp, ':'); snprintf(h, sizeof h, "%.*s", (int)(c - tcp), tcp);
        inet_pton(AF_INET, h, &a.sin_addr); a.sin_port = htons(atoi(c + 1));
        fd = socket(AF_INET, SOCK_STREAM | (blocking ? 0 : SOCK_NONBLOCK), 0); if (fd < 0) die("socket");
        int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (void *)&a, sizeof a) < 0 && errno != EINPROGRESS) { int e = errno; close(fd); errno = e; return -1; }
    }
    connects++;
    return fd;
}
static void c_reset(C *c) { c->sent = 0; c->hn = 0; c->clen = c->pad = 0; c->type = 0; c->endn = 0; c->hbn = 0; c->inbody = 0; c->status = 0; c->clen_hdr = -1; c->got = 0; c->bad = 0; c->done = 0; c->began = 0; }
static void c_close(C *c) { if (c->fd >= 0) close(c->fd); c->fd = -1; c->reg = c->out = 0; c->reused = 0; }
static void c_epoll(C *c, int want_out) {
    struct epoll_event e = {.events = EPOLLIN | (want_out ? EPOLLOUT : 0), .data.ptr = c};
    if (!c->reg) { if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl"); c->reg = 1; c->out = want_out; }
    else if (c->out != want_out) { if (epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e)) die("epoll_ctl"); c->out = want_out; }
}
static int c_send(C *c) { /* 0 ok, -1 broken */
    while (c->sent < c->len) {
        ssize_t n = send(c->fd, c->req + c->sent, c->len - c->sent, MSG_NOSIGNAL);
        if (n < 0) { if (errno == EAGAIN || errno == ENOTCONN) { c_epoll(c, 1); return 0; } return -1; }
        c->sent += n;
    }
    c_epoll(c, 0);
    return 0;
}
static void c_start(C *c, int fresh_clock);
static void c_connect(C *c) {
    c->fd = sock_open(0);
    if (c->fd < 0) {
        if (errno == EAGAIN) { backlog_full++; } else { errs[E_CONN]++; }
        if (!c->waitretry) { c->waitretry = 1; waiting++; }
        return;
    }
    if (c->waitretry) { c->waitretry = 0; waiting--; }
    c_reset(c);
    if (c_send(c) < 0) { c_epoll(c, 0); } /* read will report */
}
static void c_start(C *c, int fresh_clock) {
    c->req = reqs[next_v].req; c->len = reqs[next_v].len;
    if (++next_v == nvar) next_v = 0;
    if (fresh_clock) c->t0 = now();
    if (c->fd < 0) { c_connect(c); return; }
    c->reused = 1; c_reset(c);
    if (c_send(c) < 0) { /* server closed the kept connection */
        reconnects++; c_close(c); c_connect(c);
    }
}
static void bodybytes(C *c, const char *d, size_t n) {
    if (expect) {
        if ((int64_t)(c->got + n) > expect_len) { if (!c->bad) c->bad = E_LEN; }
        else if (memcmp(expect + c->got, d, n) && !c->bad) c->bad = E_BODY;
    }
    c->got += n;
}
static void headers(C *c) {
    c->status = 200; char *p = c->hb, *e = c->hb + c->hbn; int first = 1;
    while (p < e) {
        char *nl = memchr(p, '\n', e - p); if (!nl) nl = e;
        size_t n = nl - p; if (n && p[n - 1] == '\r') n--;
        if (first && n > 12 && !strncmp(p, "HTTP/1.", 7)) c->status = atoi(p + 9);
        else if (n > 7 && !strncasecmp(p, "Status:", 7)) c->status = atoi(p + 7);
        else if (n > 15 && !strncasecmp(p, "Content-Length:", 15)) c->clen_hdr = atoll(p + 15);
        first = 0; p = nl + 1;
    }
}
static void out(C *c, const char *d, size_t n) { /* response stream bytes */
    if (c->inbody) { bodybytes(c, d, n); return; }
    size_t o = c->hbn, m = n < sizeof c->hb - 1 - o ? n : sizeof c->hb - 1 - o;
    memcpy(c->hb + o, d, m); c->hbn += m; c->hb[c->hbn] = 0;
    char *s = c->hb + (o > 3 ? o - 3 : 0), *a = memmem(s, c->hb + c->hbn - s, "\r\n\r\n", 4), *b = memmem(s, c->hb + c->hbn - s, "\n\n", 2);
    size_t skip = 4; if (!a || (b && b < a)) a = b, skip = 2;
    if (!a) { if (m < n && !c->bad) c->bad = E_PROTO; return; }
    size_t hl = a - c->hb + skip; c->hbn = hl; headers(c); c->inbody = 1;
    if (o + n > hl) bodybytes(c, d + (hl - o), n - (hl - o));
}
static int parse(C *c, const char *d, size_t n, int wantid) { /* sets done; 0 ok, -1 protocol error */
    c->began = 1;
    if (proto != P_FCGI) {
        out(c, d, n);
        if (c->inbody && c->clen_hdr >= 0 && (int64_t)c->got >= c->clen_hdr && ((proto == P_HTTP && keep) || fin_len)) c->done = 1;
        return 0;
    }
    while (n) {
        if (c->done) { trailing++; return -1; }
        if (c->hn < 8) {
            size_t m = 8 - c->hn < n ? 8 - c->hn : n; memcpy(c->h + c->hn, d, m); c->hn += m; d += m; n -= m;
            if (c->hn < 8) return 0;
            c->type = c->h[1]; c->clen = c->h[4] << 8 | c->h[5]; c->pad = c->h[6];
            if (c->h[0] != 1 || (c->h[2] << 8 | c->h[3]) != wantid || (c->type != 6 && c->type != 7 && c->type != 3)) return -1;
        }
        if (c->clen) {
            size_t m = c->clen < n ? c->clen : n;
            if (c->type == 6) out(c, d, m);
            else if (c->type == 7) stderr_bytes += m;
            else for (size_t i = 0; i < m; i++) if (c->endn < 8) c->endb[c->endn++] = d[i];
            c->clen -= m; d += m; n -= m;
        }
        if (!c->clen && c->pad) { size_t m = c->pad < n ? c->pad : n; c->pad -= m; d += m; n -= m; }
        if (!c->clen && !c->pad) { c->hn = 0; if (c->type == 3) { c->done = 1; if (c->endn < 8) return -1; if (c->endb[4] && !c->bad) c->bad = E_APP; } }
    }
    return 0;
}
static int verdict(C *c) {
    if (c->bad) return c->bad;
    if (!c->inbody) return E_EOF;
    if (c->status != 200) return E_STATUS;
    if (c->clen_hdr >= 0 && c->clen_hdr != (int64_t)c->got) return E_LEN;
    if (expect_len >= 0 && (int64_t)c->got != expect_len) return E_LEN;
    return 0;
}
static int stopping; static uint64_t started;
static void finish(C *c, int err) {
    if (err) errs[err]++;
    else {
        ok++; if (nlat == clat) { clat = clat ? clat * 2 : 1 << 16; lat = realloc(lat, clat * sizeof *lat); }
        uint64_t l = (now() - c->t0) / 100; lat[nlat++] = l > UINT32_MAX ? UINT32_MAX : l;
    }
    if (!keep || err || proto == P_SCGI || proto == P_UWSGI) c_close(c);
    if (!stopping && started < maxreq) { started++; c_start(c, 1); } else { c_close(c); c->t0 = 0; if (c->waitretry) { c->waitretry = 0; waiting--; } }
}
static void on_event(C *c, uint32_t ev) {
    if (c->fd < 0) return;
    if ((ev & EPOLLOUT) && c->sent < c->len) { if (c_send(c) < 0) {} }
    if (!(ev & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    for (;;) {
        ssize_t n = read(c->fd, rb, sizeof rb);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            if (c->reused && !c->began) { reconnects++; c_close(c); c_connect(c); return; }
            if (n == 0 && (proto == P_SCGI || proto == P_UWSGI || (proto == P_HTTP && !keep))) { finish(c, verdict(c)); return; }
            finish(c, E_EOF); return;
        }
        if (parse(c, rb, n, 1) < 0) { finish(c, E_PROTO); return; }
        if (c->done) { finish(c, verdict(c)); return; }
        if (n < (ssize_t)sizeof rb) return;
    }
}
static int cmp(const void *a, const void *b) { uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b; return x < y ? -1 : x > y; }
static double pc(double q) { return nlat ? lat[(uint64_t)(q * (nlat - 1))] / 10.0 : 0; }

/* blocking helper: one request on fd with timeout; 0 ok */
static int one(C *c, int fd, int ms) {
    c_reset(c); c->fd = fd; uint64_t end = now() + ms * 1000000ull; size_t s = 0;
    while (s < idle_len) { ssize_t n = send(fd, idle_req + s, idle_len - s, MSG_NOSIGNAL); if (n <= 0) return -1; s += n; }
    while (!c->done) {
        int left = (int)((int64_t)(end - now()) / 1000000); if (left <= 0) return -2;
        struct pollfd p = {fd, POLLIN, 0}; if (poll(&p, 1, left) <= 0) return -2;
        ssize_t n = read(fd, rb, sizeof rb); if (n <= 0) return -1;
        if (parse(c, rb, n, 1) < 0) return -3;
    }
    return verdict(c) ? -4 : 0;
}
static int probe_values(void) {
    int fd = sock_open(1); if (fd < 0) die("connect"); unsigned char b[128], *p = b + 8; const char *k[] = {"FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"};
    for (int i = 0; i < 3; i++) { size_t l = strlen(k[i]); *p++ = l; *p++ = 0; memcpy(p, k[i], l); p += l; }
    int n = p - b - 8; unsigned char h[8] = {1, 9, 0, 0, 0, n, 0, 0}; memcpy(b, h, 8);
    if (write(fd, b, n + 8) < 0) die("write");
    struct pollfd pf = {fd, POLLIN, 0}; if (poll(&pf, 1, 1500) <= 0) { printf("GET_VALUES: no answer in 1.5 s\n"); return 1; }
    n = read(fd, b, sizeof b); if (n <= 0) { printf("GET_VALUES: connection closed\n"); return 1; }
    printf("GET_VALUES: type %d, %d bytes:", b[1], n);
    if (b[1] == 10) for (p = b + 8; p < b + 8 + (b[4] << 8 | b[5]);) { int a = p[0], v = p[1]; printf(" %.*s=%.*s", a, p + 2, v, p + 2 + a); p += 2 + a + v; }
    printf("\n"); return 0;
}
static int probe_mux(int K) {
    reqlen = 0; for (int i = 1; i <= K; i++) build_fcgi(i, 1);
    int fd = sock_open(1); if (fd < 0) die("connect");
    uint64_t t0 = now(); if (send(fd, req, reqlen, MSG_NOSIGNAL) < 0) die("send");
    static unsigned char b[1 << 22]; size_t n = 0, o = 0; int ends = 0, okc = 0, refused = 0, inter = 0, lastid = 0; char seen[65536] = {0};
    while (ends < K) {
        struct pollfd pf = {fd, POLLIN, 0}; if (poll(&pf, 1, 3000) <= 0) break;
        ssize_t r = read(fd, b + n, sizeof b - n); if (r <= 0) break; n += r;
        while (n - o >= 8 && n - o >= 8u + (b[o + 4] << 8 | b[o + 5]) + b[o + 6]) {
            int id = b[o + 2] << 8 | b[o + 3];
            if (id != lastid && seen[id]) inter++;
            seen[id] = 1; lastid = id;
            if (b[o + 1] == 3) { ends++; if (b[o + 12] == 0) okc++; else refused++; }
            o += 8 + (b[o + 4] << 8 | b[o + 5]) + b[o + 6];
        }
    }
    printf("MUX: %d requests on one connection: %d ended (%d complete, %d refused), interleaved records %d, %.1f ms\n", K, ends, okc, refused, inter, (now() - t0) / 1e6);
    return ends == K ? 0 : 1;
}

int main(int argc, char **argv) {
    int o, G = 0, M = 0; const char *x = "hello";
    while ((o = getopt(argc, argv, "u:a:p:kc:d:n:U:s:b:x:t:EI:J:A:B:D:GM:jV:F")) != -1) switch (o) {
        case 'u': upath = optarg; break; case 'a': tcp = optarg; break;
        case 'p': proto = !strcmp(optarg, "scgi") ? P_SCGI : !strcmp(optarg, "uwsgi") ? P_UWSGI : !strcmp(optarg, "http") ? P_HTTP : P_FCGI; break;
        case 'k': keep = 1; break; case 'c': nconn = atoi(optarg); break; case 'd': dur = atof(optarg); break; case 'n': maxreq = strtoull(optarg, 0, 10); break;
        case 'U': uri = optarg; break; case 's': script = optarg; break; case 'b': bodylen = atol(optarg); break; case 'x': x = optarg; break;
        case 't': timeout_ms = atoi(optarg); break; case 'E': fin_len = 1; break; case 'I': idle_n = atoi(optarg); break; case 'J': idlej_n = atoi(optarg); break;
        case 'A': abort_n = atoi(optarg); break; case 'B': abortb_n = atoi(optarg); break; case 'D': abort_wait = atoi(optarg); break;
        case 'V': nvar = atoi(optarg); if (nvar < 1 || nvar > MAXV) { fprintf(stderr, "-V: 1 to %d\n", MAXV); return 2; } break;
        case 'F': fresh = 1; break;
        case 'G': G = 1; break; case 'M': M = atoi(optarg); break; case 'j': json = 1; break; default: return 2;
    }
    if (!upath && !tcp) { fprintf(stderr, "need -u or -a\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl; getrlimit(RLIMIT_NOFILE, &rl); rl.rlim_cur = rl.rlim_max; setrlimit(RLIMIT_NOFILE, &rl);
    build_body();
    if (fresh) { keep = 1; build(0); idle_req = req; idle_len = reqlen; keep = 0; }
    /* The last built is the one that the probes and the aborts send, and without -F the idle connections. */
    for (int v = nvar - 1; v >= 0; v--) build(v);
    if (!fresh) idle_req = req, idle_len = reqlen;
    if (!strcmp(x, "hello")) expect = "Hello World\n", expect_len = 12;
    else if (!strcmp(x, "echo")) expect = body, expect_len = bodylen;
    else if (!strcmp(x, "big")) { char *b = malloc(1 << 20); for (int i = 0; i < 1 << 20; i++) b[i] = "0123456789abcdef"[i & 15]; expect = b; expect_len = 1 << 20; }
    else if (!strncmp(x, "file:", 5)) {
        FILE *f = fopen(x + 5, "rb"); if (!f) die(x + 5);
        char *b = malloc(16 << 20); expect_len = fread(b, 1, 16 << 20, f); expect = b; fclose(f);
    }
    else if (!strncmp(x, "len:", 4)) expect_len = atoll(x + 4);
    if (G) return probe_values();
    if (M) return probe_mux(M);
    int *idle = calloc(idle_n + idlej_n + 1, sizeof(int)), ni = 0, jok = 0, jfail = 0; C *tmp = calloc(1, sizeof *tmp); double jtime = 0;
    for (int i = 0; i < idle_n; i++) { int fd = sock_open(0); if (fd < 0) { backlog_full++; usleep(1000); if (backlog_full > 5000u) break; i--; continue; } idle[ni++] = fd; }
    if (idlej_n) { uint64_t t = now(); int consec = 0;
        for (int i = 0; i < idlej_n && consec < 3; i++) { int fd = sock_open(0); if (fd < 0) { jfail++; consec++; usleep(10000); continue; } int fl = fcntl(fd, F_GETFL); fcntl(fd, F_SETFL, fl & ~O_NONBLOCK);
            int r = one(tmp, fd, timeout_ms); if (r) { jfail++; consec++; close(fd); } else { jok++; consec = 0; idle[ni++] = fd; } }
        jtime = (now() - t) / 1e9; }
    for (int i = 0; i < abort_n + abortb_n; i++) { int fd = sock_open(0); if (fd < 0) { usleep(1000); if (backlog_full++ > 20000u) break; i--; continue; }
        if (send(fd, req, i < abort_n ? reqlen : half, MSG_NOSIGNAL) < 0) {} close(fd); }
    if (abort_n + abortb_n) usleep(abort_wait * 1000);
    ep = epoll_create1(0); C *cs = calloc(nconn, sizeof *cs); connects = 0;
    struct rusage r0, r1; getrusage(RUSAGE_SELF, &r0);
    uint64_t T0 = now(), TE = T0 + (uint64_t)(dur * 1e9), lastchk = T0; int live = 1;
    for (int i = 0; i < nconn; i++) { cs[i].fd = -1; if (started < maxreq) { started++; c_start(&cs[i], 1); } }
    struct epoll_event evs[256];
    while (live) {
        int n = epoll_wait(ep, evs, 256, waiting ? 1 : 50); uint64_t t = now();
        if (!stopping && t >= TE) { stopping = 1; for (int i = 0; i < nconn; i++) if (cs[i].t0) { if ((int64_t)(t - cs[i].t0) > (int64_t)(dur * 0.4e9 > 0.3e9 ? dur * 0.4e9 : 0.3e9)) stalled++; c_close(&cs[i]); cs[i].t0 = 0; } break; }
        for (int i = 0; i < n; i++) on_event(evs[i].data.ptr, evs[i].events);
        if (waiting) for (int i = 0; i < nconn; i++) if (cs[i].waitretry && cs[i].fd < 0) c_connect(&cs[i]);
        if (t - lastchk > 20000000) { lastchk = t; for (int i = 0; i < nconn; i++) if (cs[i].t0 && (int64_t)(t - cs[i].t0) > timeout_ms * 1000000ll) { timeouts++; c_close(&cs[i]);
            if (cs[i].waitretry) { cs[i].waitretry = 0; waiting--; }
            if (!stopping && started < maxreq) { started++; c_start(&cs[i], 1); } else cs[i].t0 = 0; } }
        live = 0; for (int i = 0; i < nconn && !live; i++) if (cs[i].t0) live = 1;
    }
    double el = (now() - T0) / 1e9; getrusage(RUSAGE_SELF, &r1);
    int closed = 0; for (int i = 0; i < ni; i++) { struct pollfd p = {idle[i], POLLIN, 0}; if (poll(&p, 1, 0) > 0) { char b1; if (recv(idle[i], &b1, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) closed++; } }
    qsort(lat, nlat, sizeof *lat, cmp);
    uint64_t ne = 0; for (int i = 1; i < E_MAX; i++) ne += errs[i];
    double cpu = (r1.ru_utime.tv_sec - r0.ru_utime.tv_sec + r1.ru_stime.tv_sec - r0.ru_stime.tv_sec) + (r1.ru_utime.tv_usec - r0.ru_utime.tv_usec + r1.ru_stime.tv_usec - r0.ru_stime.tv_usec) / 1e6;
    char eb[256] = ""; for (int i = 1; i < E_MAX; i++) if (errs[i]) snprintf(eb + strlen(eb), sizeof eb - strlen(eb), " %s=%lu", EN[i], errs[i]);
    if (json) printf("{\"rps\":%.1f,\"ok\":%lu,\"errors\":%lu,\"errkinds\":\"%s\",\"timeouts\":%lu,\"stalled\":%lu,\"reconnects\":%lu,\"connects\":%lu,\"backlog_full\":%lu,\"stderr\":%lu,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"elapsed\":%.3f,\"client_us\":%.2f,\"idle_held\":%d,\"idle_ok\":%d,\"idle_fail\":%d,\"idle_closed\":%d,\"idle_s\":%.2f,\"reqlen\":%zu,\"plen\":%zu}\n",
        ok / el, ok, ne, eb[0] ? eb + 1 : "", timeouts, stalled, reconnects, connects, backlog_full, stderr_bytes, pc(.5), pc(.9), pc(.99), pc(1), el, ok ? cpu * 1e6 / ok : 0, ni, jok, jfail, closed, jtime, reqlen, plen);
    else {
        printf("%.0f req/s  ok %lu  errors %lu%s  timeouts %lu  stalled %lu  connects %lu  reconnects %lu  backlog_full %lu  stderr %lu B\n", ok / el, ok, ne, eb, timeouts, stalled, connects, reconnects, backlog_full, stderr_bytes);
        printf("latency us: p50 %.1f  p90 %.1f  p99 %.1f  max %.1f   client cpu %.2f us/req   (params %zu B, request %zu B)\n", pc(.5), pc(.9), pc(.99), pc(1), ok ? cpu * 1e6 / ok : 0, plen, reqlen);
        if (idle_n || idlej_n) printf("idle connections held %d (first request ok %d, failed %d, %.2f s), closed by the server meanwhile %d\n", ni, jok, jfail, jtime, closed);
    }
    return ne || timeouts ? 1 : 0;
}
