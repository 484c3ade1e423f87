"""Layouts of sections that all x86 streams have, for streams without a description.

::

    layout = name version NEWLINE field+          the same name again: another form of it
    field  = name : type [ "[" count "]" ] [ "?" name ]
    type   = u8 ... i64, bool, timer              "=" and "<" behind: checked by the loader
           | buffer(n) | unused(n) | pci_config ... | {layout} | tmp{layout}
    count  = number | name of a field in front | "..." (as long as an element can begin)

``?name`` is there only if the field of that name is not 0. A ``*`` behind a
layout's name tells an inner one from the outer one of the same name. A name
with ``/`` is a subsection.

Source: vmdesc of QEMU 5.2, 7.2, 8.2, 10.0 and 11.1 (all machine versions
alike unless there are two forms); target/i386/machine.c (vmstate_x86_cpu).
"""

from __future__ import annotations

__all__ = ["LAYOUTS"]

LAYOUTS = """\
acpi_build 1
    patched:u8
acpi_pcihp_pci_status 1
    up:u32 down:u32
ahci 1
    dev:{ahci port}[6] control_regs.cap:u32 control_regs.ghc:u32 control_regs.irqstatus:u32
    control_regs.impl:u32 control_regs.version:u32 idp_index:u32 ports:i32=
ahci port 1
    port:{ide_bus} port.ifs[0]:{ide_drive} port_state:u32 finished:u32 port_regs.lst_addr:u32
    port_regs.lst_addr_hi:u32 port_regs.fis_addr:u32 port_regs.fis_addr_hi:u32
    port_regs.irq_stat:u32 port_regs.irq_mask:u32 port_regs.cmd:u32 port_regs.tfdata:u32
    port_regs.sig:u32 port_regs.scr_stat:u32 port_regs.scr_ctl:u32 port_regs.scr_err:u32
    port_regs.scr_act:u32 port_regs.cmd_issue:u32 done_first_drq:bool busy_slot:i32
    init_d2h_sent:bool ncq_tfs:{ncq state}[32]
apic 3
    apicbase:u32 id:u8 arb_id:u8 tpr:u8 spurious_vec:u32 log_dest:u8 dest_mode:u8 isr:u32[8]
    tmr:u32[8] irr:u32[8] lvt:u32[6] esr:u32 icr:u32[2] divide_conf:u32 count_shift:i32
    initial_count:u32 initial_count_load_time:i64 next_time:i64 timer_expiry:i64
apic_sipi 1
    sipi_vector:i32 wait_for_sipi:i32
APM State 1
    apmc:u8 apms:u8
bnd_regs 1
    lb:u64 ub:u64
cirrus_vga 2
    dev:{PCIDevice} cirrus_vga:{cirrus_vga*}
cirrus_vga* 2
    vga.latch:u32 vga.sr_index:u8 vga.sr:buffer(256) vga.gr_index:u8 cirrus_shadow_gr0:u8
    cirrus_shadow_gr1:u8 vga.gr:buffer(254) vga.ar_index:u8 vga.ar:buffer(21) vga.ar_flip_flop:i32
    vga.cr_index:u8 vga.cr:buffer(256) vga.msr:u8 vga.fcr:u8 vga.st00:u8 vga.st01:u8
    vga.dac_state:u8 vga.dac_sub_index:u8 vga.dac_read_index:u8 vga.dac_write_index:u8
    vga.dac_cache:buffer(3) vga.palette:buffer(768) vga.bank_offset:i32
    cirrus_hidden_dac_lockindex:u8 cirrus_hidden_dac_data:u8 vga.hw_cursor_x:u32
    vga.hw_cursor_y:u32
cpu 12
    env.regs:u64[16] env.eip:u64 env.eflags:u64 env.hflags:u32 env.fpuc:u16 env.fpus_vmstate:u16
    env.fptag_vmstate:u16 env.fpregs_format_vmstate:u16 env.fpregs:{fpreg}[8]
    env.segs:{segment}[6] env.ldt:{segment} env.tr:{segment} env.gdt:{segment} env.idt:{segment}
    env.sysenter_cs:u32 env.sysenter_esp:u64 env.sysenter_eip:u64 env.cr[0]:u64 env.cr[2]:u64
    env.cr[3]:u64 env.cr[4]:u64 env.dr:u64[8] env.a20_mask:i32 env.mxcsr:u32
    env.xmm_regs[0]:{xmm_reg}[16] env.efer:u64 env.star:u64 env.lstar:u64 env.cstar:u64
    env.fmask:u64 env.kernelgsbase:u64 env.smbase:u32 env.pat:u64 env.hflags2:u32 env.vm_hsave:u64
    env.vm_vmcb:u64 env.tsc_offset:u64 env.intercept:u64 env.intercept_cr_read:u16
    env.intercept_cr_write:u16 env.intercept_dr_read:u16 env.intercept_dr_write:u16
    env.intercept_exceptions:u32 env.v_tpr:u8 env.mtrr_fixed:u64[11] env.mtrr_deftype:u64
    env.mtrr_var:{mtrr_var}[8] env.interrupt_injected:i32 env.mp_state:u32 env.tsc:u64
    env.exception_nr:i32 env.soft_interrupt:u8 env.nmi_injected:u8 env.nmi_pending:u8
    env.has_error_code:u8 env.sipi_vector:u32 env.mcg_cap:u64 env.mcg_status:u64 env.mcg_ctl:u64
    env.mce_banks:u64[40] env.tsc_aux:u64 env.system_time_msr:u64 env.wall_clock_msr:u64
    env.xcr0:u64 env.xstate_bv:u64 env.xmm_regs[1]:{ymmh_reg}[16]
CPU hotplug device state 1
    is_inserting:bool is_removing:bool ost_event:u32 ost_status:u32
CPU hotplug state 1
    selector:u32 command:u8 devs:{CPU hotplug device state}[...]
cpu/amd_tsc_scale_msr 1
    env.amd_tsc_scale_msr:u64
cpu/async_pf_int_msr 1
    env.async_pf_int_msr:u64
cpu/async_pf_msr 1
    env.async_pf_en_msr:u64
cpu/async_pv_eoi_msr 1
    env.pv_eoi_en_msr:u64
cpu/avx512 1
    env.opmask_regs:u64[8] env.xmm_regs[0]:{zmmh_reg}[16] env.xmm_regs[1]:{hi16_zmm_reg}[16]
cpu/cet 1
    env.u_cet:u64 env.s_cet:u64
cpu/cet_shstk 1
    env.pl1_ssp:u64 env.pl2_ssp:u64 env.pl3_ssp:u64 env.int_ssp_table:u64 env.guest_ssp:u64
cpu/efer32 1
    env.efer:u64
cpu/error_code 1
    env.error_code:i32
cpu/exception_info 1
    env.exception_pending:u8 env.exception_injected:u8 env.exception_has_payload:u8
    env.exception_payload:u64
cpu/fpop_ip_dp 1
    env.fpop:u16 env.fpip:u64 env.fpdp:u64
cpu/intel_pt 1
    env.msr_rtit_ctrl:u64 env.msr_rtit_status:u64 env.msr_rtit_output_base:u64
    env.msr_rtit_output_mask:u64 env.msr_rtit_cr3_match:u64 env.msr_rtit_addrs:u64[8]
cpu/mcg_ext_ctl 1
    env.mcg_ext_ctl:u64
cpu/mpx 1
    env.bnd_regs:{bnd_regs}[4] env.bndcs_regs.cfgu:u64 env.bndcs_regs.sts:u64
cpu/msr_architectural_pmu 1
    env.msr_fixed_ctr_ctrl:u64 env.msr_global_ctrl:u64 env.msr_global_status:u64
    env.msr_global_ovf_ctrl:u64 env.msr_fixed_counters:u64[3] env.msr_gp_counters:u64[18]
    env.msr_gp_evtsel:u64[18]
cpu/msr_hwcr 1
    env.msr_hwcr:u64
cpu/msr_hyperv_crash 1
    env.msr_hv_crash_params:u64[5]
cpu/msr_hyperv_hypercall 1
    env.msr_hv_guest_os_id:u64 env.msr_hv_hypercall:u64
cpu/msr_hyperv_reenlightenment 1
    env.msr_hv_reenlightenment_control:u64 env.msr_hv_tsc_emulation_control:u64
    env.msr_hv_tsc_emulation_status:u64
cpu/msr_hyperv_runtime 1
    env.msr_hv_runtime:u64
cpu/msr_hyperv_stimer 1
    env.msr_hv_stimer_config:u64[4] env.msr_hv_stimer_count:u64[4]
cpu/msr_hyperv_synic 1
    env.msr_hv_synic_control:u64 env.msr_hv_synic_evt_page:u64 env.msr_hv_synic_msg_page:u64
    env.msr_hv_synic_sint:u64[16]
cpu/msr_hyperv_time 1
    env.msr_hv_tsc:u64
cpu/msr_hyperv_vapic 1
    env.msr_hv_vapic:u64
cpu/msr_ia32_feature_control 1
    env.msr_ia32_feature_control:u64
cpu/msr_ia32_misc_enable 1
    env.msr_ia32_misc_enable:u64
cpu/msr_pl0_ssp 1
    env.pl0_ssp:u64
cpu/msr_smi_count 1
    env.msr_smi_count:u64
cpu/msr_tsc_adjust 1
    env.tsc_adjust:u64
cpu/msr_tscdeadline 1
    env.tsc_deadline:u64
cpu/msr_tsx_ctrl 1
    env.tsx_ctrl:u32
cpu/msr_xfd 1
    env.msr_xfd:u64 env.msr_xfd_err:u64
cpu/pkrs 1
    env.pkrs:u32
cpu/pkru 1
    env.pkru:u32
cpu/poll_control_msr 1
    env.poll_control_msr:u64
cpu/spec_ctrl 1
    env.spec_ctrl:u64
cpu/steal_time_msr 1
    env.steal_time_msr:u64
cpu/svm_guest 1
    env.int_ctl:u32
cpu/svn_npt 1
    env.nested_cr3:u64 env.nested_pg_mode:u32
cpu/triple_fault 1
    env.triple_fault_pending:u8
cpu/tsc_khz 1
    env.tsc_khz:i64
cpu/umwait 1
    env.umwait:u32
cpu/virt_ssbd 1
    env.virt_ssbd:u64
cpu/xen_vcpu 1
    env.xen_vcpu_info_gpa:u64 env.xen_vcpu_info_default_gpa:u64 env.xen_vcpu_time_info_gpa:u64
    env.xen_vcpu_runstate_gpa:u64 env.xen_vcpu_callback_vector:u8 env.xen_virq:u16[24]
    env.xen_singleshot_timer_ns:u64 env.xen_periodic_timer_period:u64
cpu/xss 1
    env.xss:u64
cpu_common 1
    halted:u32 interrupt_request:u32
dma 1
    command:u8 mask:u8 flip_flop:u8 dshift:i32 regs:{dma_regs}[4]
dma_regs 1
    now:i32[2] base:u16[2] mode:u8 page:u8 pageh:u8 dack:u8 eop:u8
e1000 2
    parent_obj:{PCIDevice} unused[1]:unused(4) rxbuf_size:u32 rxbuf_min_shift:u32
    eecd_state.val_in:u32 eecd_state.bitnum_in:u16 eecd_state.bitnum_out:u16
    eecd_state.reading:u16 eecd_state.old_eecd:u32 mig_props.ipcss:u8 mig_props.ipcso:u8
    mig_props.ipcse:u16 mig_props.tucss:u8 mig_props.tucso:u8 mig_props.tucse:u16
    mig_props.paylen:u32 mig_props.hdr_len:u8 mig_props.mss:u16 tx.size:u16 tx.tso_frames:u16
    tx.sum_needed:u8 mig_props.ip:i8 mig_props.tcp:i8 tx.header:buffer(256) tx.data:buffer(65536)
    eeprom_data:u16[64] phy_reg:u16[32] mac_reg[CTRL]:u32 mac_reg[EECD]:u32 mac_reg[EERD]:u32
    mac_reg[GPRC]:u32 mac_reg[GPTC]:u32 mac_reg[ICR]:u32 mac_reg[ICS]:u32 mac_reg[IMC]:u32
    mac_reg[IMS]:u32 mac_reg[LEDCTL]:u32 mac_reg[MANC]:u32 mac_reg[MDIC]:u32 mac_reg[MPC]:u32
    mac_reg[PBA]:u32 mac_reg[RCTL]:u32 mac_reg[RDBAH]:u32 mac_reg[RDBAL]:u32 mac_reg[RDH]:u32
    mac_reg[RDLEN]:u32 mac_reg[RDT]:u32 mac_reg[STATUS]:u32 mac_reg[SWSM]:u32 mac_reg[TCTL]:u32
    mac_reg[TDBAH]:u32 mac_reg[TDBAL]:u32 mac_reg[TDH]:u32 mac_reg[TDLEN]:u32 mac_reg[TDT]:u32
    mac_reg[TORH]:u32 mac_reg[TORL]:u32 mac_reg[TOTH]:u32 mac_reg[TOTL]:u32 mac_reg[TPR]:u32
    mac_reg[TPT]:u32 mac_reg[TXDCTL]:u32 mac_reg[WUFC]:u32 mac_reg[VET]:u32 mac_reg[0]:u32[32]
    mac_reg[1]:u32[128] mac_reg[2]:u32[128]
e1000/full_mac_state 1
    mac_reg:u32[32768]
e1000/mit_state 1
    mac_reg[RDTR]:u32 mac_reg[RADV]:u32 mac_reg[TADV]:u32 mac_reg[ITR]:u32 mit_irq_level:bool
e1000/tx_tso_state 1
    tx.tso_props.ipcss:u8 tx.tso_props.ipcso:u8 tx.tso_props.ipcse:u16 tx.tso_props.tucss:u8
    tx.tso_props.tucso:u8 tx.tso_props.tucse:u16 tx.tso_props.paylen:u32 tx.tso_props.hdr_len:u8
    tx.tso_props.mss:u16 tx.tso_props.ip:i8 tx.tso_props.tcp:i8
e1000e 1
    parent_obj[0]:{PCIDevice} parent_obj[1]:{msix} ioaddr:u32 core.rxbuf_min_shift:u32
    core.rx_desc_len:u8 core.rxbuf_sizes:u32[4] core.rx_desc_buf_size:u32 core.eeprom:u16[64]
    core.phy:u16[224] core.mac:u32[32768] core.permanent_mac:u8[6] core.delayed_causes:u32
    subsys:u16 subsys_ven:u16 core.rdtr:{e1000e-intr-timer} core.radv:{e1000e-intr-timer}
    core.raid:{e1000e-intr-timer} core.tadv:{e1000e-intr-timer} core.tidv:{e1000e-intr-timer}
    core.itr:{e1000e-intr-timer} core.itr_intr_pending:bool core.eitr:{e1000e-intr-timer}[5]
    core.eitr_intr_pending:bool[5] core.itr_guest_value:u32 core.eitr_guest_value:u32[5]
    core.vet:u16 core.tx:{e1000e-tx}[2]
e1000e 1
    parent_obj[0]:{PCIDevice} parent_obj[1]:{msix} ioaddr:u32 core.rxbuf_min_shift:u32
    core.rx_desc_len:u8 core.rxbuf_sizes:u32[4] core.rx_desc_buf_size:u32 core.eeprom:u16[64]
    core.phy:u16[224] core.mac:u32[32768] core.permanent_mac:u8[6] core.delayed_causes:u32
    subsys:u16 subsys_ven:u16 core.rdtr:{e1000e-intr-timer} core.radv:{e1000e-intr-timer}
    core.raid:{e1000e-intr-timer} core.tadv:{e1000e-intr-timer} core.tidv:{e1000e-intr-timer}
    core.itr:{e1000e-intr-timer} unused[0]:unused(1) core.eitr:{e1000e-intr-timer}[5]
    unused[1]:unused(5) core.itr_guest_value:u32 core.eitr_guest_value:u32[5] core.vet:u16
    core.tx:{e1000e-tx}[2] core.timadj:i64
e1000e-intr-timer 1
    timer:timer running:bool
e1000e-tx 1
    sum_needed:u8 props.ipcss:u8 props.ipcso:u8 props.ipcse:u16 props.tucss:u8 props.tucso:u8
    props.tucse:u16 props.hdr_len:u8 props.mss:u16 props.paylen:u32 props.ip:i8 props.tcp:i8
    props.tse:bool cptse:bool skip_cp:bool
eeprom 20061113
    tick:u8 address:u8 command:u8 writable:u8 eecs:u8 eesk:u8 eedo:u8 addrbits:u8 size[1]:u16=
    data:u16 contents:u16[64]
fdc 2
    state:{fdc*}
fdc* 2
    sra:u8 srb:u8 dor_vmstate:u8 tdr:u8 dsr:u8 msr:u8 status0:u8 status1:u8 status2:u8
    fifo:u8[512] data_pos:u32 data_len:u32 data_state:u8 data_dir:u8 eot:u8 timer0:u8 timer1:u8
    precomp_trk:u8 config:u8 lock:u8 pwrd:u8 num_floppies:u8= drives:{fdrive}[num_floppies]
fdrive 1
    head:u8 track:u8 sect:u8
fdrive/media_rate 1
    media_rate:u8
fpreg 0
    tmp:tmp{fpreg_tmp}
fpreg_tmp 0
    tmp_mant:u64 tmp_exp:u16
fw_cfg 2
    cur_entry:u16 cur_offset[1]:u32
fw_cfg/acpi_mr 1
    table_mr_size:u64 linker_mr_size:u64 rsdp_mr_size:u64
fw_cfg/dma 0
    dma_addr:u64
globalstate 1
    size:u32 runstate:buffer(100)
globalstate 1
    size:u32 runstate:buffer(32) has_vm_was_suspended:u8 vm_was_suspended:u8 unused:buffer(66)
gpe 1
    sts:u16 en:u16
hi16_zmm_reg 1
    _q_ZMMReg[0]:u64 _q_ZMMReg[1]:u64 _q_ZMMReg[2]:u64 _q_ZMMReg[3]:u64 _q_ZMMReg[4]:u64
    _q_ZMMReg[5]:u64 _q_ZMMReg[6]:u64 _q_ZMMReg[7]:u64
HIDKeyboardDevice 1
    kbd.keycodes:u32[16] head:u32 n:u32 kbd.modifiers:u16 kbd.leds:u8 kbd.key:u8[16] kbd.keys:i32
    protocol:i32 idle:u8
HIDPointerDevice 1
    ptr.queue:{HIDPointerEventQueue}[16] head:u32 n:u32 protocol:i32 idle:u8
HIDPointerEventQueue 1
    xdx:i32 ydy:i32 dz:i32 buttons_state:i32
hpet 2
    config:u64 isr:u64 hpet_counter:u64 num_timers:u8 timer:{hpet_timer}[num_timers]
hpet/rtc_irq_level 1
    rtc_irq_level:u8
hpet_timer 1
    tn:u8 config:u64 cmp:u64 fsb:u64 period:u64 wrap_flag:u8 qemu_timer:timer
i2c_bus 1
    saved_address:u8
I440FX 3
    parent_obj:{PCIDevice} unused:unused(1)
i8254 3
    channels[0].irq_disabled:u32 channels:{pit channel}[3] channels[0].next_transition_time:i64
i8259 1
    last_irr:u8 irr:u8 imr:u8 isr:u8 priority_add:u8 irq_base:u8 read_reg_select:u8 poll:u8
    special_mask:u8 init_state:u8 auto_eoi:u8 rotate_on_auto_eoi:u8 special_fully_nested_mode:u8
    init4:u8 single_mode:u8 elcr:u8
ich9_ahci 1
    parent_obj:{PCIDevice} ahci:{ahci}
ich9_pm 1
    acpi_regs.pm1.evt.sts:u16 acpi_regs.pm1.evt.en:u16 acpi_regs.pm1.cnt.cnt:u16
    acpi_regs.tmr.timer:timer acpi_regs.tmr.overflow_time:i64 acpi_regs.gpe.sts:u8[16]
    acpi_regs.gpe.en:u8[16] smi_en:u32 smi_sts:u32
ich9_pm/cpuhp 1
    cpuhp_state:{CPU hotplug state}
ich9_pm/memhp 1
    acpi_memory_hotplug:{memory hotplug state}
ich9_pm/pcihp 1
    acpi_pci_hotplug.hotplug_select:u32
    acpi_pci_hotplug.acpi_pcihp_pci_status:{acpi_pcihp_pci_status}[256]
    acpi_pci_hotplug.acpi_index:u32
ich9_pm/pcihp 1
    acpi_pci_hotplug.hotplug_select:u32
    acpi_pci_hotplug.acpi_pcihp_pci_status:{acpi_pcihp_pci_status}[256]
ich9_pm/tco 1
    tco_regs:{tco io device status}
ich9_smb 1
    dev:{PCIDevice} irq_enabled:bool smb:{pmsmb}
ich9_smb 1
    dev:{PCIDevice}
ICH9LPC 1
    d:{PCIDevice} apm:{APM State} pm:{ich9_pm} chip_config:u8[16384] sci_level:u32
ide 3
    parent_obj:{PCIDevice} bmdma:{ide bmdma}[2] bus:{ide_bus}[2] bus[0].ifs:{ide_drive}[2]
    bus[1].ifs:{ide_drive}[2]
ide bmdma 3
    cmd:u8 migration_compat_status:u8 addr:u32 migration_retry_sector_num:i64
    migration_retry_nsector:u32 migration_retry_unit:u8
ide_bus 1
    cmd:u8 unit:u8
ide_drive 3
    mult_sectors:i32 identify_set:i32 identify_data:buffer(512)?identify_set feature:u8 error:u8
    nsector:u32 sector:u8 lcyl:u8 hcyl:u8 hob_feature:u8 hob_sector:u8 hob_nsector:u8 hob_lcyl:u8
    hob_hcyl:u8 select:u8 status:u8 lba48:u8 sense_key:u8 asc:u8 cdrom_changed:u8
ioapic 3
    id:u8 ioregsel:u8 unused:unused(8) irr:u32 ioredtbl:u64[24]
iommu-intel 1
    root:u64 intr_root:u64 iq:u64 intr_size:u32 iq_head:u16 iq_tail:u16 iq_size:u16
    next_frcd_reg:u16 csr:u8[560] iq_last_desc_type:u8 unused:unused(1) dmar_enabled:bool
    qi_enabled:bool intr_enabled:bool intr_eime:bool
kvm-tpr-opt 1
    rom_state:{kvmvapic-guest-rom} state:u32 real_tpr_addr:u32 rom_state_vaddr:u32 vapic_paddr:u32
    rom_state_paddr:u32
kvmclock 1
    clock:u64
kvmclock/clock_is_reliable 1
    clock_is_reliable:bool
kvmvapic-guest-rom 1
    unused:unused(8) vaddr:u32 fixup_start:u32 fixup_end:u32 vapic_vaddr:u32 vapic_size:u32
    vcpu_shift:u32 real_tpr_addr:u32 up:{kvmvapic-handlers} mp:{kvmvapic-handlers}
kvmvapic-handlers 1
    set_tpr:u32 set_tpr_eax:u32 get_tpr:u32[8] get_tpr_stack:u32
mc146818rtc 3
    cmos_data:buffer(128) cmos_index:u8 unused[0]:unused(28) periodic_timer:timer
    next_periodic_time:i64 unused[1]:unused(24) irq_coalesced:u32 period:u32 base_rtc:u64
    last_update:u64 offset:i64 update_timer:timer next_alarm_time:u64
mch 1
    parent_obj:{PCIDevice} unused:unused(1)
memory hotplug state 1
    selector:u32
msix 0
    msix:msix_state
mtrr_var 1
    base:u64 mask:u64
ncq state 1
    sector_count:u32 lba:u64 tag:u8 cmd:u8 slot:u8 used:bool halt:bool
parallel_isa 1
    state.dataw:u8 state.datar:u8 state.status:u8 state.control:u8 state.irq_pending:i32
    state.epp_timeout:i32
PCIBUS 1
    nirq:i32= irq_count:i32[nirq]
PCIDevice 2
    version_id:i32< config:pci_config irq_state:pci_irq_state(16)
pcie-root-port 1
    parent_obj.parent_obj.parent_obj:{PCIDevice}
    parent_obj.parent_obj.parent_obj.exp.aer_log:{PCIE_AER_ERROR_LOG}
    parent_obj.parent_obj.parent_obj.parent_obj:{msix}
PCIE_AER_ERROR_LOG 1
    log_num:u16 log_max:u16=
PCIHost 1
    config_reg:u32
pckbd 3
    kbd:{pckbd*}
pckbd* 3
    write_cmd:u8 status:u8 mode:u8 pending:u8
pckbd/extended_state 0
    migration_flags:u32 obsrc:u32 obdata:u8 cbdata:u8
pcspk 1
    data_on:u8 dummy_refresh_clock:u8
PIIX3 3
    dev:{PCIDevice} pci_irq_levels_vmstate:i32[4]
piix4_pm 3
    parent_obj:{PCIDevice} ar.pm1.evt.sts:u16 ar.pm1.evt.en:u16 ar.pm1.cnt.cnt:u16 apm:{APM State}
    smb:{pmsmb} ar.tmr.timer:timer ar.tmr.overflow_time:i64 ar.gpe:{gpe}
    acpi_pci_hotplug.hotplug_select:u32
    acpi_pci_hotplug.acpi_pcihp_pci_status:{acpi_pcihp_pci_status}[256]
    acpi_pci_hotplug.acpi_index:u32
piix4_pm 3
    parent_obj:{PCIDevice} ar.pm1.evt.sts:u16 ar.pm1.evt.en:u16 ar.pm1.cnt.cnt:u16 apm:{APM State}
    ar.tmr.timer:timer ar.tmr.overflow_time:i64 ar.gpe:{gpe} acpi_pci_hotplug.hotplug_select:u32
    acpi_pci_hotplug.acpi_pcihp_pci_status:{acpi_pcihp_pci_status}[256]
    acpi_pci_hotplug.acpi_index:u32
piix4_pm 3
    parent_obj:{PCIDevice} ar.pm1.evt.sts:u16 ar.pm1.evt.en:u16 ar.pm1.cnt.cnt:u16 apm:{APM State}
    smb:{pmsmb} ar.tmr.timer:timer ar.tmr.overflow_time:i64 ar.gpe:{gpe}
    acpi_pci_hotplug.hotplug_select:u32
    acpi_pci_hotplug.acpi_pcihp_pci_status:{acpi_pcihp_pci_status}[256]
piix4_pm 3
    parent_obj:{PCIDevice} ar.pm1.evt.sts:u16 ar.pm1.evt.en:u16 ar.pm1.cnt.cnt:u16 apm:{APM State}
    ar.tmr.timer:timer ar.tmr.overflow_time:i64 ar.gpe:{gpe} acpi_pci_hotplug.hotplug_select:u32
    acpi_pci_hotplug.acpi_pcihp_pci_status:{acpi_pcihp_pci_status}[256]
piix4_pm/cpuhp 1
    cpuhp_state:{CPU hotplug state}
piix4_pm/memhp 1
    acpi_memory_hotplug:{memory hotplug state}
pit channel 2
    count:i32 latched_count:u16 count_latched:u8 status_latched:u8 status:u8 read_state:u8
    write_state:u8 write_latch:u8 rw_mode:u8 mode:u8 bcd:u8 gate:u8 count_load_time:i64
    next_transition_time:i64
pmsmb 1
    smb_stat:u8 smb_ctl:u8 smb_cmd:u8 smb_addr:u8 smb_data0:u8 smb_data1:u8 smb_index:u32
    smb_data:u8[32] smb_auxctl:u8 smb_blkdata:u8 i2c_enable:bool op_done:bool
    in_i2c_block_read:bool start_transaction_on_status_read:bool
port92 1
    outport:u8
PS2 Common State 3
    write_cmd:i32 queue.rptr:i32 queue.wptr:i32 queue.count:i32 queue.data:buffer(256)
ps2kbd 3
    parent_obj:{PS2 Common State} scan_enabled:i32 translate:i32 scancode_set:i32
ps2mouse 2
    parent_obj:{PS2 Common State} mouse_status:u8 mouse_resolution:u8 mouse_sample_rate:u8
    mouse_wrap:u8 mouse_type:u8 mouse_detect_state:u8 mouse_dx:i32 mouse_dy:i32 mouse_dz:i32
    mouse_buttons:u8
segment 1
    selector:u32 base:u64 limit:u32 flags:u32
serial 3
    state:{serial*}
serial* 3
    divider:u16 rbr:u8 ier:u8 iir:u8 lcr:u8 mcr:u8 lsr:u8 msr:u8 scr:u8 fcr_vmstate:u8
tco io device status 1
    tco.rld:u16 tco.din:u8 tco.dout:u8 tco.sts1:u16 tco.sts2:u16 tco.cnt1:u16 tco.cnt2:u16
    tco.msg1:u8 tco.msg2:u8 tco.wdcnt:u8 tco.tmr:u16 sw_irq_gen:u8 tco_timer:timer expire_time:i64
    timeouts_no:u8
timer 2
    cpu_ticks_offset:i64 unused:unused(8) cpu_clock_offset:i64
uhci 3
    dev:{PCIDevice} num_ports_vmstate:u8= ports:{uhci port}[num_ports_vmstate] cmd:u16 status:u16
    intr:u16 frnum:u16 fl_base_addr:u32 sof_timing:u8 status2:u8 frame_timer:timer expire_time:i64
    pending_int_mask:u32
uhci port 1
    ctrl:u16
usb-kbd 1
    dev:{USBDevice} hid:{HIDKeyboardDevice}
usb-ptr 1
    dev:{USBDevice} hid:{HIDPointerDevice}
USBDevice 1
    addr:u8 state:i32 remote_wakeup:i32 setup_state:i32 setup_len:i32 setup_index:i32
    setup_buf:u8[8]
vga 2
    dev:{PCIDevice} vga:{vga*}
vga* 2
    latch:u32 sr_index:u8 sr:buffer(8) gr_index:u8 gr:buffer(16) ar_index:u8 ar:buffer(21)
    ar_flip_flop:i32 cr_index:u8 cr:buffer(256) msr:u8 fcr:u8 st00:u8 st01:u8 dac_state:u8
    dac_sub_index:u8 dac_read_index:u8 dac_write_index:u8 dac_cache:buffer(3) palette:buffer(768)
    bank_offset:i32 is_vbe_vmstate:u8= vbe_index:u16 vbe_regs:u16[10] vbe_start_addr:u32
    vbe_line_offset:u32 vbe_bank_mask:u32
vmcoreinfo 1
    has_vmcoreinfo:bool vmcoreinfo.host_format:u16 vmcoreinfo.guest_format:u16 vmcoreinfo.size:u32
    vmcoreinfo.paddr:u64
vmgenid 1
    vmgenid_addr_le:u8[8]
vmmouse 0
    queue_size:i32= queue:u32[1024] nb_queue:u16 status:u16 absolute:u8
xmm_reg 1
    _q_ZMMReg[0]:u64 _q_ZMMReg[1]:u64
ymmh_reg 1
    _q_ZMMReg[2]:u64 _q_ZMMReg[3]:u64
zmmh_reg 1
    _q_ZMMReg[4]:u64 _q_ZMMReg[5]:u64 _q_ZMMReg[6]:u64 _q_ZMMReg[7]:u64
"""
