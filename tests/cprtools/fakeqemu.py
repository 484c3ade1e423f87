"""Programs that stand for a QEMU in tests: one that speaks QMP, and some that misbehave."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

#: Answers QMP as QEMU does; `then` says what it does once it is to load.
_SPEAKS = """
import json, os, re, socket, sys, time
words = " ".join(sys.argv)
if "--version" in sys.argv:
    print("QEMU emulator version 9.9.9")
    sys.exit(0)
def say(text):
    sys.stderr.write("qemu-system-test: " + text + "\\n")
    sys.stderr.flush()
link = socket.socket(fileno=int(re.search(r"cprtools-monitor,fd=(\\d+)", words)[1]))
lines = link.makefile("rw")
def send(value):
    lines.write(json.dumps(value) + "\\n")
    lines.flush()
version = {"qemu": {"major": 9, "minor": 9, "micro": 9}, "package": "test"}
send({"QMP": {"version": version, "capabilities": []}})
status, data = "none", b""
for line in lines:
    request = json.loads(line)
    name = request["execute"]
    if name == "migrate-incoming":
        send({"return": {}})
        fd = re.match(r"fd:(\\d+)", request["arguments"]["uri"])
        if fd:
            with os.fdopen(int(fd[1]), "rb") as pipe:
                data = pipe.read()
        status = "completed"
        THEN
    elif name == "query-migrate":
        send({"return": {"status": status}})
    elif name == "query-migrate-capabilities":
        send({"return": [{"capability": "mapped-ram", "state": False}]})
    else:
        send({"return": {}})
"""


def qemu(folder: Path, then: str = "pass", name: str = "qemu") -> Path:
    """A program that loads anything, but for what it is told to do."""
    code = _SPEAKS.replace("        THEN", textwrap.indent(textwrap.dedent(then), "        "))
    return program(folder, code, name)


def program(folder: Path, code: str, name: str = "qemu") -> Path:
    """A program of Python code."""
    path = folder / name
    path.write_text(f"#!{sys.executable} -IS\n{code}")
    path.chmod(0o755)
    return path
