"""State that goes from one process to the next: QEMU's CPR state and migration streams."""
