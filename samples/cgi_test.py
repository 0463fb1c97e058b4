#!/usr/bin/env python3
# Run:  samples/cgi_test.py
#
# The test script of Python's old web HOWTO, right for today's Python: put it where your web server
# runs CGI scripts to find out whether it does.  It needs neither gateways nor anything else.
#
# What had to change:
# - `env python3`: there need not be a plain `python`, and where there is one it may be Python 2.
# - No `cgitb`, and no `cgi`: Python 3.13 removed both.  cgitb showed visitors the traceback; here
#   it goes to stderr, which the web server writes to its error log.
# - The output is bytes.  print() encodes with the locale's encoding, which under a web server is
#   often ASCII, and then anything beyond it ends the script: hence the charset said and used here.
# - Mode 755 and Unix line ends, as ever: with the first line ending in CR LF the kernel looks for
#   a program called "python3\r", and the web server only says "500".
# - The header ends with an empty line.  Without it the answer is "premature end of script headers".

import sys

text = "Hello World! ¡Hola! 你好\n"

sys.stdout.buffer.write(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode("utf-8"))
