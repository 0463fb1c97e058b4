#!/bin/sh
# Installs what the tests and the demo use beside Python: nginx, Apache with mod_fcgid, lighttpd,
# the process managers spawn-fcgi, multiwatch and systemd-socket-activate, CGI programs that people
# run (git, gitweb, cgit, Perl's CGI.pm), a C compiler, openssl, curl, Chromium and its driver.  For
# Debian and Ubuntu; starts no service.
#
#   tests/install-servers.sh           install what is missing.  Not root, or no apt: only says
#                                      what is missing and how to get it, and exits 0
#   tests/install-servers.sh --check   change nothing: print the missing packages, one a line;
#                                      exit 0 when there are none, 1 when there are some
#
# Exit 1 without --check: the installation was tried, and something is still missing.  Run it as
# often as you like: with nothing missing it does not even ask apt.
set -eu

# An ordinary user's PATH may lack the folders where Debian keeps servers.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

has() { command -v "$1" >/dev/null 2>&1; }

# Asks for the programs, not for the packages: any nginx will do, wherever it came from.
missing() {
    has nginx || echo nginx-light
    has apache2 || echo apache2
    [ -e /usr/lib/apache2/modules/mod_fcgid.so ] || echo libapache2-mod-fcgid
    has lighttpd || echo lighttpd
    has spawn-fcgi || echo spawn-fcgi
    has multiwatch || echo multiwatch
    has systemd-socket-activate || echo systemd
    has git || echo git
    [ -e /usr/share/gitweb/gitweb.cgi ] || echo gitweb
    [ -e /usr/lib/cgit/cgit.cgi ] || echo cgit
    perl -MCGI -e 1 2>/dev/null || echo libcgi-pm-perl
    [ -e /usr/include/stdio.h ] && has cc || printf "gcc\nlibc6-dev\n"
    has openssl || echo openssl
    has curl || echo curl
    has chromium || has chromium-browser || has google-chrome || echo chromium
    has chromedriver || echo chromium-driver
    # Apache runs programs as www-data, which cannot execute an interpreter in a private home.
    [ -x /usr/bin/python3 ] || echo python3
}

case "${1-}" in
--check)
    wanted=$(missing)
    [ -z "$wanted" ] && exit 0
    echo "$wanted"
    exit 1
    ;;
"") ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac

wanted=$(missing | tr '\n' ' ')
if [ -z "$wanted" ]; then
    echo "web servers and browser: all there"
    exit 0
fi

if ! has apt-get; then
    echo "missing: ${wanted% }"
    echo "this machine has no apt: install their counterparts with its own package manager"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${wanted% }"
    echo "install them:  sudo sh $0"
    exit 0
fi

policy=/usr/sbin/policy-rc.d
log=$(mktemp)
ours=
clean_up() {
    [ -z "$ours" ] || rm -f "$policy"
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# Debian starts a server as soon as it is installed, unless this file says no (101).  One that is
# there already is the administrator's will, and stays.
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

# The lock's time limit lets two runs at once wait for each other.
apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1
}

echo "refreshing the package lists"
# One source of several that cannot be reached is no reason to stop: the install below decides.
apt update || true

available=
for package in $wanted; do
    candidate=$(LC_ALL=C apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
    # Ubuntu has Chromium only as a snap, so that its archive has no candidate for the driver.
    case "$candidate" in
    "" | "(none)") echo "not in this distribution: $package" ;;
    *) available="$available $package" ;;
    esac
done

if [ -n "$available" ]; then
    echo "installing$available (about a minute; no service is started)"
    # shellcheck disable=SC2086 # the list is meant to be split into words
    if ! apt install --no-install-recommends $available; then
        echo "apt-get failed; the end of what it said:" >&2
        tail -n 20 "$log" >&2
    fi
fi

wanted=$(missing | tr '\n' ' ')
if [ -n "$wanted" ]; then
    echo "still missing: ${wanted% }" >&2
    exit 1
fi
echo "web servers and browser: all there"
