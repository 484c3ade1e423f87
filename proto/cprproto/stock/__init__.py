"""Plays with a stock QEMU: we are the old program, or the new one."""
