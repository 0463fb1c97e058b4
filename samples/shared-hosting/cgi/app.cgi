#!/usr/bin/python3
# Run:  python3 samples/shared-hosting/fastcgi/dispatch.fcgi 127.0.0.1:9000
#
# On a host Apache runs it: docs/shared-hosting.md.  It needs mode 755, Unix line ends, the
# folder gateways/ beside it, and Python 3.11 or newer in its first line.  As app.cgi the same file
# is a CGI script.

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# Yours to change: the file with the application, and how many requests one process runs at once.
# mod_fcgid hands out one at a time, so more threads would only be counted against you.
APPLICATION = os.path.join(HERE, "application.py")
THREADS = 1

# Where there is only CGI: a process with so many threads stays to answer the next requests; 0 starts
# Python anew for each request.
WARM_THREADS = 0

# Above this folder, so that no visitor can ask for it.  If this folder is itself below the web
# server's document root, name a place outside of that; inside it is refused.
CRASH_LOG = os.path.join(os.path.dirname(HERE), "crash.log")

# The same goes for the folder of the warm process's socket, which is made where it is missing.
PRIVATE = os.path.join(os.path.dirname(HERE), ".gateways")

# Upload one of these anew and the next requests meet your new code.
RESTART = [os.path.join(HERE, "tmp", "restart.txt"), os.path.abspath(__file__)]


def give_up(text):
    sys.stderr.write(text + "\n")
    sys.stdout.write("Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    sys.exit(0)


# Older interpreters, Python 2 among them, have to understand the whole of this file, and do.
if sys.version_info < (3, 11):
    give_up(
        "This is Python %d.%d, and gateways needs 3.11 or newer. Name a newer one in the first"
        " line of %s, such as #!/usr/bin/python3.11; your host knows which there are."
        % (sys.version_info[0], sys.version_info[1], os.path.basename(__file__))
    )
try:
    import gateways
except (ImportError, SyntaxError) as error:
    give_up(
        "The folder gateways/ beside %s is missing or incomplete (%s). Upload it again, whole."
        % (os.path.basename(__file__), error)
    )

OPTIONS = {"script_name": ".", "crash_log": CRASH_LOG, "touch_reload": RESTART}
if WARM_THREADS and os.environ.get("GATEWAY_INTERFACE"):
    from gateways import warm

    warm.run(APPLICATION, threads=WARM_THREADS, runtime_dir=PRIVATE, **OPTIONS)
else:
    OPTIONS.update(threads=THREADS, exclusive=True)
    sys.exit(gateways.run(APPLICATION, *sys.argv[1:2], **OPTIONS))
