"""The table of descriptors: what goes in, what it looks like, and each thing that can be wrong."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fdlab import filled_table, memfd, no_leak

from cprproto.errors import HostError, ProtoError, TableError
from cprproto.fds import evidence
from cprproto.fds.check import check_entry, check_table, duplicates, leaked
from cprproto.fds.evidence import look, open_numbers
from cprproto.fds.findings import WHATS
from cprproto.fds.kcmp import same_open_file
from cprproto.fds.kinds import ALL_CHECKS, CHECK_WORDS, KINDS, SAME_POS, default_checks
from cprproto.fds.table import MAX_ENTRIES, Entry, Table, set_cloexec

ROOT = Path(__file__).resolve().parents[2]


# -- what goes in --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "number", "id", "checks"),
    [
        ("floppy", "a", 3, 0, None),
        ("ram", "", 3, 0, None),
        ("ram", "a\0b", 3, 0, None),
        ("ram", "x" * 256, 3, 0, None),
        ("ram", "a", -1, 0, None),
        ("ram", "a", 1 << 31, 0, None),
        ("ram", "a", 3, -1, None),
        ("ram", "a", 3, 1 << 31, None),
        ("ram", "a", 3, 0, ALL_CHECKS + 1),
    ],
)
def test_an_entry_that_makes_no_sense(
    kind: str, name: str, number: int, id: int, checks: int | None
) -> None:
    with pytest.raises(TableError):
        Table().add(kind, name, number, id=id, checks=checks)


def test_a_name_or_a_number_twice() -> None:
    table = Table()
    table.add("ram", "ram0", 100)
    table.add("ram", "ram0", 101, id=1)
    with pytest.raises(TableError, match="'ram0' is in the table twice"):
        table.add("irq", "ram0", 102)
    with pytest.raises(TableError, match=r"100 is both 'ram0' and 'ram1\[2\]'"):
        table.add("ram", "ram1", 100, id=2)
    with pytest.raises(TableError, match="101 is both"):
        table.replace(table["ram0", 0].at(101))
    assert table.numbers() == [100, 101]


def test_too_many_entries() -> None:
    table = Table()
    for number in range(MAX_ENTRIES):
        table.add("irq", "v", number, id=number)
    with pytest.raises(TableError, match=f"more than {MAX_ENTRIES}"):
        table.add("irq", "v", MAX_ENTRIES, id=MAX_ENTRIES)


def test_finding_and_removing() -> None:
    table = Table()
    entry = table.add("irq", "serial", 100, id=4)
    assert table.find("serial", 4) is table["serial", 4] is table.holder(100) is entry
    assert table.of_kind("irq") == [entry]
    assert entry.label == "serial[4]"
    assert table.find("serial") is None
    assert table.remove("serial", 4) is entry
    assert len(table) == 0
    with pytest.raises(TableError, match="'serial' id 4 is not in the table"):
        table.remove("serial", 4)


def test_an_entry_is_a_frozen_value() -> None:
    entry = Entry("ram", "ram0", 0, 9)
    assert entry == Entry("ram", "ram0", 0, 9) != entry.at(8)
    assert hash(entry) == hash(Entry("ram", "ram0", 0, 9))
    assert "name='ram0'" in repr(entry)
    with pytest.raises(AttributeError):
        entry.number = 3
    with pytest.raises(AttributeError):
        del entry.number


def test_every_kind_has_checks_and_every_check_a_word() -> None:
    assert all(default_checks(kind) & ~ALL_CHECKS == 0 for kind in KINDS)
    assert sum(CHECK_WORDS) == ALL_CHECKS
    with pytest.raises(KeyError):
        default_checks("floppy")


# -- what it looks like ----------------------------------------------------------------


def looks_of(number: int) -> str:
    try:
        seen = look(number)
        assert seen is not None
        return seen.looks
    finally:
        os.close(number)


def test_looks(tmp_path: Path) -> None:
    (tmp_path / "memfd:not").write_bytes(b"")
    assert looks_of(memfd()) == "memfd"
    assert looks_of(os.eventfd(0)) == "eventfd"
    assert looks_of(os.open(tmp_path / "memfd:not", os.O_RDONLY)) == "file"
    assert looks_of(os.open(tmp_path, os.O_RDONLY)) == "directory"
    assert looks_of(os.open("/dev/null", os.O_RDONLY)) == "device"
    with select.epoll() as poll:
        assert looks_of(os.dup(poll.fileno())) == "epoll"
    assert looks_of(os.pidfd_open(os.getpid())) == "pidfd"
    assert looks_of(socket.socket(socket.AF_UNIX).detach()) == "socket"
    assert looks_of(socket.create_server(("127.0.0.1", 0)).detach()) == "listening-socket"
    one, other = socket.socketpair()
    assert looks_of(one.detach()) == "connected-socket"
    other.close()


@pytest.mark.parametrize(
    ("link", "type", "looks"),
    [
        ("/dev/kvm", stat.S_IFCHR, "kvm"),
        ("anon_inode:kvm-vm", 0, "kvm-vm"),
        ("anon_inode:kvm-vcpu:3", 0, "kvm-vcpu"),
        ("/dev/net/tun", stat.S_IFCHR, "tap"),
        ("/dev/vfio/vfio", stat.S_IFCHR, "vfio-container"),
        ("/dev/vfio/12", stat.S_IFCHR, "vfio-group"),
        ("/dev/vfio/devices/vfio0", stat.S_IFCHR, "vfio-device"),
        ("anon_inode:[vfio-device]", 0, "vfio-device"),
        ("/dev/iommu", stat.S_IFCHR, "iommufd"),
        ("anon_inode:[timerfd]", 0, "timerfd"),
        ("anon_inode:[signalfd]", 0, "signalfd"),
        ("anon_inode:[io_uring]", 0, "other"),
        ("/dev/vda", stat.S_IFBLK, "device"),
        ("socket:[7]", stat.S_IFSOCK, "socket"),
    ],
)
def test_looks_by_the_link(link: str, type: int, looks: str) -> None:
    """Of what not every host has."""
    assert evidence._looks(link, type, None) == looks


@pytest.mark.parametrize("number", [-1, 1 << 20, 1 << 40])
def test_what_is_not_open_looks_like_nothing(number: int) -> None:
    assert look(number) is None


def test_an_eventfd_shows_its_count_and_an_id_of_its_own() -> None:
    one, other = os.eventfd(0xABC), os.eventfd(0)
    seen, second = look(one), look(other)
    assert seen
    assert second
    assert (seen.count, second.count) == (0xABC, 0)
    assert seen.inode == second.inode
    assert seen.unique != second.unique
    os.close(one)
    os.close(other)


def test_looking_at_another_process() -> None:
    number = memfd("theirs", b"12345")
    words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[number]) as child:
        seen, mine = look(number, child.pid), look(number)
        assert seen
        assert mine
        assert (seen.looks, seen.inode, seen.size) == ("memfd", mine.inode, 5)
        assert (seen.cloexec, mine.cloexec) == (False, True)
        assert number in open_numbers(child.pid)
        assert same_open_file(os.getpid(), number, child.pid, number) is True
        assert same_open_file(os.getpid(), number, child.pid, 0) is False
        with pytest.raises(HostError):
            same_open_file(os.getpid(), number, child.pid, 900)
        entry = Entry("ram", "ram0", 0, number, before=mine)
        assert check_entry(entry, pid=child.pid) == []
        assert [x.what for x in check_entry(entry.at(900), pid=child.pid)] == ["missing"]
        child.communicate()
    assert look(number, child.pid) is None
    os.close(number)


# -- what is wrong --------------------------------------------------------------------


def test_nothing_is_wrong() -> None:
    with no_leak(), filled_table() as table:
        assert check_table(table, cloexec=True) == []
        assert duplicates(table) == []


def one_finding(table: Table, **options: bool) -> tuple[str, str, str]:
    (found,) = check_table(table, **options)
    assert found.what in WHATS
    return found.what, found.name, found.text


def test_missing() -> None:
    with filled_table() as table:
        number = table["ram0", 0].number
        os.close(number)
        text = f"ram0: descriptor {number} is not open"
        assert one_finding(table) == ("missing", "ram0", text)


def test_wrong_kind() -> None:
    with filled_table() as table:
        number = table["serial", 4].number
        os.dup2(table["log", 0].number, number)
        what, name, text = one_finding(table)
        assert (what, name) == ("wrong-kind", "serial")
        assert text.startswith(f"serial[4]: {number} should be eventfd, and is pipe (pipe:[")


def twins(kind: str) -> list[int]:
    """A new descriptor of a kind, and what has to be open for it."""
    if kind == "ram":
        return [memfd()]
    if kind == "pipe":
        return list(reversed(os.pipe()))
    return [end.detach() for end in socket.socketpair()]


@pytest.mark.parametrize("key", [("ram0", 0), ("monitor", 0), ("log", 1)])
def test_another_file_of_the_same_kind(key: tuple[str, int]) -> None:
    with filled_table() as table:
        made = twins(table[key].kind)
        os.dup2(made[0], table[key].number, inheritable=False)
        found = [x for x in check_table(table) if (x.name, x.id) == key]
        assert [x.what for x in found] == ["other-file"]
        assert f"{table[key].number} was inode" in found[0].text
        for number in made:
            os.close(number)


def test_another_eventfd_is_told_by_its_id() -> None:
    with filled_table() as table:
        twin = os.eventfd(3)
        os.dup2(twin, table["serial", 4].number, inheritable=False)
        os.close(twin)
        what, _, text = one_finding(table)
        assert what == "other-file"
        assert "was eventfd" in text


def test_changed_size_seals_count_offset_flags() -> None:
    with filled_table() as table:
        ram, irq, log = (table[key].number for key in (("ram0", 0), ("serial", 4), ("log", 0)))
        firmware = table["firmware", 0].number
        os.ftruncate(ram, 4096)
        fcntl.fcntl(ram, 1033, 2)
        os.eventfd_read(irq)
        os.set_blocking(log, False)
        os.lseek(firmware, 7, os.SEEK_SET)
        found = check_table(table)
        assert {x.what for x in found} == {"changed"}
        texts = " ".join(x.text for x in found)
        for part in ("size was 5, and is 4096", "seals were 0x0, and are 0x2", "flags was"):
            assert part in texts
        assert "count was 3, and is 0: an event is lost" in texts
        assert "offset was 0, and is 7" in texts


def test_an_event_more_is_no_fault_and_an_offset_only_where_asked() -> None:
    with filled_table() as table:
        os.eventfd_write(table["serial", 4].number, 1)
        os.lseek(table["ram0", 0].number, 0, os.SEEK_SET)
        assert check_table(table) == []
        entry = table["ram0", 0]
        strict = Entry("ram", "ram0", 0, entry.number, entry.checks | SAME_POS, entry.before)
        assert [x.what for x in check_entry(strict)] == ["changed"]


def test_close_on_exec_on_and_off() -> None:
    with filled_table() as table:
        table.hand_over()
        assert check_table(table, cloexec=False) == []
        set_cloexec(table["ram0", 0].number)
        assert one_finding(table, cloexec=False)[0] == "close-on-exec-on"
        table.take_back()
        set_cloexec(table["ram0", 0].number, on=False)
        assert one_finding(table, cloexec=True)[0] == "close-on-exec-off"


def test_handing_over_what_is_not_open_changes_nothing() -> None:
    with filled_table() as table:
        os.close(table["listener", 0].number)
        with pytest.raises(HostError, match="Bad file descriptor"):
            table.hand_over()
        rest = [entry for entry in table if entry.name != "listener"]
        assert [x for entry in rest for x in check_entry(entry, cloexec=True)] == []
        table.take_back()


def test_the_same_file_under_two_names_and_one_name_twice() -> None:
    number = memfd()
    twin = os.dup(number)
    entries = [Entry("ram", "a", 0, number), Entry("ram", "b", 0, twin), Entry("ram", "a", 0, 900)]
    found = duplicates(entries)
    assert [(x.what, x.name) for x in found] == [("duplicate-file", "b"), ("duplicate-name", "a")]
    os.close(number)
    os.close(twin)


def test_leaks() -> None:
    with filled_table() as table:
        before = set(open_numbers()) - set(table.numbers())
        assert leaked(table, before) == []
        extra = os.eventfd(0)
        (found,) = leaked(table, before)
        assert (found.what, found.number) == ("leaked", extra)
        assert "eventfd" in found.text
        os.close(extra)


def test_the_pause_imports_nothing_that_is_slow() -> None:
    """See docs/fds.md: these cost more than all the rest."""
    slow = {"dataclasses", "typing", "collections", "enum", "re", "socket", "json", "construct"}
    modules = "fds.table, cprproto.fds.check, cprproto.fds.document, cprproto.fds.moving"
    more = "cprproto.state.qcpr, cprproto.state.loading"
    text = f"import sys; import cprproto.{modules}, {more}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", text],
        env={**os.environ, "PYTHONPATH": str(ROOT / "proto")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert slow & set(done.stdout.split()) == set()


def test_the_page_has_every_finding() -> None:
    text = (ROOT / "docs" / "fds.md").read_text().partition("## The table")[2]
    assert re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE) == list(WHATS)


def test_the_errors_are_one_tree() -> None:
    import cprproto.errors as module

    names = [name for name in module.__all__ if name != "ProtoError"]
    assert all(issubclass(getattr(module, name), ProtoError) for name in names)
    assert module.__doc__ is not None
    assert [name for name in names if name not in module.__doc__] == []
