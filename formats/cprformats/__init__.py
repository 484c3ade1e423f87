"""Parsers for the files of a QEMU upgrade: bytes in, frozen values out.

Pure: no printing, no process, no network. `migration` reads migration
streams, `cpr` the state file that names inherited descriptors, `container`
what streams are wrapped in.
"""
