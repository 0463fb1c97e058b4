"""`python -m gateways` is the command `gateways`."""

from gateways.cli import main

if __name__ == "__main__":
    main()
