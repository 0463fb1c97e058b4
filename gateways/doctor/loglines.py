"""The lines of error logs that people search for: what each means, and what it lets one look at next.

`TABLE` is the only list of them; docs/doctor.md shows it.  An address or a script that a line
names is then examined as if it had been given, with two bounds, because a line may hold what a
visitor wrote: only sockets of this machine are connected to, and no script that a line names is
run, nor mended, nor handed to the interpreter that it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateways.addresses import Address
from gateways.doctor import script, sockets
from gateways.doctor.findings import Finding, Report, Wishes, command, shown
from gateways.errors import ConfigurationError

NGINX, APACHE, LIGHTTPD, GATEWAYS = "nginx", "Apache", "lighttpd", "gateways"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A kind of line: `words` is how people know it, `example` one as the server writes it."""

    code: str
    server: str
    words: str
    pattern: str
    why: str
    mend: str
    example: str
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", re.compile(self.pattern))


_N = "2026/11/21 19:12:42 [error] 983#983: *7 "
_NTAIL = ' while reading response header from upstream, client: 192.0.2.7, server: example.org, request: "GET /a HTTP/1.1", upstream: "fastcgi://127.0.0.1:9000", host: "example.org"'
_NCONN = ' while connecting to upstream, client: 192.0.2.7, server: example.org, request: "GET /a HTTP/1.1", upstream: "fastcgi://unix:/run/app.sock:", host: "example.org"'
_A = "[Sat Nov 21 19:13:17.082255 2026] [cgi:error] [pid 82:tid 82] [client 192.0.2.7:44776] "
_AP = (
    "[Sat Nov 21 19:13:20.208365 2026] [proxy_fcgi:error] [pid 82:tid 82] [client 192.0.2.7:44892] "
)
_AC = "[Sat Nov 21 19:13:20.213226 2026] [proxy:error] [pid 83:tid 83] "
_AF = "[Sat Nov 21 19:13:23.272324 2026] [fcgid:warn] [pid 84:tid 84] [client 192.0.2.7:44968] "
_L = "2026-11-21 19:20:01: "
_G = "2026-11-21 19:20:01 [4711] "

_WRONG = "one side speaks FastCGI and the other something else (HTTP, SCGI, uwsgi), or the application printed to its standard output"
_WRONG_MEND = "`fastcgi_pass` for `fcgi`, `scgi_pass` for `scgi`, `proxy_pass` for HTTP; `gateways doctor ADDRESS` tells which is spoken"
_REFUSED = "nobody listens there: the application is not running, or listens elsewhere"
_REFUSED_MEND = "start it, or compare both addresses: `gateways serve APP -b ADDRESS`"
_BARRED = "the web server's user may not write to the socket, or not enter a folder above it; under SELinux the same is said although all modes are right"
_BARRED_MEND = "`gateways serve … --socket-group www-data`, `chmod o+x` on the folders; `gateways doctor ADDRESS` names each; SELinux: `ausearch -m avc`"
_GONE = "the application ended, was killed, or closed the connection without an answer"
_GONE_MEND = "its own log says why; killed for memory: `dmesg`; or the socket speaks another protocol: `gateways doctor ADDRESS`"
_SLOW = "the application was connected to and did not answer within the web server's time limit (nginx, Apache: 60 s)"
_SLOW_MEND = "its log says what its threads do; more `--threads`, or a longer `fastcgi_read_timeout` or `ProxyTimeout`"
_NOTHING = "the script ended before it had written a whole head: it could not be started, failed, or forgot the empty line"
_NOTHING_MEND = "`gateways doctor --run SCRIPT`; the lines before this one may hold its traceback"
_NO_FILE = "a script cannot be started: its interpreter is missing, or its first line ends in CR LF"
_PHP = "PHP-FPM runs the file that SCRIPT_FILENAME names, and finds none: a wrong root, a chroot, or a folder that its user may not enter"
_PHP_MEND = "nginx: `fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;`"

TABLE = (
    # nginx
    LogLine("nginx-permission", NGINX, "connect() to unix:… failed (13: Permission denied)",
        r"connect\(\) to unix:\S+ failed \(13: Permission denied\)", _BARRED, _BARRED_MEND,
        "2026/11/21 19:12:42 [crit] 983#983: *21 connect() to unix:/run/app.sock failed (13: Permission denied)" + _NCONN),
    LogLine("nginx-no-socket", NGINX, "connect() to unix:… failed (2: No such file or directory)",
        r"connect\(\) to unix:\S+ failed \(2: No such file", "there is no socket file at that path: the application is not running, or made it elsewhere", _REFUSED_MEND,
        "2026/11/21 19:12:42 [crit] 983#983: *23 connect() to unix:/run/app.sock failed (2: No such file or directory)" + _NCONN),
    LogLine("nginx-backlog", NGINX, "connect() to unix:… failed (11: Resource temporarily unavailable)",
        r"connect\(\) to unix:\S+ failed \(11: Resource temporarily", "the socket's backlog is full: requests come faster than the application takes them, or it is stuck",
        "more `--workers` or `--threads`; a longer `--backlog`, up to `sysctl net.core.somaxconn`",
        _N + "connect() to unix:/run/app.sock failed (11: Resource temporarily unavailable)" + _NCONN),
    LogLine("nginx-refused", NGINX, "connect() failed (111: Connection refused)",
        r"connect\(\) (?:to unix:\S+ )?failed \(111: ", _REFUSED, _REFUSED_MEND,
        _N + "connect() failed (111: Connection refused)" + _NCONN.replace("unix:/run/app.sock:", "127.0.0.1:9000")),
    LogLine("nginx-host-unreachable", NGINX, "connect() failed (113: No route to host)",
        r"connect\(\) (?:to \S+ )?failed \((?:113|101): ", "the machine in fastcgi_pass or proxy_pass cannot be reached: it is down, or a firewall refuses", "`ping` it; open the port for the web server alone",
        _N + "connect() failed (113: No route to host)" + _NCONN.replace("unix:/run/app.sock:", "10.0.0.5:9000")),
    LogLine("nginx-unexpected-record", NGINX, "upstream sent unexpected FastCGI record",
        r"upstream sent (?:unexpected FastCGI (?:record|request id)|invalid FastCGI record type)", "the application answered a FastCGI request with records that do not fit: it ended without an answer, mixed up two requests, or wrote to the socket itself",
        "its own log says why it ended; `gateways get -i ADDRESS` shows the answer, `gateways explain` captured bytes",
        _N + "upstream sent unexpected FastCGI record: 3" + _NTAIL),
    LogLine("nginx-version", NGINX, "upstream sent unsupported FastCGI protocol version",
        r"upstream sent unsupported FastCGI protocol version", _WRONG + "; version 72 is the H of HTTP", _WRONG_MEND,
        _N + "upstream sent unsupported FastCGI protocol version: 72" + _NTAIL),
    LogLine("nginx-invalid-header", NGINX, "upstream sent invalid header",
        r"upstream sent invalid header", "a line before the empty one is no header: output before the headers, or SCGI or uwsgi asked of a server that speaks something else (\\x01 is FastCGI)", "print the headers first; " + _WRONG_MEND,
        _N + 'upstream sent invalid header: "\\x01..."' + _NTAIL.replace("fastcgi:", "scgi:")),
    LogLine("nginx-no-http", NGINX, "upstream sent no valid HTTP/1.0 header",
        r"upstream sent no valid HTTP/1\.0 header", "proxy_pass speaks HTTP to something that does not", _WRONG_MEND,
        _N + "upstream sent no valid HTTP/1.0 header" + _NTAIL.replace("fastcgi:", "http:").replace(':9000"', ':9000/a"')),
    LogLine("nginx-closed", NGINX, "upstream prematurely closed connection while reading response header from upstream",
        r"upstream prematurely closed (?:connection|FastCGI)", _GONE, _GONE_MEND,
        _N + "upstream prematurely closed connection" + _NTAIL),
    LogLine("nginx-reset", NGINX, "recv() failed (104: Connection reset by peer)",
        r"(?:recv|writev|sendfile|readv)\(\) failed \((?:104|32): ", _GONE + ", while there was still something to read", _GONE_MEND,
        _N + "recv() failed (104: Connection reset by peer)" + _NTAIL),
    LogLine("nginx-timeout", NGINX, "upstream timed out (110: Connection timed out)",
        r"upstream timed out", _SLOW, _SLOW_MEND,
        _N + "upstream timed out (110: Connection timed out)" + _NTAIL),
    LogLine("nginx-php", NGINX, "FastCGI sent in stderr: \"Primary script unknown\"",
        r"(?<!AH01071: Got error ')(?<!FastCGI-stderr:)Primary script unknown|^File not found\.$", _PHP, _PHP_MEND,
        _N + 'FastCGI sent in stderr: "Primary script unknown"' + _NTAIL),
    LogLine("nginx-fcgiwrap", NGINX, "FastCGI sent in stderr: \"Cannot get script name\"",
        r"Cannot get script name", "fcgiwrap runs the file that SCRIPT_FILENAME names, and there is none, or it is not executable", "nginx: `fastcgi_param SCRIPT_FILENAME /srv/cgi-bin$fastcgi_script_name;` and `gateways doctor SCRIPT`",
        _N + 'FastCGI sent in stderr: "Cannot get script name, are DOCUMENT_ROOT and SCRIPT_NAME (or SCRIPT_FILENAME) set and is the script executable?"' + _NTAIL),
    LogLine("nginx-stderr", NGINX, "FastCGI sent in stderr: …",
        r"FastCGI sent in stderr: ", "the application wrote this to its error output; on its own it is no fault of the connection", "read what it says; an error in the application is mended there",
        _N + 'FastCGI sent in stderr: "Traceback (most recent call last):"' + _NTAIL),
    LogLine("nginx-big-header", NGINX, "upstream sent too big header while reading response header from upstream",
        r"upstream sent too big header", "nginx holds an answer's head in 4 KiB, and cookies or redirects made it larger", "`fastcgi_buffer_size 16k; fastcgi_buffers 8 16k;` (scgi_, uwsgi_, proxy_ likewise)",
        _N + "upstream sent too big header" + _NTAIL),
    LogLine("nginx-big-body", NGINX, "client intended to send too large body",
        r"client intended to send too large (?:chunked )?body", "an upload is longer than nginx allows, 1 MiB unless told otherwise; the visitor gets a 413", "`client_max_body_size 50m;`",
        _N + 'client intended to send too large body: 1000000100 bytes, client: 192.0.2.7, server: example.org, request: "POST /a HTTP/1.1", host: "example.org"'),
    LogLine("nginx-no-live", NGINX, "no live upstreams while connecting to upstream",
        r"no live upstreams while connecting", "every server of the upstream group has failed lately, and nginx tries none of them for 10 s", "the lines before this one say how each failed",
        _N + "no live upstreams" + _NCONN.replace("unix:/run/app.sock:", "backends")),
    LogLine("nginx-bare-file", NGINX, "open() … failed (2: No such file or directory)",
        r'open\(\) "[^"]+" failed \(2: No such file', "nginx looked for a file: no location with fastcgi_pass, scgi_pass or proxy_pass matched the path", "compare `location` with the path; `nginx -T` shows what is in force",
        _N + 'open() "/var/www/html/app" failed (2: No such file or directory), client: 192.0.2.7, server: example.org, request: "GET /app HTTP/1.1", host: "example.org"'),
    # Apache
    LogLine("apache-exec-permission", APACHE, "(13)Permission denied: exec of '…' failed",
        r"Permission denied: exec of(?: '(?P<script>[^']+)')?", "the script is not executable, or a folder above it or its interpreter is closed to the web server's user", "`chmod +x SCRIPT`; `gateways doctor SCRIPT` checks the whole path",
        _A + "AH01215: stderr from /srv/cgi-bin/hello.cgi: (13)Permission denied: exec of '/srv/cgi-bin/hello.cgi' failed"),
    LogLine("apache-exec-format", APACHE, "(8)Exec format error: exec of '…' failed",
        r"Exec format error: exec of(?: '(?P<script>[^']+)')?", "#! is not the very first thing in the script: no such line, or a byte order mark before it", "`gateways doctor --fix SCRIPT`",
        _A + "AH01215: stderr from /srv/cgi-bin/hello.cgi: (8)Exec format error: exec of '/srv/cgi-bin/hello.cgi' failed"),
    LogLine("apache-exec-missing", APACHE, "(2)No such file or directory: exec of '…' failed",
        r"No such file or directory: exec of(?: '(?P<script>[^']+)')?", _NO_FILE + "; Linux says it of the script, which is there", "`gateways doctor --fix SCRIPT`",
        _A + "AH01215: stderr from /srv/cgi-bin/hello.cgi: (2)No such file or directory: exec of '/srv/cgi-bin/hello.cgi' failed"),
    LogLine("apache-env", APACHE, "/usr/bin/env: '…': No such file or directory",
        r"(?:stderr from (?P<script>/[^:]+): )?(?:/usr/bin/)?env: .{1,60}: (?:No such file or directory|Permission denied)", "env finds no such program on the web server's PATH; where it ends in \\r the script has CR LF line ends", "name the interpreter with its whole path in the #! line",
        _A + "AH01215: stderr from /srv/cgi-bin/hello.cgi: /usr/bin/env: 'python9': No such file or directory"),
    LogLine("apache-no-script", APACHE, "script not found or unable to stat",
        r"(?:stderr from (?P<script>/[^:]+): )?script not found or unable to stat", "there is no such script, or the web server's user may not enter a folder above it", "compare ScriptAlias with the path; `gateways doctor SCRIPT`",
        _A + "AH02811: stderr from /srv/cgi-bin/none.cgi: script not found or unable to stat"),
    LogLine("apache-no-execcgi", APACHE, "Options ExecCGI is off in this directory",
        r"(?:stderr from (?P<script>/[^:]+): )?Options ExecCGI is off in this directory", "Apache executes nothing in that folder", "`Options +ExecCGI` for the folder, or ScriptAlias",
        _A + "AH02809: stderr from /srv/www/hello.cgi: Options ExecCGI is off in this directory"),
    LogLine("apache-traceback", APACHE, "stderr from …: …Error: …",
        r"(?:stderr from (?P<script>/[^:]+): |AH01215: )(?:[\w.]+Error|[\w.]+Exception|SystemExit)\b", "the script failed, and this is the last line of its traceback", "mend what it says; `gateways doctor SCRIPT` checks syntax and imports",
        _A + "AH01215: stderr from /srv/cgi-bin/hello.cgi: ModuleNotFoundError: No module named 'flask'"),
    LogLine("apache-suexec", APACHE, "suexec policy violation: see suexec log for more details",
        r"suexec policy violation", "suexec runs only what its owner alone can write to, in a folder of the same owner, below its document root; its own log says which rule was broken", "`tail /var/log/apache2/suexec.log`; `chmod go-w SCRIPT FOLDER`, `chown` to the user of SuexecUserGroup",
        "[Mon Feb 02 21:27:31 2009] [error] [client 192.0.2.7] suexec policy violation: see suexec log for more details"),
    LogLine("apache-premature", APACHE, "Premature end of script headers",
        r"Premature end of script headers(?:: (?P<name>\S+))?", _NOTHING, _NOTHING_MEND,
        _A + "Premature end of script headers: hello.cgi"),
    LogLine("apache-no-output", APACHE, "End of script output before headers",
        r"End of script output before headers(?:: (?P<name>\S+))?", _NOTHING, _NOTHING_MEND,
        _A + "End of script output before headers: hello.cgi"),
    LogLine("apache-malformed", APACHE, "malformed header from script '…': Bad header: …",
        r"malformed header from script(?: '(?P<name>[^']*)')?", "the script wrote something else before its headers, or forgot the empty line behind them; what it wrote is quoted", "headers first, then print(); what is for the log goes to sys.stderr; `gateways doctor --run SCRIPT`",
        _A + "malformed header from script 'hello.cgi': Bad header: <html> hello"),
    LogLine("apache-script-timeout", APACHE, "Timeout waiting for output from CGI script …",
        r"(?:Timeout waiting for output from CGI script (?P<script>/\S+)|Script timed out before returning headers)", "the script wrote nothing for `Timeout` seconds", "let it read no more than CONTENT_LENGTH bytes; `CGIScriptTimeout 120` only lengthens the wait",
        _A + "AH01220: Timeout waiting for output from CGI script /srv/cgi-bin/slow.cgi"),
    LogLine("apache-proxy-permission", APACHE, "(13)Permission denied: AH02454: … attempt to connect to Unix domain socket … failed",
        r"\(13\)Permission denied: AH02454", _BARRED, _BARRED_MEND,
        _AC + "(13)Permission denied: AH02454: FCGI: attempt to connect to Unix domain socket /run/app.sock (localhost:8000) failed"),
    LogLine("apache-proxy-socket", APACHE, "AH02454: … attempt to connect to Unix domain socket … failed",
        r"AH02454", "there is no socket file at that path, or nobody listens any more", _REFUSED_MEND,
        _AC + "(2)No such file or directory: AH02454: FCGI: attempt to connect to Unix domain socket /run/app.sock (localhost:8000) failed"),
    LogLine("apache-proxy-selinux", APACHE, "(13)Permission denied: AH00957: … attempt to connect to … failed",
        r"\(13\)Permission denied: AH00957", "SELinux forbids the web server to connect to TCP ports", "`setsebool -P httpd_can_network_connect on`",
        _AC + "(13)Permission denied: AH00957: FCGI: attempt to connect to 127.0.0.1:9000 (127.0.0.1:9000) failed"),
    LogLine("apache-proxy-refused", APACHE, "(111)Connection refused: AH00957: … attempt to connect to … failed",
        r"AH00957", _REFUSED, _REFUSED_MEND,
        _AC + "(111)Connection refused: AH00957: FCGI: attempt to connect to 127.0.0.1:9000 (127.0.0.1:9000) failed"),
    LogLine("apache-AH01079", APACHE, "AH01079: failed to make connection to backend",
        r"AH01079|AH00866|AH01114", _REFUSED + "; the line before this one says which", _REFUSED_MEND,
        _AP + "AH01079: failed to make connection to backend: 127.0.0.1"),
    LogLine("apache-AH01068", APACHE, "AH01068: Got bogus version",
        r"AH01068|AH01069|AH01072", _WRONG + "; version 72 is the H of HTTP", "`fcgi://` for FastCGI, `scgi://` for SCGI, `http://` for HTTP; `gateways doctor ADDRESS` tells which is spoken",
        _AP + "AH01068: Got bogus version 72"),
    LogLine("apache-AH01075-timeout", APACHE, "(70007)The timeout specified has expired: … AH01075: Error dispatching request to …",
        r"\(70007\).*AH01075", _SLOW, _SLOW_MEND,
        "[Sat Nov 21 19:13:20.194457 2026] [proxy_fcgi:error] [pid 85:tid 85] (70007)The timeout specified has expired: [client 192.0.2.7:44878] AH01075: Error dispatching request to :80: (polling)"),
    LogLine("apache-AH01075", APACHE, "AH01075: Error dispatching request to …",
        r"AH01075|AH01067", _GONE + ", or in another protocol", _GONE_MEND,
        "[Sat Nov 21 19:13:19.186775 2026] [proxy_fcgi:error] [pid 84:tid 84] (104)Connection reset by peer: [client 192.0.2.7:44874] AH01075: Error dispatching request to :80: "),
    LogLine("apache-AH01070", APACHE, "AH01070: Error parsing script headers",
        r"AH01070", "a line before the empty one is no header: the application printed something before them, or speaks another protocol", "`gateways get -i ADDRESS` shows the answer",
        _AP + "AH01070: Error parsing script headers"),
    LogLine("apache-php", APACHE, "AH01071: Got error 'Primary script unknown'",
        r"AH01071.*Primary script unknown", _PHP, "Apache: `SetHandler \"proxy:unix:/run/php-fpm.sock|fcgi://localhost\"` in the folder of the scripts",
        _AP + "AH01071: Got error 'Primary script unknown'"),
    LogLine("apache-AH01071", APACHE, "AH01071: Got error '…'",
        r"AH01071", "the application wrote this to its error output; on its own it is no fault of the connection", "read what it says; an error in the application is mended there",
        _AP + "AH01071: Got error 'Traceback (most recent call last):'"),
    LogLine("apache-AH00860", APACHE, "AH00860: error reading response headers from …",
        r"AH00860: error reading response headers from (?P<scgi>[\w.:\[\]-]+)", "what was asked in SCGI did not answer in it", "`scgi://` for SCGI, `fcgi://` for FastCGI; `gateways doctor ADDRESS` tells which is spoken",
        "[Sat Nov 21 19:13:20.231966 2026] [proxy_scgi:error] [pid 461:tid 461] [client 192.0.2.7:44948] AH00860: error reading response headers from 127.0.0.1:4000"),
    LogLine("apache-AH01102", APACHE, "AH01102: error reading status line from remote server …",
        r"AH01102: error reading status line from remote server (?P<http>[\w.:\[\]-]+)", "what was asked in HTTP did not answer in it, or closed a kept connection", "`fcgi://` or `scgi://` in ProxyPass where those are spoken; `gateways doctor ADDRESS` tells",
        "[Sat Nov 21 19:13:20.246118 2026] [proxy_http:error] [pid 81:tid 81] (70014)End of file found: [client 192.0.2.7:44956] AH01102: error reading status line from remote server 127.0.0.1:9000"),
    LogLine("fcgid-timeout", APACHE, "mod_fcgid: read data timeout in … seconds",
        r"mod_fcgid: read data timeout", "the program did not answer within FcgidIOTimeout, 40 s", "`FcgidIOTimeout 120`; or it is no FastCGI program and waits at its standard input",
        _AF + "mod_fcgid: read data timeout in 40 seconds"),
    LogLine("fcgid-slot", APACHE, "mod_fcgid: can't apply process slot for …",
        r"mod_fcgid: can't apply process slot(?: for (?P<script>/\S+))?", "all processes are busy and no more may be started, or each that was started ended at once", "`gateways doctor SCRIPT`; `FcgidMaxProcessesPerClass`; nothing may be printed to standard output",
        _AF + "mod_fcgid: can't apply process slot for /srv/www/app.fcgi"),
    LogLine("fcgid-body", APACHE, "mod_fcgid: HTTP request length … exceeds MaxRequestLen",
        r"mod_fcgid: HTTP request length .* exceeds MaxRequestLen", "an upload is longer than mod_fcgid allows, 128 KiB unless told otherwise", "`FcgidMaxRequestLen 52428800`",
        _AF + "mod_fcgid: HTTP request length 137568 (so far) exceeds MaxRequestLen (131072)"),
    LogLine("fcgid-read", APACHE, "mod_fcgid: error reading data from FastCGI server",
        r"mod_fcgid: error reading data(?: from FastCGI server)?|mod_fcgid: ap_pass_brigade failed", "the program ended: it could not be started, failed at import, or is a CGI script and no FastCGI program", "`gateways doctor SCRIPT`; the lines before this one may hold its traceback",
        _AF.replace("[client", "(104)Connection reset by peer: [client") + "mod_fcgid: error reading data from FastCGI server"),
    # lighttpd
    LogLine("lighttpd-permission", LIGHTTPD, "establishing connection failed: socket: …: Permission denied",
        r"establishing connection failed: .*: Permission denied", _BARRED, _BARRED_MEND,
        _L + "(gw_backend.c.274) establishing connection failed: socket: unix:/run/app.sock: Permission denied"),
    LogLine("lighttpd-connect", LIGHTTPD, "establishing connection failed: socket: …: Connection refused",
        r"establishing connection failed|\(mod_(?:fastcgi|scgi)\.c\.\d+\) connect failed", _REFUSED, _REFUSED_MEND,
        _L + "(gw_backend.c.290) establishing connection failed: socket: unix:/run/app.sock: Connection refused"),
    LogLine("lighttpd-eof", LIGHTTPD, "unexpected end-of-file (perhaps the fastcgi process died)",
        r"unexpected end-of-file|connection was dropped after accept\(\) \(perhaps", _GONE, _GONE_MEND,
        _L + "(mod_fastcgi.c.2540) unexpected end-of-file (perhaps the fastcgi process died): pid: 19465 socket: unix:/run/app.sock"),
    LogLine("lighttpd-no-response", LIGHTTPD, "response not received, request sent: … on socket: …",
        r"response not received, (?:but )?request (?:not )?sent", _GONE, _GONE_MEND,
        _L + "(mod_fastcgi.c.3326) response not received, request sent: 908 on socket: unix:/run/app.sock for /index.py?, closing connection"),
    LogLine("lighttpd-timeout", LIGHTTPD, "read timeout on socket: …",
        r"\(gw_backend\.c\.\d+\) (?:read|write|connect) timeout on socket: ", "the application did not answer within read-timeout, or did not take the request within write-timeout", "its log says what its threads do; more `--threads`, or a longer `\"read-timeout\"`",
        _L + "(gw_backend.c.2708) read timeout on socket: unix:/run/app.sock (fd: 9)"),
    LogLine("lighttpd-php", LIGHTTPD, "FastCGI-stderr:Primary script unknown",
        r"FastCGI-stderr: ?Primary script unknown", _PHP, "`\"docroot\"` in fastcgi.server, where PHP-FPM sees another folder than lighttpd",
        _L + "(mod_fastcgi.c.449) FastCGI-stderr:Primary script unknown"),
    LogLine("lighttpd-stderr", LIGHTTPD, "FastCGI-stderr:…",
        r"FastCGI-stderr:", "the application wrote this to its error output; on its own it is no fault of the connection", "read what it says; an error in the application is mended there",
        _L + "(mod_fastcgi.c.449) FastCGI-stderr:Traceback (most recent call last):"),
    LogLine("lighttpd-exec", LIGHTTPD, "/path/of/script: Permission denied, No such file or directory, Exec format error",
        r"^(?P<script>/\S+): (?:Permission denied|No such file or directory|Exec format error)$", "lighttpd could not start the script: it is not executable; its interpreter is missing, or its first line ends in CR LF; or it has no #! line", "`gateways doctor --fix SCRIPT`",
        "/srv/cgi-bin/hello.cgi: No such file or directory"),
    LogLine("lighttpd-down", LIGHTTPD, "all handlers for … are down",
        r"all handlers for .* are down", "lighttpd has marked every backend of that path as dead, after it could not connect; the visitor gets a 503", "the lines before this one say why; `disable-time` is how long a backend is left alone",
        _L + "(gw_backend.c.972) all handlers for /app/?a=1 on /app are down."),
    LogLine("lighttpd-overloaded", LIGHTTPD, "write failed: …: Transport endpoint is not connected, backend is overloaded; we'll disable it for … seconds",
        r"backend is overloaded|backend (?:died|error); we'll disable|\(network_write\.c\.\d+\) write failed: \d+: Transport endpoint is not connected", "the backend did not take a connection: its backlog is full, or it has ended", "more `--workers` or `--threads`, a longer `--backlog`",
        _L + "(network_write.c.109) write failed: 9: Transport endpoint is not connected"),
    LogLine("lighttpd-spawn", LIGHTTPD, "gw-backend failed to start: …",
        r"(?:gw-backend|fcgi-backend) failed to start: (?P<script>/\S+)|spawning (?:gw|fcgi|backend) failed|child exited(?: with status)?: \d+", "the program of bin-path ended as soon as it was started", "`gateways doctor SCRIPT`; start it by hand with spawn-fcgi -n",
        _L + "(gw_backend.c.601) gw-backend failed to start: /srv/www/app.fcgi"),
    LogLine("lighttpd-bind", LIGHTTPD, "bind failed for: unix:…: No such file or directory",
        r"\(gw_backend\.c\.\d+\) bind failed for", "lighttpd cannot make the socket for the program that it starts: the folder is missing, or not its user's", "`install -d -o www-data /run/lighttpd`",
        _L + "(gw_backend.c.503) bind failed for: unix:/run/lighttpd/app.socket-0: No such file or directory"),
    LogLine("lighttpd-cgi-died", LIGHTTPD, "cgi died; CGI pid … died with signal …",
        r"\(mod_cgi\.c\.\d+\) (?:cgi died|CGI pid \d+ (?:died|ended)|cleaning up CGI: process died|CGI failed:)", _NOTHING, _NOTHING_MEND,
        _L + "(mod_cgi.c.1331) CGI pid 1892 died with signal 11"),
    LogLine("lighttpd-cgi-missing", LIGHTTPD, "stat for cgi-handler …, fork/spawn …: No such file or directory",
        r"\(mod_cgi\.c\.\d+\) (?:fork/spawn (?P<script>/[^:]+)|stat for cgi-handler )", _NO_FILE + ", or it is not executable", "`gateways doctor --fix SCRIPT`; with cgi.assign naming an interpreter, that one",
        _L + "(mod_cgi.c.761) stat for cgi-handler /usr/bin/php-cgi: No such file or directory"),
    # gateways
    LogLine("gateways-barred", GATEWAYS, "a web server running as … cannot connect to …",
        r"a web server running as \S+ cannot connect to (?P<unix>\S+): it has no access to", _BARRED, _BARRED_MEND,
        _G + "WARNING a web server running as www-data cannot connect to /run/app.sock: it has no access to /run/app.sock; say --socket-group www-data (and chmod o+x the folders above)"),
    LogLine("gateways-running", GATEWAYS, "cannot listen on …: a server is running there",
        r"cannot listen on (?P<unix>/\S+): a server is running there", "another daemon has that socket", "stop the other one (`ss -lxp`), or choose another path",
        "gateways: cannot listen on /run/app.sock: a server is running there; stop it, or choose another path"),
    LogLine("gateways-in-use", GATEWAYS, "cannot listen on …: something else listens there",
        r"cannot listen on \S+: something else listens there", "another program has that port", "`ss -ltnp` names it; stop it, or choose another port",
        "gateways: cannot listen on 127.0.0.1:9000: something else listens there; stop it, or choose another address"),
    LogLine("gateways-busy", GATEWAYS, "all … threads are busy, and have been for a second; new requests wait",
        r"all \d+ threads are busy, and have been for a second", "for a second no thread has become free; the line says what they run", "what waits (a database): more `--threads`; what computes: more `--workers`; what is stuck: a time limit in the application",
        _G + "WARNING all 8 threads are busy, and have been for a second; new requests wait. They run: GET /report"),
    LogLine("gateways-stuck", GATEWAYS, "worker … has been in one request for … s and answers no other",
        r"worker \d+ has been in one request for \d+ s", "with one thread a long request holds up all others", "a time limit in the application, or more `--threads`",
        _G + "WARNING worker 4712 has been in one request for 30 s and answers no other; where requests may take so long, give it more --threads"),
    LogLine("gateways-slow-peer", GATEWAYS, "…: cut, because it took less than min_rate",
        r"cut, because it took less than min_rate|came more slowly than min_rate", "the web server took an answer, or sent an upload, more slowly than 1 KiB/s: a slow visitor whom it does not buffer", "buffering in the web server (nginx: `fastcgi_buffering on`, `fastcgi_request_buffering on`), or a smaller `--min-rate`",
        _G + "WARNING GET /file: cut, because it took less than min_rate, 1024 bytes a second, of an answer during rate_window, 30 s"),
    LogLine("gateways-space", GATEWAYS, "temporary space is needed, and there is none: …",
        r"temporary space is needed, and there is none", "waiting uploads and answers have filled --spool-size, or the disk", "`--spool-size`, `--spool-folder`; less in `client_max_body_size`",
        _G + "WARNING connection 7: temporary space is needed, and there is none: spool_size, 1073741824 bytes, is used up"),
    LogLine("gateways-accept", GATEWAYS, "cannot accept connections: …",
        r"cannot accept connections: ", "out of descriptors, most likely", "`ulimit -n`, or LimitNOFILE= in systemd, above `--max-connections` times two",
        _G + "ERROR cannot accept connections: [Errno 24] Too many open files; trying again in a second"),
    LogLine("gateways-allow", GATEWAYS, "refused a connection from …: it is in no --allow network",
        r"refused a connection from \S+: it is in no --allow network", "a machine that --allow does not name tried to connect", "if it is the web server: `--allow` with its network",
        _G + "WARNING refused a connection from 10.0.0.9: it is in no --allow network"),
    LogLine("gateways-threads-left", GATEWAYS, "the application has left threads running: …",
        r"the application (?:has )?left threads", "threads that were started at import do not survive the fork into several workers", "start them at the first request, or `--lazy`",
        _G + "ERROR the application has left threads running: refresher"),
    LogLine("gateways-not-loaded", GATEWAYS, "the application cannot be loaded any more; the old workers go on",
        r"the application cannot be loaded any more", "the new code fails at import; its traceback stands before this line", "mend it, then SIGHUP; `gateways doctor FILE` checks syntax and imports",
        _G + "ERROR the application cannot be loaded any more; the old workers go on"),
    LogLine("gateways-error", GATEWAYS, "error … in …: Traceback",
        r"(?:\] |^)ERROR error (?P<reference>[0-9a-f]{8}) in ", "the application failed in a request; the visitor was shown this number, and the traceback follows", "mend what the last line of the traceback says",
        _G + "ERROR error 1f0c9a3b in GET /a: Traceback (most recent call last):"),
    LogLine("gateways-refused", GATEWAYS, "…: refused: …",
        r"\[\d+\] WARNING .*: refused: ", "bytes that break the protocol: the web server is told to speak another one, or somebody probes the port", "`fastcgi_pass` for `fcgi`, `scgi_pass` for `scgi`, no `proxy_pass`; nobody but the web server should reach the port",
        _G + "WARNING connection from 127.0.0.1: refused: the record has version 71, not 1 (FastCGI 3.3)"),
)  # fmt: skip

_UPSTREAM = re.compile(
    r'upstream: "(fastcgi|scgi|uwsgi|http)://(?:unix:([^":]+)|([\w.-]+:\d+|\[[0-9a-f:]+\]:\d+))'
)
_NGINX_SOCKET = re.compile(r"connect\(\) to unix:(/\S+?):? failed")
_APACHE_SOCKET = re.compile(
    r"(\w+): attempt to connect to (?:Unix domain socket (\S+)|([\w.-]+:\d+|\[[0-9a-f:]+\]:\d+)) \("
)
_LIGHTTPD_SOCKET = re.compile(r"socket: (?:unix:(/[^\s:]+)|tcp:([\w.-]+:\d+))")

_PROTOCOLS = {
    "fastcgi": "fcgi",
    "fcgi": "fcgi",
    "scgi": "scgi",
    "uwsgi": "uwsgi",
    "http": "http",
    "ajp": "ajp",
}

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def find(text: str) -> tuple[LogLine, re.Match[str]] | None:
    """Return the kind of line that this is, and what the pattern caught."""
    for each in TABLE:
        match = each.compiled.search(text)
        if match is not None:
            return each, match
    return None


def examine(text: str, wishes: Wishes, report: Report, one: bool) -> None:
    """Judge the lines, and look at what they name; each fault and each named thing once."""
    lines = [text] if one else text.splitlines()
    known = 0
    for line in lines:
        found = find(line)
        if found is None:
            continue
        known += 1
        kind, match = found
        named = named_in(line, kind, match)
        about = next((str(each) for each in named if each), "")
        about = about or match.groupdict().get("name") or kind.server
        report.add(
            Finding(
                kind.code,
                about,
                f'{kind.server} wrote "{shown(_core(line, match), 160)}"',
                kind.why.replace("`", ""),
                advice=kind.mend.replace("`", ""),
            )
        )
        _follow(kind.server, *named, wishes, report)
    report.checked.append(f"{len(lines)} lines, {known} of them known" if not one else "the line")


def _core(line: str, match: re.Match[str]) -> str:
    """Return what the pattern caught and the words up to the next comma."""
    return line[match.start() :].partition(", client: ")[0].strip()


def named_in(line: str, kind: LogLine, match: re.Match[str]) -> tuple[Address | None, str]:
    """Return the address and the script's path that a line names, None and "" where it does not."""
    caught = match.groupdict()
    # Where lines of this kind name no address, a visitor has written the one that is there.
    address = _address_in(line) if _address_in(kind.example) else None
    if caught.get("unix"):
        address = Address("fcgi", "unix", path=caught["unix"])
    for protocol in ("scgi", "http"):
        if caught.get(protocol):
            address = _tcp(protocol, caught[protocol])
    return address, caught.get("script") or ""


def _address_in(line: str) -> Address | None:
    upstreams = _UPSTREAM.findall(line)
    # The request and the referrer are the visitor's words, and may hold a second one.
    if len(upstreams) == 1:
        return _address(*upstreams[0])
    if upstreams:
        return None
    apache = _APACHE_SOCKET.search(line)
    if apache:
        return _address(*apache.groups())
    cut_off = _NGINX_SOCKET.search(line)
    if cut_off:
        return Address("fcgi", "unix", path=cut_off[1])
    lighttpd = _LIGHTTPD_SOCKET.search(line)
    if lighttpd:
        return _address("fcgi", *lighttpd.groups())
    return None


def _address(protocol: str, path: str | None, where: str | None) -> Address | None:
    scheme = _PROTOCOLS.get(protocol.lower())
    if scheme is None:
        return None
    return Address(scheme, "unix", path=path) if path else _tcp(scheme, where or "")


def _tcp(protocol: str, where: str) -> Address | None:
    host, _, port = where.rpartition(":")
    if not host or not port.isdigit() or len(port) > 5:
        return None
    return Address(protocol, "tcp", host=host.strip("[]"), port=int(port))


def _follow(
    server: str, address: Address | None, path: str, wishes: Wishes, report: Report
) -> None:
    if path:
        _follow_script(path, wishes, report)
    if address is None:
        return
    if address.family == "tcp" and address.host not in _LOOPBACK:
        report.notes.append(
            f"{address} is on another machine, so it was not asked:"
            f" {command('gateways', 'doctor', str(address))} does"
        )
        return
    before = len(report.findings)
    try:
        # lighttpd's lines and ours do not tell the protocol.
        sockets.check(address, "/", wishes, report, said=server in (NGINX, APACHE))
    except ConfigurationError as error:
        report.notes.append(str(error))
        return
    if len(report.findings) == before:
        report.notes.append(f"{address} answers now")


def _follow_script(path: str, wishes: Wishes, report: Report) -> None:
    before = len(report.findings)
    script.examine(path, wishes, report, trusted=False)
    for finding in report.findings[before:]:
        finding.mend = None
    if len(report.findings) == before:
        report.notes.append(
            f"{path} shows no fault from outside; {command('gateways', 'doctor', '--run', path)}"
            " runs it once"
        )
