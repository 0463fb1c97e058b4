#!/bin/sh
# Run:  gateways serve cgi:samples/cgi-bin/report.sh -b 127.0.0.1:9000
#
# A CGI script in the shell: it answers with what it was asked, and counts what it was sent.
echo "Content-Type: text/plain"
echo
echo "$REQUEST_METHOD $SCRIPT_NAME$PATH_INFO?$QUERY_STRING"
echo "from $REMOTE_ADDR by $SERVER_SOFTWARE"
echo "$(wc -c) of ${CONTENT_LENGTH:-no} bytes"
