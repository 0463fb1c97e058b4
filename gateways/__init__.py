"""gateways puts any WSGI application, or any CGI script, behind any web server."""
