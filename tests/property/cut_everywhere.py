"""Cut captures at every place of their structure: what the tests do by samples, whole.

Takes hours for all; name captures, or give a time limit::

    python tests/property/cut_everywhere.py --seconds 600 10.0-q35-base 7.2-pc-xbzrle
"""

from __future__ import annotations

import argparse
import lzma
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / name)
    for name in (".", "formats", "proto", "tests", "tests/property", "fixtures/recipes")
]

from test_cut import STREAMS, check, places  # noqa: E402

from checks import fixture_path  # noqa: E402
from cprformats.migration import read_stream  # noqa: E402
from cprformats.source import BytesSource  # noqa: E402


def cuts(name: str) -> Iterator[int]:
    """Check one capture place by place; gives how many places are done."""
    data = lzma.decompress(fixture_path(name).read_bytes())
    whole = read_stream(BytesSource(data))
    for count, size in enumerate(sorted({*range(8), *places(whole)} - {len(data)}), 1):
        check(data, size, whole, walk=False)
        yield count


def main() -> int:
    parser = argparse.ArgumentParser(description="cut captures at every place")
    parser.add_argument("names", nargs="*", help="parts of captures' names; none is all")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    total = 0
    for name in STREAMS:
        if options.names and not any(word in name for word in options.names):
            continue
        for _ in cuts(name):
            total += 1
            if time.monotonic() > end:
                print(f"stopped in {name}")
                print(f"{total} cuts")
                return 0
        print(f"{name}: whole", flush=True)
    print(f"{total} cuts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
