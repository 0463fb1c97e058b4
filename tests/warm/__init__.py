"""Warm CGI: real stubs, real daemons."""
