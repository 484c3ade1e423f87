"""A QEMU that was built for arm64 hosts, which is never run: Debian's package of it.

What it can load must be what the same version's build for this host prints of
itself, where both emulate the same target.
"""

from __future__ import annotations

import re
from pathlib import Path

import dumps
import pytest
import sources
from dumps import Node, found, found_foreign

import qemus_foreign

pytestmark = pytest.mark.live

CASES = [(version, target) for version in ("7.2", "10.0") for target in ("x86_64", "aarch64")]

#: Descriptions that only a build for x86 hosts has -> what they belong to.
X86_HOSTS_ONLY = {
    r"cpu/(kvm_)?nested_state(/.*)?": "nested guests of KVM on x86",
    r"kvmclock(/.*)?": "the clock of KVM on x86",
    r"vmbus(/.*|-.*)?|hv-syndbg": "Hyper-V devices, which need KVM on x86",
    r"xen_.*|platform|cpu/xen_vcpu": "Xen's devices, emulated with KVM on x86",
}

#: Descriptions with structures in memory that hold mutexes: a pthread_mutex_t has 40
#: bytes on x86-64 and 48 on arm64. It is the size of an object, not of anything sent.
#: -> how many mutexes (10.0: SCSIDevice.requests_lock, AddressSpace.map_client_list_lock).
MUTEXES = {("10.0", "scsi-disk"): 1, ("10.0", "designware-pcie-host"): 2}


def expected_missing(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in X86_HOSTS_ONLY)


def smaller(version: str, node: Node) -> Node:
    """A description with its first field as large as on x86-64."""
    mutexes = MUTEXES.get((version, node[0]), 0)
    if not mutexes:
        return node
    first, *rest = node[3]
    return (*node[:3], ((*first[:3], first[3] - 8 * mutexes, *first[4:]), *rest), node[4])


@pytest.mark.parametrize(("version", "target"), CASES)
def test_it_has_what_the_build_for_this_host_prints(
    version: str, target: str, tmp_path: Path
) -> None:
    wanted = dumps.wanted_nodes(dumps.dumped(version, target, "none", tmp_path))
    schema = found_foreign(version, target).schema
    assert {one.arch for one in schema.binaries} == {"aarch64"}
    have = {smaller(version, node) for node in dumps.have_nodes(schema, version)}
    missing = {node[0] for node in wanted - have}
    print(f"{version} {target}: {len(wanted & have)} of {len(wanted)}, lacks {sorted(missing)}")
    assert [name for name in missing if not expected_missing(name)] == []
    assert target == "x86_64" or not missing


@pytest.mark.parametrize(("version", "target"), CASES)
def test_it_has_no_other_descriptions(version: str, target: str) -> None:
    """Not only those printed: all of both builds, each way."""
    ours = dumps.have_nodes(found(version, target).schema, version)
    schema = found_foreign(version, target).schema
    theirs = {
        smaller(version, node): key for node, key in dumps.have_nodes(schema, version).items()
    }
    # The CPU's description names subsections that only KVM on x86 needs.
    only_here = {node[0] for node in ours.keys() - theirs.keys()} - {"cpu"}
    assert [name for name in only_here if not expected_missing(name)] == []
    only_there = [node[0] for node in theirs.keys() - ours.keys() if node[0] != "cpu"]
    assert only_there == []
    assert sources.unconfirmed(schema, list(schema.descriptions), version) == []


@pytest.mark.parametrize("version", qemus_foreign.PACKAGES)
def test_the_packages_are_known_by_their_sums(version: str) -> None:
    stamp = qemus_foreign.stamp(version)
    assert set(stamp) == set(qemus_foreign.PACKAGES[version])
    assert all(re.fullmatch("[0-9a-f]{64}", facts["sha256"]) for facts in stamp.values())
