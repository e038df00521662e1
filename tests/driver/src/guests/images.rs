//! The images: their sources and load addresses.

use super::width::Width::{self, Bits32, Bits64};

/// A guest.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) recipe: Recipe,
}

/// How an image is built. Sources are relative to `resources/guests`.
#[derive(Debug)]
pub(super) enum Recipe {
    /// An ELF linked at 2 MiB that uses COM1, for `--kernel`.
    Serial { source: &'static str, symbols: Symbols, width: Width },
    /// A flat binary whose entry point is its first byte.
    Flat { source: &'static str, symbols: Symbols, width: Width, load_address: u32 },
    /// `learning-tool/NAME.S` built by gcc with the command in the article that it is from: a reset image.
    LearningTool,
    /// `kvm-hello-world/guest.c` built by gcc and ld with its own Makefile: a binary for address 0. If
    /// `tables`, with page tables at 0x2000.
    HelloWorld { width: Width, tables: bool },
    /// An ELF from C, and from assembly where the loader protocol requires more than C can express.
    Kernel { sources: &'static [&'static str], width: Width, place: Place },
}

/// Where a kernel in C is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At 2 MiB.
    Fixed,
    /// Position-independent: anywhere, relocated by its loader.
    Anywhere,
}

/// Symbols for the assembler, as `NAME=value`.
pub(super) type Symbols = &'static [&'static str];

/// Load address of real-mode programs: after the interrupt table and the BIOS data area, below everything
/// else.
const LOW: u32 = 0x1000;
/// Load address of other programs: the first address above 1 MiB.
const HIGH: u32 = 0x10_0000;

/// All images.
pub(super) const IMAGES: &[Image] = &[
    serial("echo", "echo.S", &[]),
    serial("halt", "halt.S", &[]),
    serial("crash", "crash.S", &[]),
    serial("memory", "memory.S", &[]),
    serial("params", "params.S", &[]),
    // 32-bit: only its PVH entry can be used.
    Image { name: "params32", recipe: Recipe::Serial { source: "params.S", symbols: &[], width: Bits32 } },
    serial("flood", "flood.S", &["LINES=0"]),
    serial("flood-1000", "flood.S", &["LINES=1000"]),
    serial("flood-20000", "flood.S", &["LINES=20000"]),
    // 64 KiB: 65536 bytes.
    serial("hash-64k", "hash.S", &["COUNT=65536", "CHATTY=0"]),
    serial("hash-256k", "hash.S", &["COUNT=262144", "CHATTY=0"]),
    serial("hash-64k-chatty", "hash.S", &["COUNT=65536", "CHATTY=1"]),
    flat("hello-real", "flat/hello-real.S", 0, &[]),
    // Linked at 0, where its segment starts.
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
    // The first, ninth and tenth device on the command line: a pin of each 8259 and one of the IO-APIC alone.
    // And the first device in the ACPI tables.
    flat("virtio-irq-5", "flat/virtio-irq.S", HIGH, &["IRQ=5", "DEVICE=0"]),
    flat("virtio-irq-9", "flat/virtio-irq.S", HIGH, &["IRQ=9", "DEVICE=8"]),
    flat("virtio-irq-16", "flat/virtio-irq.S", HIGH, &["IRQ=16", "DEVICE=9"]),
    flat("disk-read", "flat/disk.S", HIGH, &["KIND=0"]),
    flat("disk-write", "flat/disk.S", HIGH, &["KIND=1"]),
    flat64("pmem", "flat/pmem.S", &[]),
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
    flat("frozen", "flat/frozen.S", HIGH, &[]),
    flat64("nested-svm", "flat/nested-svm.S", &[]),
    kernel("multiboot", &["c/multiboot.S", "c/multiboot.c"], Bits32, Place::Fixed),
    kernel("kernel32", &["c/kernel.c"], Bits32, Place::Fixed),
    kernel("kernel64", &["c/kernel.c"], Bits64, Place::Fixed),
    kernel("rings32", &["c/rings.c"], Bits32, Place::Fixed),
    kernel("rings64", &["c/rings.c"], Bits64, Place::Fixed),
    kernel("vsock-send", &["c/vsock-send.c"], Bits32, Place::Fixed),
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
