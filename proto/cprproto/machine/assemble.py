"""Make `code.py` from `listing.s` with GNU binutils: ``python -m cprproto.machine.assemble``.

The bytes are kept in the package, so that running a guest needs no assembler; a live test
assembles again and compares.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from cprproto.errors import HostError

__all__ = ["LABELS", "assemble", "render"]

HERE = Path(__file__).resolve().parent
#: Places in the program that the machine must know.
LABELS = ("irq_timer", "irq_pit", "irq_level", "irq_spurious", "irq_device", "faults")


def assemble(listing: Path = HERE / "listing.s") -> tuple[bytes, dict[str, int]]:
    """Assemble a listing: the bytes of its text, and the offsets of `LABELS`.

    Raises:
        HostError: binutils are missing, or do not like the listing.
    """
    with tempfile.TemporaryDirectory() as folder:
        made, flat = Path(folder, "guest.o"), Path(folder, "guest.bin")
        _run("as", "-o", str(made), str(listing))
        _run("objcopy", "-O", "binary", "-j", ".text", str(made), str(flat))
        symbols = [line.split() for line in _run("nm", str(made)).splitlines()]
        places = {name: int(value, 16) for value, _, name in symbols if name in LABELS}
        return flat.read_bytes(), places


def _run(*command: str) -> str:
    try:
        run = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError:
        raise HostError(f"{command[0]} is missing: apt install binutils") from None
    except subprocess.CalledProcessError as error:
        raise HostError(f"{command[0]}: {error.stderr.strip()}") from None
    return run.stdout


def render(code: bytes, places: dict[str, int]) -> str:
    """Write the Python module that holds an assembled program."""
    lines = [code[at : at + 32].hex() for at in range(0, len(code), 32)]
    body = "\n".join(f'    "{line}"' for line in lines)
    labels = "\n".join(f'    "{name}": 0x{places[name]:X},' for name in LABELS)
    return (
        '"""The guest\'s program as bytes: `cprproto.machine.assemble` of listing.s."""\n\n'
        "from __future__ import annotations\n\n"
        '__all__ = ["CODE", "PLACES"]\n\n'
        f"CODE = bytes.fromhex(\n{body}\n)\n"
        f"#: Offsets of what the machine must know: handlers of interrupts and of exceptions.\n"
        f"PLACES = {{\n{labels}\n}}\n"
    )


if __name__ == "__main__":
    (HERE / "code.py").write_text(render(*assemble()))
