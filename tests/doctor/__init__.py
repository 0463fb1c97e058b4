"""`gateways doctor`: every fault is made for real, and a healthy set-up is met with silence."""
