"""Will this state load in that QEMU? Engines that answer, each by what it knows."""
