"""The edge that answers: listeners, the pump, workers, one-request CGI."""
