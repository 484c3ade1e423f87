"""Schemas from whatever a user names: binaries, files of ours, dumps, folders."""
