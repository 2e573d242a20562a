"`python -m ferretlite` is the `ferretlite` command."

from ferretlite.app.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
