//! The images: what each is built from, and for which place in guest memory.

use super::width::Width::{self, Bits32, Bits64};

/// One guest, ready to run.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) recipe: Recipe,
}

/// How an image comes about. Sources are relative to `resources/guests`.
#[derive(Debug)]
pub(super) enum Recipe {
    /// An ELF for 2 MiB that drives COM1, for `--kernel`.
    Serial { source: &'static str, symbols: Symbols, width: Width },
    /// A flat binary that is entered at its first byte.
    Flat { source: &'static str, symbols: Symbols, width: Width, load_address: u32 },
    /// What gcc makes of `learning-tool/NAME.S` by the command of the article that it is from: a reset image.
    LearningTool,
    /// What gcc and ld make of `kvm-hello-world/guest.c` by its own Makefile: a binary for 0. If `tables`, with page tables at
    /// 0x2000.
    HelloWorld { width: Width, tables: bool },
    /// An ELF from C, and assembler where a loader needs more than C can say.
    Kernel { sources: &'static [&'static str], width: Width, place: Place },
}

/// Where a kernel in C runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At 2 MiB.
    Fixed,
    /// Wherever its loader puts it, and relocates it for.
    Anywhere,
}

/// What the assembler is told, as `NAME=value`.
pub(super) type Symbols = &'static [&'static str];

/// Where real-mode programs go: behind the interrupt table and the BIOS's data, below everything else.
const LOW: u32 = 0x1000;
/// Where others go: the first address above the first MiB.
const HIGH: u32 = 0x10_0000;

/// All of them.
pub(super) const IMAGES: &[Image] = &[
    serial("echo", "echo.S", &[]),
    serial("halt", "halt.S", &[]),
    serial("crash", "crash.S", &[]),
    serial("memory", "memory.S", &[]),
    serial("params", "params.S", &[]),
    // Of 32 bits: its PVH entry is the only one that can be used.
    Image { name: "params32", recipe: Recipe::Serial { source: "params.S", symbols: &[], width: Bits32 } },
    serial("flood", "flood.S", &["LINES=0"]),
    serial("flood-1000", "flood.S", &["LINES=1000"]),
    serial("flood-20000", "flood.S", &["LINES=20000"]),
    // 64 KiB: 65536 bytes.
    serial("hash-64k", "hash.S", &["COUNT=65536", "CHATTY=0"]),
    serial("hash-256k", "hash.S", &["COUNT=262144", "CHATTY=0"]),
    serial("hash-64k-chatty", "hash.S", &["COUNT=65536", "CHATTY=1"]),
    flat("hello-real", "flat/hello-real.S", 0, &[]),
    // Linked at 0, because that's where their segment begins.
    flat("reset-loop", "flat/reset-loop.S", 0, &[]),
    flat("reset-hello", "flat/reset-hello.S", 0, &[]),
    flat("reset-string", "flat/reset-string.S", 0, &[]),
    Image { name: "kernel1", recipe: Recipe::LearningTool },
    Image { name: "kernel2", recipe: Recipe::LearningTool },
    Image { name: "kernel3", recipe: Recipe::LearningTool },
    Image { name: "guest32", recipe: Recipe::HelloWorld { width: Bits32, tables: false } },
    Image { name: "guest64", recipe: Recipe::HelloWorld { width: Bits64, tables: false } },
    Image { name: "guest64-tables", recipe: Recipe::HelloWorld { width: Bits64, tables: true } },
    flat("answer-real", "flat/answer.S", LOW, &["MODE=16"]),
    flat("answer-protected", "flat/answer.S", HIGH, &["MODE=32"]),
    flat("answer-paged", "flat/answer.S", HIGH, &["MODE=33"]),
    flat64("answer-long", "flat/answer.S", &["MODE=64"]),
    flat("echo-irq", "flat/echo-irq.S", LOW, &[]),
    flat("thermometer", "flat/thermometer.S", LOW, &[]),
    flat("ping", "flat/ping.S", HIGH, &[]),
    // The first device on the command line, the ninth and the tenth: a line of each 8259 and one of the IO-APIC alone. And
    // the first device in the ACPI tables.
    flat("virtio-irq-5", "flat/virtio-irq.S", HIGH, &["IRQ=5", "DEVICE=0"]),
    flat("virtio-irq-9", "flat/virtio-irq.S", HIGH, &["IRQ=9", "DEVICE=8"]),
    flat("virtio-irq-16", "flat/virtio-irq.S", HIGH, &["IRQ=16", "DEVICE=9"]),
    flat("disk-read", "flat/disk-read.S", HIGH, &[]),
    flat("virtio-irq-16-acpi", "flat/virtio-irq.S", HIGH, &["IRQ=16", "DEVICE=0"]),
    flat("roll-call", "flat/roll-call.S", HIGH, &[]),
    flat("fault-triple-16", "flat/fault.S", LOW, &["MODE=16", "KIND=0"]),
    flat("fault-triple-32", "flat/fault.S", HIGH, &["MODE=32", "KIND=0"]),
    flat64("fault-triple-64", "flat/fault.S", &["MODE=64", "KIND=0"]),
    flat("fault-jump-16", "flat/fault.S", LOW, &["MODE=16", "KIND=1"]),
    flat("fault-jump-32", "flat/fault.S", HIGH, &["MODE=32", "KIND=1"]),
    flat64("fault-jump-64", "flat/fault.S", &["MODE=64", "KIND=1"]),
    flat("fault-ud-16", "flat/fault.S", LOW, &["MODE=16", "KIND=2"]),
    flat("fault-ud-32", "flat/fault.S", HIGH, &["MODE=32", "KIND=2"]),
    flat64("fault-ud-64", "flat/fault.S", &["MODE=64", "KIND=2"]),
    flat("exits-port", "flat/exits-port.S", LOW, &[]),
    flat("exits-mmio", "flat/exits-mmio.S", HIGH, &[]),
    flat("exits-string", "flat/exits-string.S", LOW, &[]),
    flat64("nested-svm", "flat/nested-svm.S", &[]),
    kernel("multiboot", &["c/multiboot.S", "c/multiboot.c"], Bits32, Place::Fixed),
    kernel("kernel32", &["c/kernel.c"], Bits32, Place::Fixed),
    kernel("kernel64", &["c/kernel.c"], Bits64, Place::Fixed),
    kernel("rings32", &["c/rings.c"], Bits32, Place::Fixed),
    kernel("rings64", &["c/rings.c"], Bits64, Place::Fixed),
    kernel("kernel64-pie", &["c/kernel.c"], Bits64, Place::Anywhere),
];

const fn serial(name: &'static str, source: &'static str, symbols: Symbols) -> Image {
    Image { name, recipe: Recipe::Serial { source, symbols, width: Bits64 } }
}

const fn flat(name: &'static str, source: &'static str, load_address: u32, symbols: Symbols) -> Image {
    Image { name, recipe: Recipe::Flat { source, symbols, width: Bits32, load_address } }
}

const fn flat64(name: &'static str, source: &'static str, symbols: Symbols) -> Image {
    Image { name, recipe: Recipe::Flat { source, symbols, width: Bits64, load_address: HIGH } }
}

const fn kernel(name: &'static str, sources: &'static [&'static str], width: Width, place: Place) -> Image {
    Image { name, recipe: Recipe::Kernel { sources, width, place } }
}

impl Image {
    pub(super) fn file_name(&self) -> String {
        match self.recipe {
            Recipe::Flat { .. } | Recipe::LearningTool | Recipe::HelloWorld { .. } => {
                format!("{}.bin", self.name)
            }
            Recipe::Serial { .. } | Recipe::Kernel { .. } => format!("{}.elf", self.name),
        }
    }
}
