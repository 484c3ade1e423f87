"""The command as tests run it, and a stream that has a bit of everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from builders import migration as build

ROOT = Path(__file__).resolve().parents[2]
PAGE = build.PAGE


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "formats", "proto"))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CPRTOOLS_DEBUG")}
    return {**clean, "PYTHONPATH": paths, "PYTHONWARNINGS": "error", **more}


def cprtools(
    *args: str | Path, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "cprtools", *map(str, args)]
    return subprocess.run(
        command, input=stdin, capture_output=True, env=environment(**env), timeout=60, check=False
    )


def sample(idstr: str = "dev", block: str = "pc.ram", field: str = "level") -> bytes:
    """A stream with RAM of three kinds of pages, a command, and one device, named as asked."""
    blocks = build.block_list(build.block(block, 8 * PAGE))
    ram = build.start(2, body=blocks + build.eos())
    pages = (
        build.data_page(0, block)
        + build.data_page(PAGE)
        + b"".join(build.zero_page(n * PAGE) for n in range(2, 5))
        + build.xbzrle_page(5 * PAGE)
        + build.eos()
    )
    body = b"\0\0\x04\xd2" + bytes(range(1, 41)) + b"\0" * 64 + b"\xde\xad"
    fields = [
        build.field(field, "uint32", 4),
        build.field("data", "buffer", 40),
        build.field("table", "uint64", 8, array_len=8),
        build.field("odd", "no such type", 2),
    ]
    return build.stream(
        build.configuration("pc-test", uuid=bytes(range(16))),
        build.ping(7),
        ram,
        build.part(2, body=build.eos()),
        build.part(2, body=build.eos()),
        build.end(2, body=pages),
        build.full(3, idstr, instance=1, body=body),
        description=build.vmdesc(build.device(idstr, fields, instance=1)),
    )
