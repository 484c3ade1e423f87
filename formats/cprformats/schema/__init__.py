"""State formats of a QEMU, read out of its binary."""
