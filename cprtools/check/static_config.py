"""Header and configuration section: machine type, page bits, capabilities, UUID.

Source: QEMU migration/savevm.c (qemu_loadvm_state_header, configuration_post_load,
configuration_validate_capabilities, vmstate_uuid_post_load).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cprformats.errors import Unsupported
from cprformats.migration.stream import MigrationStream
from cprtools.check.messages import finding
from cprtools.check.model import Finding, Target
from cprtools.check.static_plan import Plan
from cprtools.check.static_target import TargetFile

__all__ = ["check_configuration", "sends"]

#: Capabilities that are listed in a stream, and since when.
_LISTED: Final = {"x-ignore-shared": b"x-ignore-shared", "mapped-ram": b"mapped-ram"}
_OLD: Final = re.compile(r"pc-(?:i440fx-|q35-)?(\d+)\.(\d+)$")
#: Machine types of distributions whose age is not known.
_NAMED: Final = re.compile(r"pc-(?:i440fx|q35)-[a-z]")
_FIRST: Final = (2, 4)
_OFF: Final = ("off", "false", "no", "0")


def sends(machine: str, plan: Plan | None, what: str) -> bool:
    """Say whether a machine type writes, and expects, `configuration` or `section-footer`."""
    if plan is not None and f"migration.send-{what}" in plan.globals:
        return plan.globals[f"migration.send-{what}"] not in _OFF
    found = _OLD.match(machine)
    return found is None or (int(found[1]), int(found[2])) >= _FIRST


def check_configuration(
    stream: MigrationStream, target: Target, file: TargetFile, machine: str, plan: Plan | None
) -> Iterator[Finding | str]:
    """Compare; `machine` is "" where the target's is not known."""
    if file.machines and machine and machine not in file.machines:
        yield _unknown_type(machine)
        return
    yield from _capabilities_asked(target, file)
    configuration = stream.configuration
    expected = sends(machine, plan, "configuration")
    error = stream.error
    if error is not None and "configuration" in error.path[:1]:
        code = "unknown-subsection" if isinstance(error, Unsupported) else "stream-damaged"
        yield finding(code, f"the configuration section breaks: {error}")
        return
    if _NAMED.match(machine) and stream.configuration is None:
        yield f"whether {machine} expects a configuration section"
        return
    if configuration is None:
        if expected and machine:
            yield finding(
                "configuration",
                "the state has no configuration section, and the target wants one",
                says="Configuration section missing",
            )
        return
    if not expected:
        yield finding(
            "stream-damaged",
            "the state has a configuration section, and the target's machine type expects none",
            says="Unknown savevm section type 7",
        )
        return
    yield from _machine(configuration.machine, machine, file)
    yield from _capabilities(configuration.capabilities, target, file)
    yield from _uuid(configuration.uuid, plan)


def _unknown_type(machine: str) -> Finding:
    return finding(
        "machine-unknown",
        f"the target has no machine type {machine}",
        expected="one of its machine types",
        found=machine,
        says=f'unsupported machine type: "{machine}"',
    )


def _machine(name: str, machine: str, file: TargetFile) -> Iterator[Finding]:
    """The names are compared over the length of the one in the stream."""
    if machine:
        if not machine.startswith(name):
            yield finding(
                "machine-type",
                f"the state is of a {name}, the target runs a {machine}",
                expected=machine,
                found=name,
                says=f"Machine type received is '{name}' and local is '{machine}'",
            )
    elif file.machines and not any(one.startswith(name) for one in file.machines):
        yield _unknown_type(name)


def _capabilities_asked(target: Target, file: TargetFile) -> Iterator[Finding]:
    for name, value in target.capabilities.items():
        if value in ("on", "off") and file.machines and not file.says(name.encode() + b"\0"):
            yield finding(
                "capability-refused",
                f"the target does not know the migration capability {name}",
                field=name,
                found=value,
                says=f"Parameter 'capability' does not accept value '{name}'",
            )


def _capabilities(names: tuple[str, ...], target: Target, file: TargetFile) -> Iterator[Finding]:
    for name in names:
        if name not in _LISTED or (file.machines and not file.says(name.encode() + b"\0")):
            yield finding(
                "capability-unknown",
                f"the state needs the migration capability {name}, which the target does not know",
                field=name,
                found="on",
                says=f"Received unknown capability {name}",
            )
    for name in _LISTED:
        ours = target.capabilities.get(name) == "on"
        if ours != (name in names):
            words = ("off", "on")
            yield finding(
                "capability",
                f"migration capability {name}: {words[name in names]} in the state, "
                f"{words[ours]} on the target",
                field=name,
                expected=words[ours],
                found=words[name in names],
                says=f"Capability {name} is {words[ours]}, "
                f"but received capability is {words[not ours]}",
            )


def _uuid(uuid: str | None, plan: Plan | None) -> Iterator[Finding]:
    """Compared where the target has one, even if its own capability is off."""
    if uuid is not None and plan is not None and plan.uuid not in ("", uuid.lower()):
        yield finding(
            "uuid",
            f"the state is of the VM {uuid}, the target runs {plan.uuid}",
            expected=plan.uuid,
            found=uuid,
            says=f"UUID received is {uuid} and local is {plan.uuid}",
        )
