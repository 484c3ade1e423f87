"""Exit codes, and the one place that turns exceptions into them.

==== =====================================================================
0    the input is good (also when the reader of a pipe went away)
1    the input is damaged, or of a kind or version that is not read
2    wrong usage, or the system refuses: no such file, no permission
3    a check could not decide it
70   an error of cprtools itself
130  interrupted (Ctrl-C)
==== =====================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum

from cprtools.report.output import abandon, complain, flush

__all__ = ["Exit", "Misuse", "guarded"]


class Exit(IntEnum):
    """Exit codes."""

    GOOD = 0
    DAMAGED = 1
    USAGE = 2
    UNDECIDED = 3
    INTERNAL = 70
    INTERRUPTED = 130


class Misuse(Exception):
    """The arguments make no sense; the text says what was expected and found."""


def guarded(command: Callable[[], Exit]) -> Exit:
    """Run a command; whatever it raises becomes one line and an exit code."""
    try:
        code = command()
        flush()
    except BrokenPipeError:
        abandon()
        return Exit.GOOD
    except KeyboardInterrupt:
        abandon()
        return Exit.INTERRUPTED
    except Misuse as error:
        complain(str(error))
        return Exit.USAGE
    except OSError as error:
        complain(_os_words(error))
        return Exit.USAGE
    except Exception as error:  # noqa: BLE001 (the last resort)
        return _internal(error)
    return code


def _os_words(error: OSError) -> str:
    words = error.strerror or str(error)
    return f"{error.filename}: {words}" if error.filename is not None else words


def _internal(error: Exception) -> Exit:
    if os.environ.get("CPRTOOLS_DEBUG") == "1":
        raise error
    name = type(error).__name__
    complain(f"internal error: {name}: {error} (a bug; CPRTOOLS_DEBUG=1 shows where)")
    return Exit.INTERNAL
