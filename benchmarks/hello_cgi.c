/* A CGI script in C; and with arguments, what it costs by itself.
 *
 * hello_cgi              as a CGI script: says hello
 * hello_cgi PROGRAM N    starts PROGRAM so many times, as vfork and exec do it, waits for each, and prints the
 *                        microseconds of CPU of one run, the kernel's account of the children
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;

static double seconds(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello World\n", stdout);
        return 0;
    }
    int runs = atoi(argv[2]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    char *words[] = {argv[1], NULL};
    for (int i = 0; i < runs; i++) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, argv[1], &actions, NULL, words, environ) || waitpid(pid, &status, 0) < 0 || status) {
            fprintf(stderr, "%s could not be run\n", argv[1]);
            return 1;
        }
    }
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    printf("%.2f\n", 1e6 * (seconds(used.ru_utime) + seconds(used.ru_stime)) / runs);
    return 0;
}
