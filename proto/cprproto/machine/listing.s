# The guest's program: all that runs in the virtual machine, on every vCPU.
#
# GNU as, x86-64. The bytes are kept in code.py, made by
#     as -o guest.o listing.s && objcopy -O binary -j .text guest.o guest.bin
# and tests/live/test_kvm_guest.py assembles this file again and compares.
#
# It starts in 64-bit mode: the machine has set up paging, descriptors and registers (boot.py).
# Only instructions that KVM's own emulator knows are used, for a KVM without hardware support
# emulates all of this, at 0.6 us an instruction.
#
# Registers that never change meaning:
#     rbx  this vCPU's page            r8, r9   factors of the check
#     rbp  the control page            r10      where RAM is seen in one piece
#     rsp  this vCPU's stack           r11      the local APIC
#     r12  count of rounds             r13, r14 next page to stamp, round of the pattern
#     r15  TSC of the last round       xmm7, DR0, KERNEL_GS_BASE, x87 control word: keys
#
# Offsets in the two pages (layout.py, docs/guest.md).

        .set G_SALT, 0x20
        .set G_DOORBELL, 0x30
        .set G_KICK_MASK, 0x38
        .set G_LINE_MASK, 0x40
        .set G_TIMER_COUNT, 0x48
        .set G_PIT_DIVISOR, 0x50
        .set G_VGA, 0x58
        .set G_VGA_MASK, 0x60
        .set G_IDLE, 0x68
        .set G_GAP_COMMAND, 0x70
        .set G_REDIRECTIONS, 0x100

        .set C_NUMBER, 0x00
        .set C_ROUNDS, 0x08
        .set C_GAP, 0x10
        .set C_GAP_ROUND, 0x18
        .set C_GAP_DONE, 0x20
        .set C_STAMPS, 0x28
        .set C_FIRST, 0x30
        .set C_END, 0x38
        .set C_KICKS_BEGUN, 0x40
        .set C_KICKS_DONE, 0x48
        .set C_LINE, 0x50
        .set C_COLUMN, 0x58
        .set C_CHARS, 0x60
        .set C_LINES, 0x68
        .set C_CHECKS, 0x70
        .set C_BROKEN, 0x78
        .set C_KEY_LOW, 0x80
        .set C_KEY_HIGH, 0x88
        .set C_KEY_DEBUG, 0x90
        .set C_KEY_GS, 0x98
        .set C_FAULT, 0xa0
        .set C_FAULTS, 0xa8
        .set C_SCRATCH, 0xb0
        .set C_IRQ_TIMER, 0x100
        .set C_IRQ_PIT, 0x108
        .set C_IRQ_SPURIOUS, 0x110
        .set C_IRQ_LEVEL, 0x118
        .set C_IRQ_DEVICE, 0x120

        .set SERIAL_PORT, 0x3f8
        .set FAULT_PORT, 0xf4
        .set LINE_CHARS, 17
        .set FCW, 0x27f
        .set KERNEL_GS_BASE, 0xc0000102

        .code64
        .text

# -- start: once on each vCPU ------------------------------------------------------------

start:
        cmpq $0, C_NUMBER(%rbx)
        jne local_apic

# The first vCPU sets up what is there once: both PICs masked, for the IOAPIC has the lines.
        mov $0xff, %eax
        out %al, $0x21
        out %al, $0xa1

# IOAPIC: entry n is in registers 0x10 + 2n (low half) and 0x11 + 2n (high half).
        mov $0xfec00000, %edi
        xor %ecx, %ecx
1:      mov G_REDIRECTIONS(%rbp,%rcx,8), %rax
        lea 0x11(%rcx,%rcx), %edx
        mov %edx, (%rdi)
        mov %rax, %rsi
        shr $32, %rsi
        mov %esi, 0x10(%rdi)
        dec %edx
        mov %edx, (%rdi)
        mov %eax, 0x10(%rdi)
        inc %ecx
        cmp $24, %ecx
        jb 1b

# PIT, channel 0: rate generator, low byte and then high byte of the divisor; 0 means off.
        mov G_PIT_DIVISOR(%rbp), %rcx
        test %rcx, %rcx
        je local_apic
        mov $0x34, %eax
        out %al, $0x43
        mov %ecx, %eax
        out %al, $0x40
        shr $8, %eax
        out %al, $0x40

# Each vCPU's local APIC: enabled, spurious vector 0xff, a periodic timer with no divisor.
local_apic:
        movl $0x1ff, 0xf0(%r11)
        movl $0, 0x80(%r11)
        movl $0xb, 0x3e0(%r11)
        movl $0x20030, 0x320(%r11)
        mov G_TIMER_COUNT(%rbp), %rax
        mov %eax, 0x380(%r11)

# A key in an MSR; the other keys were put in their registers by the machine.
        mov $KERNEL_GS_BASE, %ecx
        mov C_KEY_GS(%rbx), %rax
        mov %rax, %rdx
        shr $32, %rdx
        wrmsr

        rdtsc
        shl $32, %rdx
        or %rdx, %rax
        mov %rax, %r15
        sti

# -- one round ---------------------------------------------------------------------------

round:
# How long since the last round? The largest is kept, with the round that saw it.
        rdtsc
        shl $32, %rdx
        or %rdx, %rax
        mov %rax, %rcx
        sub %r15, %rcx
        mov %rax, %r15
        cmp C_GAP(%rbx), %rcx
        jbe 1f
        mov %rcx, C_GAP(%rbx)
        mov %r12, C_GAP_ROUND(%rbx)
# A new command number means: forget it.
1:      mov G_GAP_COMMAND(%rbp), %rax
        cmp C_GAP_DONE(%rbx), %rax
        je 2f
        movq $0, C_GAP(%rbx)
        mov %rax, C_GAP_DONE(%rbx)

# The count, in memory and in r12: they differ if one of the two was lost.
2:      inc %r12
        incq C_ROUNDS(%rbx)
        cmp C_ROUNDS(%rbx), %r12
        je stamp
        orq $0x20, C_BROKEN(%rbx)
        mov C_ROUNDS(%rbx), %r12

# Stamp the next page of this vCPU's share: number, round, check, and the check at its end.
stamp:
        mov %r13, %rdi
        shl $12, %rdi
        add %r10, %rdi
        mov %r13, %rax
        imul %r8, %rax
        mov %r14, %rcx
        imul %r9, %rcx
        xor %rcx, %rax
        xor G_SALT(%rbp), %rax
        mov %r13, (%rdi)
        mov %r14, 8(%rdi)
        mov %rax, 16(%rdi)
        mov %rax, 4088(%rdi)
# One word says how far it is, so that it is never half told.
        incq C_STAMPS(%rbx)
        inc %r13
        cmp C_END(%rbx), %r13
        jb kick
        mov C_FIRST(%rbx), %r13
        inc %r14

# Every so many rounds: ring the doorbell.
kick:
        mov %r12, %rax
        and G_KICK_MASK(%rbp), %rax
        jne serial
        incq C_KICKS_BEGUN(%rbx)
        mov G_DOORBELL(%rbp), %rdi
        mov C_NUMBER(%rbx), %rax
        mov %eax, (%rdi)
        incq C_KICKS_DONE(%rbx)

# The first vCPU prints lines "0000000000000001", a character a round.
serial:
        cmpq $0, C_NUMBER(%rbx)
        jne check
        mov C_COLUMN(%rbx), %rax
        cmp $LINE_CHARS, %rax
        jae next_line
        mov $10, %esi
        cmp $LINE_CHARS - 1, %rax
        je put
        mov $60, %ecx
        shl $2, %eax
        sub %eax, %ecx
        mov C_LINE(%rbx), %rsi
        shr %cl, %rsi
        and $15, %esi
        add $'0', %esi
        cmp $'9', %esi
        jbe put
        add $'a' - '0' - 10, %esi
put:    mov $SERIAL_PORT, %edx
        mov %esi, %eax
        out %al, %dx
        incq C_CHARS(%rbx)
        incq C_COLUMN(%rbx)
        cmpq $LINE_CHARS, C_COLUMN(%rbx)
        jb check
# A whole line is out: note it, on the screen too.
        incq C_LINES(%rbx)
        mov C_LINE(%rbx), %rax
        mov %rax, %rcx
        and G_VGA_MASK(%rbp), %rcx
        mov G_VGA(%rbp), %rdi
        mov %rax, (%rdi,%rcx,8)
        jmp check
next_line:
        mov %r12, %rax
        and G_LINE_MASK(%rbp), %rax
        jne check
        incq C_LINE(%rbx)
        movq $0, C_COLUMN(%rbx)

# Every 64 rounds: are the registers that nobody changes as they were?
check:
        test $63, %r12d
        jne rest
        movdqu %xmm7, C_SCRATCH(%rbx)
        mov C_SCRATCH(%rbx), %rax
        cmp C_KEY_LOW(%rbx), %rax
        je 1f
        orq $1, C_BROKEN(%rbx)
1:      mov C_SCRATCH + 8(%rbx), %rax
        cmp C_KEY_HIGH(%rbx), %rax
        je 2f
        orq $2, C_BROKEN(%rbx)
2:      mov %dr0, %rax
        cmp C_KEY_DEBUG(%rbx), %rax
        je 3f
        orq $4, C_BROKEN(%rbx)
3:      mov $KERNEL_GS_BASE, %ecx
        rdmsr
        mov %eax, %eax
        shl $32, %rdx
        or %rdx, %rax
        cmp C_KEY_GS(%rbx), %rax
        je 4f
        orq $8, C_BROKEN(%rbx)
4:      fnstcw C_SCRATCH(%rbx)
        cmpw $FCW, C_SCRATCH(%rbx)
        je 5f
        orq $16, C_BROKEN(%rbx)
5:      incq C_CHECKS(%rbx)

# Asked to be idle, a vCPU sleeps until its next interrupt.
rest:
        cmpq $0, G_IDLE(%rbp)
        je round
        hlt
        jmp round

# -- interrupts: count, tell the local APIC, go on -----------------------------------------

        .macro counter name, offset
        .balign 16
irq_\name:
        incq \offset(%rbx)
        movl $0, 0xb0(%r11)
        iretq
        .endm

        counter timer, C_IRQ_TIMER
        counter pit, C_IRQ_PIT
        counter level, C_IRQ_LEVEL

# A spurious interrupt gets no end-of-interrupt.
        .balign 16
irq_spurious:
        incq C_IRQ_SPURIOUS(%rbx)
        iretq

# Devices 0 to 6, 32 bytes each.
        .set device, 0
        .rept 7
        .balign 32
        .if device == 0
irq_device:
        .endif
        incq C_IRQ_DEVICE + 8 * device(%rbx)
        movl $0, 0xb0(%r11)
        iretq
        .set device, device + 1
        .endr

# Exceptions 0 to 31, 16 bytes each: note which, tell the machine, stop.
        .balign 16
faults:
        .set vector, 0
        .rept 32
        .balign 16
        mov $vector, %eax
        jmp fault
        .set vector, vector + 1
        .endr
        .balign 16
fault:
        mov %rax, C_FAULT(%rbx)
        incq C_FAULTS(%rbx)
        out %al, $FAULT_PORT
1:      hlt
        jmp 1b
