"""KVM from plain ``fcntl.ioctl``: request numbers, a VM, its vCPUs, and all of their state."""
