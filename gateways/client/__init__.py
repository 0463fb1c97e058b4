"""The edge that asks: connections to a FastCGI or SCGI backend, and a WSGI application that forwards."""
