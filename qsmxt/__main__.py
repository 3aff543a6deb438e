"""``python -m qsmxt`` is the ``qsmxt`` command."""

from qsmxt.cli.run import main

if __name__ == "__main__":
    raise SystemExit(main())
