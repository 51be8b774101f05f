"""``python -m minidnn``: the command line."""

from minidnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
