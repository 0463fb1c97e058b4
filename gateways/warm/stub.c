/* The stub of warm CGI in C: hands one CGI request to the resident daemon, which it starts where
   there is none.  It does what stub.py does, and its docstring says why; change both.

   gateways/warm/writing.py puts the settings before this text:
   NAME, FOLDER, APPLICATION_FILE   strings
   DAEMON, PLAIN                    arrays of strings that end with NULL: commands
   KEPT                             the same: names of the environment for the daemon */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_VARIABLES 1000
#define MAX_VARIABLE_BYTES 131072
#define PATIENCE_SECONDS 5
#define PONG_SECONDS 30
#ifndef UNREAD_REQUEST_SECONDS
#define UNREAD_REQUEST_SECONDS 15
#endif
#define BACKLOG 1024
#define PIECE 32768
#define SAFE_WRITE 4096
#define FREE_STARTS 3
#define LONGEST_PAUSE 60
#define LONG_LIFE 120
#define MAX_LOG 1000000
#define UNREAD_SECONDS 5
#define MAX_UNREAD (64LL * 1024 * 1024)
#define TO_THE_END (-1LL)
#define BEGIN "\1\1\0\1\0\x08\0\0\0\1\0\0\0\0\0\0" /* FCGI_BEGIN_REQUEST, a responder's */
#define BEGIN_SIZE (sizeof BEGIN - 1)

extern char **environ;

static long long body;       /* bytes of body still to be read from stdin, TO_THE_END without a length */
static int safe;             /* the request may be made twice without harm */
static int here = -1;        /* the private folder */
static int started;          /* something of the answer has been written */
static char *head;           /* the request's head as FastCGI records */
static size_t head_size;

static void say(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size < 0)
        return;
    if ((size_t)size >= sizeof line)
        size = sizeof line - 1;
    if (write(2, line, (size_t)size) < 0)
        return; /* nobody logs */
}

/* The request is not with the daemon: answer it as plain CGI. */
static void plain(const char *why, const char *more) {
    if (why != NULL)
        say("gateways: warm CGI: %s%s%s; answering as plain CGI\n", why, *more ? ": " : "", more);
    signal(SIGPIPE, SIG_DFL);
    execv(PLAIN[0], (char *const *)PLAIN);
    say("gateways: warm CGI: cannot run %s: %s\n", PLAIN[0], strerror(errno));
    static const char answer[] = "Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n"
                                 "The application cannot be started; the error log says why.\n";
    if (write(1, answer, sizeof answer - 1) < 0)
        _exit(1);
    _exit(0);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void nap(void) {
    struct timespec time = {0, 5000000};
    nanosleep(&time, NULL);
}

/* The private folder. */

static void open_folder(void) {
    static char path[4096];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat found;
    uid_t uid = geteuid();
    int size;
    if (*FOLDER)
        size = snprintf(path, sizeof path, "%s", FOLDER);
    else if (runtime != NULL && *runtime == '/' && lstat(runtime, &found) == 0 &&
             found.st_uid == uid && S_ISDIR(found.st_mode) && (found.st_mode & 077) == 0)
        size = snprintf(path, sizeof path, "%s/gateways", runtime);
    else
        size = snprintf(path, sizeof path, "/tmp/gateways-%lu", (unsigned long)uid);
    if (size < 0 || (size_t)size >= sizeof path)
        plain("the private folder's path is too long", "");
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        plain("cannot make the private folder", strerror(errno));
    here = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (here < 0)
        plain("the private folder is no folder of ours, choose another with --runtime-dir", path);
    if (fstat(here, &found) < 0 || found.st_uid != uid || (found.st_mode & 0777) != 0700)
        plain("the private folder must be ours and of mode 700, choose another with --runtime-dir",
              path);
}

static int with_address(int sock, int (*call)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    /* NAME is 32 digits: in the folder it always fits. */
    memcpy(address.sun_path, NAME, sizeof NAME);
    int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC); /* it may not be readable */
    if (back < 0)
        plain("cannot open the script's folder", strerror(errno));
    int result = fchdir(here);
    if (result == 0)
        result = call(sock, (struct sockaddr *)&address, sizeof address);
    int error = errno;
    if (fchdir(back) < 0)
        plain("cannot go back to the script's folder", strerror(errno));
    close(back);
    errno = error;
    return result;
}

/* Return a connection to the daemon, -1 where nobody listens. */
static int reach(void) {
    double deadline = now() + PATIENCE_SECONDS;
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        plain("cannot make a socket", strerror(errno));
    struct timeval patience = {PATIENCE_SECONDS, 0};
    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    while (with_address(sock, connect) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED) {
            close(sock);
            return -1;
        }
        if (errno != EAGAIN && errno != EINTR)
            plain("cannot connect to the daemon", strerror(errno));
        if (now() > deadline)
            plain("too many requests wait for the daemon", "");
        nap();
    }
    struct ucred owner;
    socklen_t size = sizeof owner;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &owner, &size) < 0 || owner.uid != geteuid())
        plain("the daemon's socket is another user's", "");
    return sock;
}

/* Starting the daemon. */

/* Count this start; plain CGI when the last ones failed and it is too early for another. */
static void note_start(int note) {
    struct stat found, application;
    if (fstat(note, &found) < 0)
        plain("cannot read the note", strerror(errno));
    long long starts = found.st_size;
    long long today = (long long)time(NULL), age = today - (long long)found.st_mtime;
    int mended = *APPLICATION_FILE && stat(APPLICATION_FILE, &application) == 0 &&
                 (long long)application.st_mtim.tv_sec <= today &&
                 (application.st_mtim.tv_sec > found.st_mtim.tv_sec ||
                  (application.st_mtim.tv_sec == found.st_mtim.tv_sec &&
                   application.st_mtim.tv_nsec > found.st_mtim.tv_nsec));
    if (age < 0 || age > LONG_LIFE || mended) {
        starts = 0;
        if (ftruncate(note, 0) < 0)
            plain("cannot write the note", strerror(errno));
    }
    long long pause = 0;
    if (starts >= FREE_STARTS) {
        long long doubled = starts - FREE_STARTS;
        pause = doubled > 5 ? LONGEST_PAUSE : 1LL << doubled;
    }
    if (starts > 0 && age < pause)
        plain("the daemon has failed several times, its .log in the private folder says why", "");
    if (write(note, "+", 1) != 1)
        plain("cannot write the note", strerror(errno));
}

static int is_kept(const char *variable) {
    const char *equals = strchr(variable, '=');
    if (equals == NULL)
        return 0;
    if (strncmp(variable, "LC_", 3) == 0 || strncmp(variable, "PYTHON", 6) == 0)
        return 1;
    size_t size = (size_t)(equals - variable);
    for (const char *const *name = KEPT; *name != NULL; name++)
        if (strlen(*name) == size && memcmp(*name, variable, size) == 0)
            return 1;
    return 0;
}

static void close_from(int lowest) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)lowest, ~0U, 0U) == 0)
        return;
#endif
    long most = sysconf(_SC_OPEN_MAX);
    for (int each = lowest; each < (most > 0 && most < 65536 ? most : 65536); each++)
        close(each);
}

static int out_of_the_way(int descriptor) {
    int moved = fcntl(descriptor, F_DUPFD, 10);
    if (moved < 0)
        _exit(127);
    return moved;
}

/* In the child: turn into the daemon, which belongs to nobody. */
static void become(int listener, int output, int note) {
    setsid();
    pid_t pid = fork();
    if (pid != 0)
        _exit(pid < 0 ? 127 : 0);
    for (int number = 1; number < 32; number++)
        signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    listener = out_of_the_way(listener);
    output = out_of_the_way(output);
    note = out_of_the_way(note);
    if (dup2(listener, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 || dup2(note, 3) < 0)
        _exit(127);
    close_from(4);
    size_t count = 0, kept = 0;
    while (environ[count] != NULL)
        count++;
    char **environment = calloc(count + 1, sizeof *environment);
    if (environment == NULL)
        _exit(127);
    for (size_t each = 0; each < count; each++)
        if (is_kept(environ[each]))
            environment[kept++] = environ[each];
    execve(DAEMON[0], (char *const *)DAEMON, environment);
    say("gateways: warm CGI: cannot run %s: %s\n", DAEMON[0], strerror(errno));
    _exit(127);
}

/* Open a plain file of the private folder, made where it is missing. */
static int open_file(const char *name, int access, struct stat *found) {
    /* A pipe would be waited for without O_NONBLOCK; to a file it means nothing. */
    int flags = O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_APPEND | O_NONBLOCK;
    int file = openat(here, name, flags | access, 0600);
    if (file < 0 || fstat(file, found) < 0)
        plain("cannot write to a file in the private folder", strerror(errno));
    if (!S_ISREG(found->st_mode))
        plain("in the private folder, remove what is no plain file", name);
    return file;
}

/* Listen, and start the daemon on it.  The folder is locked. */
static void start(void) {
    struct stat found;
    int note = open_file(NAME ".note", O_RDWR, &found);
    note_start(note);
    int output = open_file(NAME ".log", O_WRONLY, &found);
    if (found.st_size > MAX_LOG && ftruncate(output, 0) < 0)
        plain("cannot write the log", strerror(errno));
    if (unlinkat(here, NAME, 0) < 0 && errno != ENOENT)
        plain("cannot remove the old socket", strerror(errno));
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t before = umask(077);
    int bound = listener < 0 ? -1 : with_address(listener, bind);
    umask(before);
    if (bound < 0 || listen(listener, BACKLOG) < 0)
        plain("cannot listen in the private folder", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        become(listener, output, note);
    if (pid < 0)
        plain("cannot start a process", strerror(errno));
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    close(listener);
    close(output);
    close(note);
}

/* Return a connection to the daemon, started where nobody listens. */
static int reach_or_start(void) {
    int sock = reach();
    if (sock >= 0)
        return sock;
    double deadline = now() + PATIENCE_SECONDS;
    while (flock(here, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            plain("cannot lock the private folder, choose another with --runtime-dir",
                  strerror(errno));
        if (now() > deadline)
            plain("the lock of the private folder is not to be had", "");
        nap();
    }
    sock = reach();
    if (sock < 0) {
        start();
        sock = reach();
    }
    flock(here, LOCK_UN);
    if (sock < 0)
        plain("the daemon ended at once", "");
    return sock;
}

/* The request. */

static void add(const void *data, size_t size) {
    memcpy(head + head_size, data, size);
    head_size += size;
}

static void add_record(unsigned kind, const char *content, size_t size) {
    unsigned char record[8] = {1, (unsigned char)kind, 0, 1, (unsigned char)(size >> 8),
                               (unsigned char)size, 0, 0};
    add(record, sizeof record);
    if (size > 0)
        add(content, size);
}

static size_t put_length(unsigned char *where, size_t length) {
    if (length < 128) {
        where[0] = (unsigned char)length;
        return 1;
    }
    where[0] = (unsigned char)(0x80 | (length >> 24));
    where[1] = (unsigned char)(length >> 16);
    where[2] = (unsigned char)(length >> 8);
    where[3] = (unsigned char)length;
    return 4;
}

static void read_body_length(void) {
    const char *length = getenv("CONTENT_LENGTH");
    const char *method = getenv("REQUEST_METHOD");
    body = 0;
    if (length != NULL && *length) {
        size_t digits = strspn(length, "0123456789");
        if (length[digits] != '\0' || digits > 18)
            plain("its CONTENT_LENGTH is no length", "");
        body = strtoll(length, NULL, 10);
    } else if (getenv("HTTP_TRANSFER_ENCODING") != NULL && *getenv("HTTP_TRANSFER_ENCODING")) {
        body = TO_THE_END;
    }
    safe = body == 0 && method != NULL &&
           (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ||
            strcmp(method, "OPTIONS") == 0);
}

static void make_head(void) {
    size_t count = 0, size = 0;
    for (char **each = environ; *each != NULL; each++) {
        const char *equals = strchr(*each, '=');
        if (equals == NULL)
            continue;
        size_t length = strlen(*each);
        if (++count > MAX_VARIABLES || length > MAX_VARIABLE_BYTES)
            plain("the request's head is longer than the daemon takes", "");
        size += length + 8;
        if (size > MAX_VARIABLE_BYTES)
            plain("the request's head is longer than the daemon takes", "");
    }
    char *params = malloc(size + 1);
    /* Records of params, each with its head, and the four that stand around them. */
    head = malloc(size + 8 * (size / 65528 + 1) + 64);
    if (params == NULL || head == NULL)
        plain("no memory", "");
    size_t used = 0;
    for (char **each = environ; *each != NULL; each++) {
        const char *equals = strchr(*each, '=');
        if (equals == NULL)
            continue;
        size_t name = (size_t)(equals - *each), value = strlen(equals + 1);
        used += put_length((unsigned char *)params + used, name);
        used += put_length((unsigned char *)params + used, value);
        memcpy(params + used, *each, name);
        used += name;
        memcpy(params + used, equals + 1, value);
        used += value;
    }
    add(BEGIN, BEGIN_SIZE);
    for (size_t at = 0; at < used; at += 65528)
        add_record(4, params + at, used - at < 65528 ? used - at : 65528);
    add_record(4, NULL, 0);
    if (body == 0)
        add_record(5, NULL, 0);
    free(params);
}

/* Ask the daemon for its values (FastCGI 4.1), so as to know that it lives. */
static int answers(int sock) {
    /* The request is opened at once, so that a daemon which is about to end waits for the rest of
       it; no application is told of a request whose variables have not all come. */
    static const char question[] = "\1\x09\0\0\0\x11\0\0\x0f\0FCGI_MPXS_CONNS" BEGIN;
    unsigned char answer[512];
    size_t have = 0, want = 8;
    double deadline = now() + PONG_SECONDS;
    if (send(sock, question, sizeof question - 1, MSG_NOSIGNAL) != (ssize_t)sizeof question - 1)
        return 0;
    while (have < want) {
        struct pollfd wait = {sock, POLLIN, 0};
        double left = deadline - now();
        if (left <= 0)
            plain("the daemon does not answer", "");
        int ready = poll(&wait, 1, (int)(left * 1000) + 1);
        if (ready < 0 && errno != EINTR)
            return 0;
        if (ready <= 0)
            continue;
        ssize_t got = recv(sock, answer + have, want - have, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0)
            return 0;
        have += (size_t)got;
        if (have == 8 && want == 8) {
            want = 8 + ((size_t)answer[4] << 8) + answer[5] + answer[6];
            if (answer[1] != 10 || want > sizeof answer)
                plain("something else than the daemon answers at its socket", "");
        }
    }
    return 1;
}

/* The exchange. */

static char outbox[PIECE + 16];
static const char *out;
static size_t out_size;
static int sent_all;
static char answer[65536];    /* what of the answer waits for the web server */
static size_t answer_at, answer_size;
static unsigned char record[8]; /* the head of the record that comes, and END_REQUEST's content */
static size_t record_have, content_left, padding_left, ending_have;
static unsigned char ending[8];
static int status = -1;
static int answered; /* something of the answer has come */

static void take_body(void) {
    size_t size = body == TO_THE_END || body > PIECE ? PIECE : (size_t)body;
    ssize_t got = read(0, outbox + 8, size);
    if (got < 0) {
        if (errno == EINTR || errno == EAGAIN)
            return;
        _exit(1); /* under mod_cgid stdin is a socket: the visitor has left */
    }
    size_t used = 0;
    if (body != TO_THE_END)
        body -= got;
    if (got > 0) {
        const unsigned char record_head[8] = {1, 5, 0, 1, (unsigned char)(got >> 8),
                                              (unsigned char)got, 0, 0};
        memcpy(outbox, record_head, 8);
        used = 8 + (size_t)got;
    }
    if (got == 0 || body == 0) {
        static const char end[8] = {1, 5, 0, 1, 0, 0, 0, 0};
        memcpy(outbox + used, end, 8);
        used += 8;
        sent_all = 1;
    }
    out = outbox;
    out_size = used;
}

static void write_answer(int may_block) {
    while (answer_size > 0) {
        size_t size = answer_size;
        if (!may_block) {
            struct pollfd ready = {1, POLLOUT, 0};
            if (poll(&ready, 1, 0) <= 0)
                return;
            if (size > SAFE_WRITE)
                size = SAFE_WRITE;
        }
        started = 1;
        ssize_t wrote = write(1, answer + answer_at, size);
        if (wrote < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                _exit(1); /* the visitor has left */
            if (!may_block)
                return;
            struct pollfd room = {1, POLLOUT, 0};
            poll(&room, 1, -1);
            continue;
        }
        answer_at += (size_t)wrote;
        answer_size -= (size_t)wrote;
        if (!may_block)
            return;
    }
}

static void log_lines(const char *data, size_t size) {
    while (size > 0) {
        ssize_t wrote = write(2, data, size);
        if (wrote <= 0)
            return; /* nobody logs */
        data += wrote;
        size -= (size_t)wrote;
    }
}

/* Take FastCGI records from `data`, cut anywhere; the answer's bytes are gathered in `answer`. */
static void take_records(const char *data, size_t size) {
    while (size > 0 && status < 0) {
        if (record_have < 8) {
            size_t part = 8 - record_have < size ? 8 - record_have : size;
            memcpy(record + record_have, data, part);
            record_have += part;
            data += part;
            size -= part;
            if (record_have < 8)
                return;
            content_left = ((size_t)record[4] << 8) + record[5];
            padding_left = record[6];
            ending_have = 0;
        }
        if (content_left > 0) {
            size_t part = content_left < size ? content_left : size;
            if (record[1] == 6) {
                memcpy(answer + answer_size, data, part);
                answer_size += part;
                answered = 1;
            } else if (record[1] == 7) {
                log_lines(data, part);
            } else if (record[1] == 3 && ending_have < 8) {
                size_t room = 8 - ending_have < part ? 8 - ending_have : part;
                memcpy(ending + ending_have, data, room);
                ending_have += room;
            }
            data += part;
            size -= part;
            content_left -= part;
        }
        if (content_left == 0 && padding_left > 0) {
            size_t part = padding_left < size ? padding_left : size;
            data += part;
            size -= part;
            padding_left -= part;
        }
        if (content_left == 0 && padding_left == 0) {
            record_have = 0;
            if (record[1] == 3)
                status = ending[0] || ending[1] || ending[2] ? 255 : ending[3];
        }
    }
}

/* Take what has come; return what is wrong, NULL if nothing. */
static const char *receive(int sock) {
    static char data[sizeof answer];
    if (answer_size > 0)
        return NULL;
    answer_at = 0;
    ssize_t got = recv(sock, data, sizeof data, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? NULL : strerror(errno);
    take_records(data, (size_t)got);
    return got == 0 ? "it closed the connection" : NULL;
}

static void send_outbox(int sock) {
    while (out_size > 0) {
        ssize_t sent = send(sock, out, out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (sent < 0) {
            /* It may have answered before it closed; if not, that is seen when its answer is read. */
            out_size = 0;
            sent_all = 1;
            return;
        }
        out += sent;
        out_size -= (size_t)sent;
    }
}

/* Nothing has come for long: plain CGI if the daemon, which may be stopped or out of threads or
   descriptors, has not even read the request.  Once read it takes as long as the application does. */
static void check_taken(int sock) {
    int unread;
    if (ioctl(sock, TIOCOUTQ, &unread) == 0 && unread > 0)
        plain("the daemon does not come to read the request", "");
}

static void wait_for_something(int sock) {
    int reading = out_size == 0 && !sent_all;
    struct pollfd each[3] = {
        {sock, (short)((answer_size ? 0 : POLLIN) | (out_size ? POLLOUT : 0)), 0},
        {1, answer_size ? POLLOUT : 0, 0},
        {0, POLLIN, 0},
    };
    int unsure = safe && !answered;
    int ready = poll(each, reading ? 3 : 2, unsure ? (int)(UNREAD_REQUEST_SECONDS * 1000) : -1);
    if (ready == 0)
        check_taken(sock);
    if (ready < 0) {
        if (errno != EINTR)
            _exit(1);
        return;
    }
    if (reading && each[2].revents)
        take_body();
    if (each[1].revents & (POLLERR | POLLHUP | POLLNVAL))
        _exit(1); /* the visitor has left; the daemon sees this end, and aborts */
}

/* The daemon has died over this request. */
static int give_up(const char *why) {
    write_answer(1);
    if (started) {
        say("gateways: warm CGI: the daemon broke the answer off: %s\n", why);
        return 1;
    }
    if (safe)
        plain("the daemon ended over the request", why);
    say("gateways: warm CGI: the daemon ended over the request: %s; whether the application has"
        " acted on it is not known, so it is not sent again\n",
        why);
    static const char sorry[] =
        "Status: 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        "The application ended before it answered. It may or may not have acted on this request.\n";
    memcpy(answer, sorry, sizeof sorry - 1);
    answer_at = 0;
    answer_size = sizeof sorry - 1;
    write_answer(1);
    return 1;
}

/* Read what is left of the body: closed over it, a mod_cgid socket would lose the answer. */
static void read_rest(void) {
    double deadline = now() + UNREAD_SECONDS;
    long long most = body == TO_THE_END || body > MAX_UNREAD ? MAX_UNREAD : body;
    if (sent_all && body <= 0)
        return;
    while (most > 0) {
        struct pollfd ready = {0, POLLIN, 0};
        double left = deadline - now();
        if (left <= 0 || poll(&ready, 1, (int)(left * 1000) + 1) <= 0)
            return;
        ssize_t got = read(0, outbox, most < PIECE ? (size_t)most : PIECE);
        if (got <= 0)
            return;
        most -= got;
    }
}

static int exchange(int sock) {
    size_t begun = safe ? 0 : BEGIN_SIZE; /* `answers` has sent that */
    out = head + begun;
    out_size = head_size - begun;
    sent_all = body == 0;
    while (status < 0) {
        send_outbox(sock);
        wait_for_something(sock);
        const char *broken = receive(sock);
        write_answer(sent_all);
        if (broken != NULL && status < 0)
            return give_up(broken);
    }
    if (!answered) /* ending[4] is the protocolStatus (FastCGI 5.5) */
        return give_up(ending[4] ? "it did not take the request" : "it sent no answer");
    write_answer(1);
    read_rest();
    return status;
}

/* Open /dev/null where 0, 1 or 2 is closed: a socket would take its number. */
static void fill_standard_descriptors(void) {
    int opened;
    do {
        opened = open("/dev/null", O_RDWR);
    } while (opened >= 0 && opened < 3);
    if (opened >= 3)
        close(opened);
}

int main(void) {
    fill_standard_descriptors();
    read_body_length();
    make_head();
    open_folder();
    signal(SIGPIPE, SIG_IGN);
    int sock = reach_or_start();
    if (!safe && !answers(sock)) {
        /* It was killed before it looked; nobody has seen the request. */
        close(sock);
        sock = reach_or_start();
        if (!answers(sock))
            plain("the daemon ended before it took the request", "");
    }
    return exchange(sock);
}
