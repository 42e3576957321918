"""`python -m clients.cli` is `assistant`."""

from clients.cli import main

if __name__ == "__main__":
    main()
