"""The codes of findings, with their words."""

from __future__ import annotations

from cprtools.check.codes import Code, register

__all__: list[str] = []

register(
    Code(
        "not-a-stream",
        "the target does not take this for a migration stream",
        "The first bytes are not those of a migration stream, or are of a version that it does "
        "not read (migration/savevm.c: qemu_loadvm_state_header).",
        "Look at the file with `cprtools inspect`. A file that libvirt or qemu-img wrapped has "
        "to be unwrapped.",
        "qemu-system-x86_64: Not a migration stream",
    ),
    Code(
        "machine-type",
        "the state is of another machine type than the target runs",
        "The configuration section names the source's machine type, and the target compares "
        "names (migration/savevm.c: configuration_post_load). An alias like `q35` stands for the "
        "newest version in each QEMU.",
        "Start the target with the machine type of the state: `-machine pc-q35-7.2`. If the "
        "target lacks it, only a QEMU that has it can load the state.",
        "qemu-system-x86_64: Machine type received is 'pc-q35-7.2' and local is 'pc-q35-10.0'",
    ),
    Code(
        "machine-unknown",
        "the target has no such machine type",
        "Each QEMU has the versioned machine types up to its own version, and drops those that "
        "are too old; vendors have their own names.",
        "`-machine help` lists what there is. Use a QEMU that has the machine type of the state.",
        "qemu-system-x86_64: unsupported machine type\n"
        "Use -machine help to list supported machines",
    ),
    Code(
        "command-unknown",
        "the stream has a command that the target does not know",
        "Commands of the source's migration thread stand between the sections; newer versions "
        "have more of them (migration/savevm.c: loadvm_process_command). SWITCHOVER_START is "
        "sent since 10.0.",
        "Use the machine type of the older QEMU on the source (it decides on "
        "`send-switchover-start`), or a newer target.",
        "qemu-system-x86_64: MIG_CMD 0xb unknown (len 0x0)",
    ),
    Code(
        "page-bits",
        "source and target count guest pages in different sizes",
        "The size of a target page is part of the configuration section (migration/savevm.c: "
        "configuration_post_load).",
        "Use the same target architecture, and on Arm a machine type with the same minimal page "
        "size.",
        "qemu-system-aarch64: Received TARGET_PAGE_BITS is 12 but local is 10",
    ),
    Code(
        "capability",
        "a migration capability is set on one side only",
        "x-ignore-shared and mapped-ram change the form of the stream, so both sides must have "
        "them alike (migration/savevm.c: configuration_validate_capabilities).",
        "Set it on the target before it loads, as the source had it: QMP "
        "migrate-set-capabilities; here `--target-capability mapped-ram=on`.",
        "qemu-system-x86_64: Capability mapped-ram is off, but received capability is on",
    ),
    Code(
        "capability-unknown",
        "the state needs a migration capability that the target does not know",
        "The configuration section lists a capability by a name that this QEMU lacks "
        "(migration/savevm.c: get_capability).",
        "Use a target that has it (mapped-ram: since 9.0), or save the state without it.",
        "qemu-system-x86_64: Received unknown capability mapped-ram",
    ),
    Code(
        "capability-refused",
        "the target refuses a migration capability or parameter, or to load with it",
        "QMP answers with an error: the name is not known, the value is not allowed, or the "
        "capability does not fit the way the state comes (multifd needs several channels).",
        "Leave it out, or give a value that this version takes.",
        "QMP: Parameter 'capability' does not accept value 'mapped-ram'",
    ),
    Code(
        "uuid",
        "the state is of a VM with another UUID",
        "With the capability validate-uuid both sides compare the VM's UUID (migration/savevm.c: "
        "vmstate_uuid_post_load).",
        "Give the target the same `-uuid`, or leave validate-uuid off.",
        "qemu-system-x86_64: UUID received is 1111... and local is 2222...",
    ),
    Code(
        "configuration",
        "the stream has no configuration section and the target wants one",
        "Machine types from 2.4 on expect it right behind the header (migration/savevm.c: "
        "qemu_loadvm_state_header). xen-save-devices-state and very old machine types write none.",
        "Load the state with the machine type and the way that wrote it.",
        "qemu-system-x86_64: Configuration section missing",
    ),
    Code(
        "unknown-section",
        "the target has no device or handler for a section",
        "Each section is looked up by its name and instance number; the target's command line "
        "makes no such device, or makes it at another address (migration/savevm.c: "
        "qemu_loadvm_section_start_full).",
        "Give the target the same devices at the same addresses: `addr=`, `bus=`, `id=` as on "
        "the source. A device that was hotplugged has to be on the command line too.",
        "qemu-system-x86_64: Unknown savevm section or instance '0000:00:03.0/virtio-net' 0. "
        "Make sure that your current VM setup matches your saved VM setup, including any "
        "hotplugged devices",
    ),
    Code(
        "section-version",
        "a section has a version that the target does not take",
        "A device's state has a version, and a target takes those from its minimum to its own "
        "(migration/savevm.c: qemu_loadvm_section_start_full; migration/vmstate.c: "
        "vmstate_load_state).",
        "Going back to an older QEMU works with a machine type that the older one has, if the "
        "source was started with it.",
        "qemu-system-x86_64: savevm: unsupported version 23 for 'cpu' v22",
    ),
    Code(
        "section-footer",
        "a section is longer or shorter than the target reads it",
        "Behind a section its number stands once more; the target read too much or too little "
        "and finds other bytes there (migration/savevm.c: check_section_footer). Mostly a device "
        "has another set of fields: another version, another vendor's build, or a property that "
        "decides on fields.",
        "Compare both QEMUs with `cprtools schema --diff`; pin the machine type; set the "
        "property of the device that brings the field.",
        "qemu-system-x86_64: Missing section footer for 0000:00:01.3/piix4_pm",
    ),
    Code(
        "unknown-subsection",
        "a device sent a subsection that the target does not know",
        "Optional state is sent in subsections by name; one that the target lacks can't be left "
        "out (migration/vmstate.c: vmstate_subsection_load).",
        "Pin the older machine type on the source, or switch the feature off that brings it; "
        "else load with a newer QEMU.",
        "qemu-system-x86_64: error while loading state for instance 0x0 of device 'cpu'\n"
        "qemu-system-x86_64: load of migration failed: No such file or directory",
    ),
    Code(
        "ram-block-unknown",
        "the target has no RAM block of that name",
        "RAM is sent by the names of its blocks; the target's command line makes none of this "
        "name: another memory backend id, another number of DIMMs, a device with memory missing "
        "(migration/ram.c: parse_ramblock).",
        "Give the target the same memory backends with the same ids, and the same devices.",
        'qemu-system-x86_64: Unknown ramblock "ram1", cannot accept migration',
    ),
    Code(
        "ram-block-size",
        "a RAM block has another size on the target",
        "Only blocks that can be resized take another size, and up to their maximum "
        "(system/physmem.c: qemu_ram_resize).",
        "Give the target the same `-m`, the same DIMMs, and for ROMs and video memory the same "
        "files and properties (`romfile=`, `vgamem_mb=`).",
        "qemu-system-x86_64: Size mismatch: pc.ram: 0x8000000 != 0x10000000: Invalid argument",
    ),
    Code(
        "ram-block-page",
        "a RAM block is backed by other pages than the target's, or lies elsewhere",
        "Postcopy needs equal backing pages; x-ignore-shared needs equal addresses "
        "(migration/ram.c: parse_ramblock).",
        "Use the same memory backends (page size, share=) on both sides.",
        "qemu-system-x86_64: Mismatched RAM page size ram0 (local) 4096 != 2097152",
    ),
    Code(
        "ram-pages",
        "the target refuses RAM pages of this kind",
        "It meets a page outside of its block, compressed in a way that it does not read or was "
        "not told of, or a block that should not be sent (migration/ram.c: ram_load_precopy).",
        "Set the capability that the source had (compress: up to 9.0), or save the state again "
        "without it.",
        "qemu-system-x86_64: Received an unexpected compressed page",
    ),
    Code(
        "postcopy",
        "the stream prepares postcopy and the target does not, or the other way round",
        "The source announces postcopy in the stream (migration/savevm.c: "
        "loadvm_postcopy_handle_advise).",
        "Set postcopy-ram on both sides, or on none.",
        "qemu-system-x86_64: RAM postcopy is disabled but have 16 byte advise",
    ),
    Code(
        "virtio-features",
        "the guest uses virtio features that the target does not offer",
        "What driver and device agreed on is in the state; a target that offers less can't go on "
        "(hw/virtio/virtio.c: virtio_load). What is offered depends on the machine type, on "
        "properties of the device, and for networks on the backend.",
        "Pin the machine type; give the device the same properties (`mq=`, `rss=`, "
        "`guest_uso4=`, `packed=`); use a network backend of the same kind.",
        "qemu-system-x86_64: Features 0x130bfffa7 unsupported. Allowed features: 0x179bfffe7",
    ),
    Code(
        "virtio-backend",
        "a network backend lacks what the guest uses",
        "The guest was promised offloads that need a backend with a virtio header "
        "(hw/net/virtio-net.c: virtio_net_post_load_virtio).",
        "Use a backend of the same kind (TAP with vnet_hdr) on the target.",
        "qemu-system-x86_64: virtio-net: saved image requires vnet_hdr=on",
    ),
    Code(
        "virtio-queues",
        "the queues of a virtio device do not fit",
        "The state has more or longer queues than the target's device, or their indices "
        "contradict guest memory (hw/virtio/virtio.c: virtio_load).",
        "Give the device the same `queues=`, `num-queues=` and `queue-size=`; before 5.2 they "
        "did not follow the number of CPUs.",
        "qemu-system-x86_64: VQ 0 vring.num 1024 exceeds allocated max 256\n"
        "qemu-system-x86_64: VQ 0 size 0x100 Guest index 0x1 inconsistent with Host index 0x900: "
        "delta 0xf701",
    ),
    Code(
        "pci-config",
        "the device's PCI configuration space differs where it must not",
        "Bits that the guest can't write must be equal: ids, revisions, capabilities and sizes "
        "(hw/pci/pci.c: get_pci_config_device).",
        "Pin the machine type; give the device the same properties: they decide on capabilities "
        "(MSI-X vectors, PCIe, ATS), ids and BARs.",
        "qemu-system-x86_64: get_pci_config_device: Bad config data: i=0x10 read: 61 device: 1 "
        "cmask: ff wmask: c0 w1cmask:0",
    ),
    Code(
        "field-value",
        "a field has a value that the target does not take",
        "Some fields guard that both sides are made alike, and must be equal or in a range "
        "(migration/vmstate-types.c: get_int32_equal and others; migration/vmstate.c: `Input "
        "validation`).",
        "Give the device the same property, or the machine the same number of CPUs, queues, "
        "ports or outputs.",
        "qemu-system-x86_64: 1 != 2\n"
        "qemu-system-x86_64: Failed to load virtio-gpu-scanouts:parent_obj.conf.max_outputs",
    ),
    Code(
        "device-refused",
        "the device reads its state and refuses it",
        "The values do not fit the target's device, as its own check says (`post_load` and the "
        "like).",
        "The line that QEMU prints before says what it looked at. Mostly a property, a CPU model "
        "or a backend differs.",
        "qemu-system-x86_64: Failed to load virtio-mem-device-early:tmp\n"
        "qemu-system-x86_64: error while loading state for instance 0x0 of device "
        "'0000:00:03.0/virtio-mem-device-early'",
    ),
    Code(
        "unmigratable",
        "the target has a device that does not take part in migration",
        "A device that can't be saved blocks loading too (migration/savevm.c: qemu_loadvm_state).",
        "Take the device off both command lines, or off the VM before it is saved.",
        "qemu-system-x86_64: State blocked by non-migratable device '0000:00:03.0/ivshmem-plain'",
    ),
    Code(
        "stream-damaged",
        "the stream breaks the rules of its format",
        "The target meets a section type, a section number, a command or a RAM record that "
        "nobody writes (migration/savevm.c: qemu_loadvm_state_main).",
        "Look where it breaks with `cprtools inspect --map`; save the state again.",
        "qemu-system-x86_64: Unknown savevm section type 118",
    ),
    Code(
        "stream-cut",
        "the stream ends too early",
        "The target reads on and finds the end of the file, and says only that input failed.",
        "See where it ends with `cprtools inspect`; save the state again, and copy it whole.",
        "qemu-system-x86_64: load of migration failed: Input/output error",
    ),
    Code(
        "load-failed",
        "the load fails, and QEMU does not say more",
        "The last line has a number of the operating system, and no device is named.",
        "Try with a newer QEMU: later versions say more.",
        "qemu-system-x86_64: load of migration failed: Invalid argument",
    ),
    Code(
        "target-arguments",
        "the target does not start with this command line",
        "It ends before it would load anything: a device, a property or a machine type that it "
        "lacks, or arguments that do not fit each other.",
        "Mend the command line; see the message. `-machine help` and `-device NAME,help` list "
        "what there is.",
        "qemu-system-x86_64: -device virtio-foo: 'virtio-foo' is not a valid device model name",
    ),
    Code(
        "target-host",
        "the target does not start because this host lacks something",
        "A file, a device, memory or a right is not here; it says nothing of the state.",
        "Check on the host where the target is to run, or as the user that runs it.",
        "qemu-system-x86_64: Could not access KVM kernel module: Permission denied",
    ),
    Code(
        "target-crashed",
        "the target was ended by a signal",
        "While it loads, that is a failure like any other: an assertion, or a bug of this "
        "version. Before it answers, nothing is known.",
        "Report it to the target's maker, with the state; use another version.",
        "qemu-system-x86_64: ... Assertion `...' failed. (SIGABRT)",
    ),
    Code(
        "target-hangs",
        "the target did not come to an end in time",
        "It neither loads nor fails, or it is slow.",
        "Give it more time: `--timeout SECONDS`.",
        "it has not answered after 60 s",
    ),
    Code(
        "target-floods",
        "the target prints or answers without end",
        "It was stopped after several megabytes.",
        "See what it prints; it may be no QEMU.",
        "it printed more than 8 MiB",
    ),
    Code(
        "target-not-qemu",
        "the target does not behave like a QEMU",
        "It ended, or went on, without the greeting of QMP, and its `--version` is not QEMU's.",
        'Name QEMU\'s binary, or a script that ends in `exec qemu-system-... "$@"` and leaves '
        "descriptors open.",
        "it ended with status 0 before it spoke QMP",
    ),
    Code(
        "target-ended",
        "the target ended while it loaded, and printed nothing that is known",
        "It went away without a message.",
        "Run it by hand with the same command line.",
        "it ended with status 1",
    ),
    Code(
        "target-said",
        "the target loads the state and prints something",
        "The load is complete; the line may matter for the VM afterwards.",
        "Read it.",
        "qemu-system-x86_64: warning: TSC frequency mismatch between VM (2000000 kHz) and host "
        "(2100000 kHz)",
    ),
    Code(
        "no-arguments",
        "the target's command line was not given",
        "Whether a state loads depends on the devices that the target has.",
        "Give it behind `--`.",
        "cprtools check STATE --target QEMU -- -machine pc-q35-7.2 -m 4G ...",
    ),
    Code(
        "not-looked-at",
        "something that can make a load fail was not looked at",
        "The dry run stands in for what is outside of QEMU: backends that promise features on "
        "their own, or keep device state. So it can't say `loads`.",
        "Try with the real ones, on a copy.",
        "vfio-pci: its state is kept outside of QEMU, and was left out",
    ),
    Code(
        "stand-in",
        "something was replaced for the dry run",
        "The dry run never opens disks and sockets of the VM. What was replaced does not change "
        "whether the state loads.",
        "Nothing.",
        "disk nbd://server/disk: its size is not known here",
    ),
    Code(
        "bounds",
        "the dry run ran with fewer bounds than it should",
        "The kernel or the container does not allow a network namespace. The target ran in the "
        "host's network; its backends were replaced all the same.",
        "Run as a user that may make user namespaces.",
        "no network namespace of its own: the kernel does not allow it here",
    ),
    Code(
        "engine-missing",
        "no engine can decide it",
        "What was asked for is not there, or running the target was forbidden.",
        "Leave out `--no-exec`, or choose another `--engine`.",
        "--no-exec: the dry run has to run the target",
    ),
)
