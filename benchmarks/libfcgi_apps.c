/* The applications of apps.py in C over libfcgi, each thread one connection after the other:
 *     libfcgi_apps APP SOCKET THREADS        APP: hello, echo or big
 * Build: cc -O2 -pthread -o libfcgi_apps libfcgi_apps.c -lfcgi
 */
#include <fcgiapp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char chunk[65536];

static void hello(FCGX_Request *r) {
    FCGX_PutS("Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello World\n", r->out);
}
static void echo(FCGX_Request *r) {
    const char *text = FCGX_GetParam("CONTENT_LENGTH", r->envp);
    int length = text ? atoi(text) : 0, got = 0, n;
    char *body = malloc(length ? length : 1);
    while (got < length && (n = FCGX_GetStr(body + got, length - got, r->in)) > 0) got += n;
    FCGX_FPrintF(r->out, "Status: 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", got);
    FCGX_PutStr(body, got, r->out);
    free(body);
}
static void big(FCGX_Request *r) {
    FCGX_PutS("Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1048576\r\n\r\n", r->out);
    for (int i = 0; i < 16; i++) FCGX_PutStr(chunk, sizeof chunk, r->out);
}

static void (*app)(FCGX_Request *);
static int listener;

/* A thread keeps its connection as long as its peer does, so there are as many as connections. */
static void *serve(void *unused) {
    (void)unused;
    FCGX_Request request;
    FCGX_InitRequest(&request, listener, 0);
    while (FCGX_Accept_r(&request) == 0) { app(&request); FCGX_Finish_r(&request); }
    return NULL;
}
int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: libfcgi_apps APP SOCKET THREADS\n"); return 2; }
    app = !strcmp(argv[1], "echo") ? echo : !strcmp(argv[1], "big") ? big : hello;
    for (size_t i = 0; i < sizeof chunk; i++) chunk[i] = "0123456789abcdef"[i & 15];
    FCGX_Init();
    listener = FCGX_OpenSocket(argv[2], 1024);
    if (listener < 0) { perror("FCGX_OpenSocket"); return 1; }
    pthread_t thread;
    for (int i = 1; i < atoi(argv[3]); i++) pthread_create(&thread, NULL, serve, NULL);
    serve(NULL);
    return 0;
}
