"""A C program with a few state descriptions in it, built by gcc in every way there is.

The structures are those of QEMU's own header, from the source package of a version
(it is only included, and in the cache), or PATCHED below, which no QEMU ever had.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import qemus

PRELUDE = """
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define VMSTATE_IF_H /* the one header that vmstate.h asks for brings half of QEMU */
#define coroutine_mixed_fn
#define coroutine_fn
typedef struct QEMUFile QEMUFile;
typedef struct JSONWriter JSONWriter;
typedef struct QJSON QJSON;
typedef struct Error Error;
typedef struct VMStateIf VMStateIf;
typedef struct DeviceState DeviceState;
typedef struct VMStateDescription VMStateDescription;
typedef void SaveStateHandler(QEMUFile *file, void *opaque);
typedef int LoadStateHandler(QEMUFile *file, void *opaque, int version);
"""

#: Structures with members that only a vendor has, and in another order.
PATCHED = """
typedef struct VMStateInfo { const char *name; void *get, *put; } VMStateInfo;
typedef enum { VMS_SINGLE = 1, VMS_ARRAY = 4, VMS_STRUCT = 8, VMS_VENDOR = 0x40000,
               VMS_END = 0x80000 } VMStateFlags;
typedef struct VMStateField {
    unsigned long cookie;
    const char *name;
    size_t size, offset, start;
    int num;
    unsigned char tag[12];
    struct { unsigned offset; unsigned char width; } num_place, size_place;
    const struct VMStateInfo *info;
    const struct VMStateDescription *vmsd;
    VMStateFlags flags;
    int version_id, struct_version_id;
    bool (*field_exists)(void *opaque, int version);
} VMStateField;
struct VMStateDescription {
    unsigned long magic[3];
    const char *name;
    int version_id, minimum_version_id;
    const VMStateField *fields;
    bool early_setup;
    int unmigratable;
    int (*post_load)(void *opaque, int version);
    const VMStateDescription *const *subsections;
    void (*vendor_hook)(void *opaque);
    bool (*needed)(void *opaque);
};
#define VMSTATE_END_OF_LIST() { .flags = VMS_END }
"""

PROGRAM = """
typedef struct Part { uint32_t y; } Part;
typedef struct Timer { uint32_t plain; uint32_t fixed[3]; Part parts[2]; uint32_t maybe; } Timer;

const VMStateInfo vmstate_info_uint32 = { .name = "uint32" };

static int timer_post_load(void *opaque, int version) { return opaque == NULL && version; }
static bool timer_needed(void *opaque) { return opaque != NULL; }
static bool maybe_there(void *opaque, int version) { return opaque != NULL && version > 1; }

#define PLAIN(of, member, more, how)                                             \\
    { .name = #member, .offset = offsetof(of, member), .size = sizeof(uint32_t), \\
      .info = &vmstate_info_uint32, .flags = how, more }

const VMStateDescription vmstate_part = {
    .name = "part", .version_id = 1, .minimum_version_id = 1,
    .fields = (VMStateField[]) { PLAIN(Part, y, .num = 0, VMS_SINGLE), VMSTATE_END_OF_LIST() },
};
static const VMStateDescription vmstate_late = {
    .name = "timer/late", .version_id = 3, .minimum_version_id = 2, .needed = timer_needed,
    .fields = (VMStateField[]) { PLAIN(Part, y, .num = 0, VMS_SINGLE), VMSTATE_END_OF_LIST() },
};
const VMStateDescription vmstate_timer = {
    .name = "timer", .version_id = 2, .minimum_version_id = 1, .post_load = timer_post_load,
    .fields = (VMStateField[]) {
        PLAIN(Timer, plain, .version_id = 2, VMS_SINGLE),
        PLAIN(Timer, fixed, .num = 3, VMS_ARRAY),
        { .name = "parts", .offset = offsetof(Timer, parts), .size = sizeof(Part), .num = 2,
          .vmsd = &vmstate_part, .flags = VMS_STRUCT | VMS_ARRAY },
        PLAIN(Timer, maybe, .field_exists = maybe_there, VMS_SINGLE),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription *[]) { &vmstate_late, NULL },
};
static const VMStateDescription vmstate_stuck = { .name = "stuck", .unmigratable = 1 };
/* Looks alike, and is none. */
static const struct { const char *name; int kind, flags; const char *help; void *more[12]; }
    options[] = { { "size", 1, 4, "bytes" }, { "mode", 2, 0, "octal" }, { 0 } };

const void *volatile seen;
int main(void)
{
    seen = &vmstate_timer;
    seen = &vmstate_stuck;
    seen = options;
    return 0;
}
"""


def source(version: str) -> str:
    """The program with the structures of a QEMU version, or "patched"."""
    structures = PATCHED if version == "patched" else '#include "migration/vmstate.h"\n'
    return PRELUDE + structures + PROGRAM


def build(folder: Path, version: str, *flags: str, name: str = "program") -> Path:
    """Compile and link it in a folder."""
    code, made = folder / f"{name}.c", folder / name
    code.write_text(source(version))
    line = ["gcc", "-w", "-Wl,--build-id=sha1", *flags, "-o", made, code]
    if version != "patched":
        line[2:2] = ["-I", qemus.source_package(version) / "include"]
    run(line)
    return made


def run(line: Sequence[str | Path]) -> None:
    done = subprocess.run(line, capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
