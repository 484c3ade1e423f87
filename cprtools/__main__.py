"""The entry point: answers ``--version`` at once, imports the rest for the rest."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from cprtools.report.version import say_version  # noqa: PLC0415

        say_version()
        return
    from cprtools.cli.exits import Exit, guarded  # noqa: PLC0415

    def run() -> Exit:
        from cprtools.cli.app import app  # noqa: PLC0415

        try:
            app()
        except SystemExit as done:
            return Exit(done.code) if isinstance(done.code, int) else Exit.GOOD
        return Exit.GOOD

    sys.exit(guarded(run))


if __name__ == "__main__":
    main()
