"""The machine that is handed over: memory in descriptors, a guest that checks itself, two CPUs.

`ram` makes and maps memory, `layout` says where everything lies, `listing.s` is the guest's
program, `guest` has the two machines that run it: real KVM, or a small CPU in software.
"""
