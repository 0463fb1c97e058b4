"""What gateways is tested with, for others to use."""
