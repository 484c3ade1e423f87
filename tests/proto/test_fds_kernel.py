"""What survives an exec: the kernel's own answer to each question of docs/fds.md.

Each question is two small programs: the first makes something and execs the second, in the same
process, with the descriptors named; the second says what is left of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fds.md"
HUGE = Path("/proc/sys/vm/nr_hugepages")

COMMON = """
import array, errno, fcntl, json, mmap, os, select, socket, struct, sys, time
fds = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
def go_on(**named):
    for number in named.values():
        os.set_inheritable(number, True)
    words = ["-S", "-E", "-c", os.environ["AFTER"], json.dumps(named)]
    os.execv(sys.executable, [sys.executable, *words])
def answer(value):
    os.write(1, json.dumps(value).encode())
def held(path, kind):
    # Asks from a child that opened the file anew: locks of its own process never stand in its way.
    child = os.fork()
    if child == 0:
        file = os.open(path, os.O_RDWR)
        try:
            if kind == "posix":
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        except (BlockingIOError, PermissionError):
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
def resv():
    return int(open("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages").read())
"""


@dataclass(frozen=True, slots=True)
class Question:
    """Two programs, and what the second must say.

    Attributes:
        before: makes it, ends with go_on(name=number).
        after: ends with answer(value).
        found: the value, where nothing was lost.
    """

    before: str
    after: str
    found: object


QUESTIONS = {
    "seal": Question(
        "m = os.memfd_create('m', os.MFD_ALLOW_SEALING); os.ftruncate(m, 4096)\n"
        "fcntl.fcntl(m, 1033, 2 | 4); go_on(m=m)",
        "def grow():\n"
        "    try: os.ftruncate(fds['m'], 8192)\n"
        "    except PermissionError: return 'refused'\n"
        "answer([fcntl.fcntl(fds['m'], 1034), grow()])",
        [6, "refused"],
    ),
    "memfd contents": Question(
        "m = os.memfd_create('m'); os.write(m, b'guest'); go_on(m=m)",
        "answer(mmap.mmap(fds['m'], 5, mmap.MAP_SHARED, mmap.PROT_READ)[:].decode())",
        "guest",
    ),
    "mapping": Question(
        "m = os.memfd_create('mapped-by-old'); os.ftruncate(m, 4096)\n"
        "kept = mmap.mmap(m, 4096); go_on(m=m)",
        "answer('mapped-by-old' in open('/proc/self/maps').read())",
        True,
    ),
    "file offset": Question(
        "m = os.memfd_create('m'); os.write(m, b'12345'); go_on(m=m)",
        "answer(os.lseek(fds['m'], 0, os.SEEK_CUR))",
        5,
    ),
    "O_NONBLOCK": Question(
        "r, w = os.pipe(); os.set_blocking(r, False); go_on(r=r, w=w)",
        "answer(os.get_blocking(fds['r']))",
        False,
    ),
    "pipe contents": Question(
        "r, w = os.pipe(); os.write(w, b'bytes'); go_on(r=r, w=w)",
        "answer(os.read(fds['r'], 99).decode())",
        "bytes",
    ),
    "eventfd count": Question(
        "e = os.eventfd(41); os.eventfd_write(e, 1); go_on(e=e)",
        "answer(os.eventfd_read(fds['e']))",
        42,
    ),
    "timerfd": Question(
        # Each millisecond: it must go off while nobody is there, in the exec itself.
        "import ctypes; libc = ctypes.CDLL(None); t = libc.timerfd_create(1, 0)\n"
        "libc.timerfd_settime(t, 0, struct.pack('qqqq', 0, 1000000, 0, 1000000), None)\n"
        "go_on(t=t)",
        "first = struct.unpack('Q', os.read(fds['t'], 8))[0]\n"
        "answer([first > 1, struct.unpack('Q', os.read(fds['t'], 8))[0] > 0])",
        [True, True],
    ),
    "listening backlog": Question(
        "l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(8)\n"
        "cs = [socket.create_connection(l.getsockname()) for _ in range(3)]\n"
        "for n, c in enumerate(cs): c.sendall(bytes([n]))\n"
        "go_on(l=l.fileno(), **{f'c{n}': c.fileno() for n, c in enumerate(cs)})",
        "l = socket.socket(fileno=fds['l'])\n"
        "answer(sorted(l.accept()[0].recv(1)[0] for _ in range(3)))",
        [0, 1, 2],
    ),
    "connected socket": Question(
        "a, b = socket.socketpair(); a.sendall(b'in flight'); go_on(a=a.fileno(), b=b.fileno())",
        "b = socket.socket(fileno=fds['b']); first = b.recv(99).decode()\n"
        "a = socket.socket(fileno=fds['a']); a.sendall(b'!'); answer([first, b.recv(9).decode()])",
        ["in flight", "!"],
    ),
    "descriptor in flight": Question(
        "a, b = socket.socketpair(); m = os.memfd_create('m'); os.write(m, b'inside')\n"
        "socket.send_fds(a, [b'x'], [m]); go_on(a=a.fileno(), b=b.fileno())",
        "m = socket.recv_fds(socket.socket(fileno=fds['b']), 9, 1)[1][0]\n"
        "answer(os.pread(m, 9, 0).decode())",
        "inside",
    ),
    "epoll interest": Question(
        "p = select.epoll(); e = os.eventfd(1); p.register(e, select.EPOLLIN)\n"
        "go_on(p=p.fileno(), e=e)",
        "answer(select.epoll.fromfd(fds['p']).poll(5) == [(fds['e'], select.EPOLLIN)])",
        True,
    ),
    "POSIX lock": Question(
        "f = os.open(os.environ['FILE'], os.O_RDWR | os.O_CREAT); fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "go_on(f=f)",
        "answer(held(os.environ['FILE'], 'posix'))",
        True,
    ),
    "POSIX lock, another descriptor of the file closed by exec": Question(
        "f = os.open(os.environ['FILE'], os.O_RDWR | os.O_CREAT); fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "other = os.open(os.environ['FILE'], os.O_RDONLY | os.O_CLOEXEC); go_on(f=f)",
        "answer(held(os.environ['FILE'], 'posix'))",
        True,
    ),
    "POSIX lock over fork": Question(
        # The parent goes: what the child has left is its own.
        "f = os.open(os.environ['FILE'], os.O_RDWR | os.O_CREAT); fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "r, w = os.pipe()\n"
        "if os.fork(): os._exit(0)\n"
        "os.close(w); os.read(r, 1); go_on(f=f)",
        "answer(held(os.environ['FILE'], 'posix'))",
        True,
    ),
    "OFD lock": Question(
        "f = os.open(os.environ['FILE'], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.fcntl(f, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))\n"
        "other = os.open(os.environ['FILE'], os.O_RDONLY | os.O_CLOEXEC); go_on(f=f)",
        "answer(held(os.environ['FILE'], 'ofd'))",
        True,
    ),
    "hugetlb reservation": Question(
        # Mapped and not touched: the pages are reserved, for the file and not for the process.
        "m = os.memfd_create('m', os.MFD_HUGETLB); os.ftruncate(m, 4 << 20)\n"
        "os.environ['BASE'] = str(resv())\n"
        "try: kept = mmap.mmap(m, 4 << 20)\n"
        "except OSError as problem: answer(errno.errorcode[problem.errno]); sys.exit()\n"
        "os.environ['OLD'] = str(resv() - int(os.environ['BASE'])); go_on(m=m)",
        "left = resv() - int(os.environ['BASE'])\n"
        "kept = mmap.mmap(fds['m'], 4 << 20); kept[0] = 1; kept[-1] = 1\n"
        "answer([int(os.environ['OLD']), left, resv() - int(os.environ['BASE'])])",
        [2, 2, 0],
    ),
}


def ask(question: Question, folder: Path) -> object:
    """Run both programs, in one process."""
    environment = {"FILE": str(folder / "locked"), "AFTER": COMMON + question.after}
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", COMMON + question.before],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


@contextmanager
def huge_pages(count: int) -> Iterator[bool]:
    """Add huge pages to the host's, where that is allowed; say whether they are there."""
    before = HUGE.read_text()
    try:
        HUGE.write_text(str(int(before) + count))
    except PermissionError:
        yield False
        return
    try:
        yield int(HUGE.read_text()) >= int(before) + count
    finally:
        HUGE.write_text(before)


def answers() -> dict[str, str]:
    """The table of the page: question -> yes or no."""
    rows = re.findall(r"^\| ([^|]+) \| (yes|no) \|", PAGE.read_text(), re.MULTILINE)
    return {name.strip(): said for name, said in rows}


def test_the_page_has_every_question() -> None:
    assert answers().keys() == QUESTIONS.keys()


@pytest.mark.parametrize("name", [name for name in QUESTIONS if not name.startswith("hugetlb")])
def test_what_survives_an_exec(name: str, tmp_path: Path) -> None:
    question = QUESTIONS[name]
    said = ask(question, tmp_path)
    assert ("yes" if said == question.found else "no") == answers()[name], said


def test_a_hugetlb_reservation_survives_an_exec(tmp_path: Path) -> None:
    """On a host without huge pages, that must not be given any, there is none to be had."""
    question = QUESTIONS["hugetlb reservation"]
    with huge_pages(2) as there:
        said = ask(question, tmp_path)
    assert said == (question.found if there else "ENOMEM")
    assert answers()["hugetlb reservation"] == "yes"
