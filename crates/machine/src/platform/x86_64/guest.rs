//! The guest's initial memory and registers: a kernel with its boot protocol, or a flat image.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use vmm_arch::boot;
use vmm_arch::e820::{self, E820Kind};
use vmm_arch::flat::Mode;
use vmm_boot::{
    Alias, BootLayout, BootPlan, BootSpec, FlatImage, FlatPlan, FlatSpec, InitrdFile, KernelFile, ModuleSpec,
    Placement, SourceFile, TableSource,
};
use vmm_config::{Boot, CommandLine, FlatBoot, FlatFormat, FlatMode, LinuxBoot, Protocol};
use vmm_kvm::Vm;
use vmm_kvm::kvm_bindings::{kvm_regs, kvm_sregs};
use vmm_memory::GuestRam;

use crate::Error;
use crate::inputs::{Files, Inputs};
use crate::ram::Ram;
use crate::virtio::KernelHints;

/// What is loaded where, and the registers of the first instruction.
#[derive(Clone, Debug)]
pub enum GuestPlan {
    /// A kernel that is booted by a boot protocol.
    Linux(BootPlan),
    /// A flat image.
    Flat(FlatPlan),
    /// Nothing is loaded: memory and registers are those of a snapshot. A range of RAM may be mapped a second time.
    Restored(Option<Alias>),
}

impl GuestPlan {
    /// Reads the files' headers and plans where they are loaded.
    pub(crate) fn new(
        config: &Boot,
        inputs: &mut Inputs,
        ram: &Ram,
        hints: &KernelHints,
    ) -> Result<Self, Error> {
        match (config, &mut inputs.files) {
            (Boot::Linux(linux), Files::Linux { kernel, initrd }) => {
                plan_linux(linux, kernel, initrd.as_ref(), ram, hints)
            }
            (Boot::Flat(flat), Files::Flat { image, modules }) => plan_flat(flat, image, modules, ram),
            _ => Err(Error::OtherInputs),
        }
    }

    /// Loads everything into `ram`.
    pub(crate) fn load(&self, ram: &GuestRam, inputs: &mut Inputs) -> Result<(), Error> {
        match (self, &mut inputs.files) {
            (Self::Restored(_), _) => Ok(()),
            (Self::Linux(plan), Files::Linux { kernel, initrd }) => {
                plan.load(ram.memory(), kernel, initrd.as_mut()).map_err(Error::Load)
            }
            (Self::Flat(plan), Files::Flat { image, modules }) => {
                let modules = modules.iter_mut().map(SourceFile::file);
                plan.load(ram.memory(), image.file(), modules).map_err(Error::LoadFlat)
            }
            _ => Err(Error::OtherInputs),
        }
    }

    /// Registers the memory slots with KVM. After loading, so that KVM needn't track the mappings' changes meanwhile.
    pub(crate) fn add_memory(&self, vm: &Vm, ram: &GuestRam) -> Result<(), Error> {
        vm.add_memory(ram)?;
        if let Some(alias) = self.alias() {
            vm.add_read_only_alias(ram, alias.source, alias.gpa)?;
        }
        Ok(())
    }

    /// Whether the guest looks for firmware tables. A flat image is written for this machine and has no ACPI interpreter.
    pub(crate) fn reads_firmware_tables(boot: &Boot) -> bool {
        matches!(boot, Boot::Linux(_))
    }

    /// Everything that is loaded into memory.
    pub(crate) fn placements(&self) -> Vec<Placement> {
        match self {
            Self::Linux(plan) => plan.placements(),
            Self::Flat(plan) => plan.placements(),
            Self::Restored(_) => Vec::new(),
        }
    }

    /// The ranges that a kernel's e820 map marks as reserved.
    pub(crate) fn reserved(&self) -> Vec<Range<u64>> {
        let Self::Linux(plan) = self else { return Vec::new() };
        let reserved = plan.e820().iter().filter(|entry| entry.kind == E820Kind::Reserved);
        reserved.map(|entry| entry.addr..entry.addr + entry.len).collect()
    }

    /// A range of RAM that is mapped a second time.
    pub(crate) fn alias(&self) -> Option<Alias> {
        match self {
            Self::Linux(_) => None,
            Self::Flat(plan) => plan.alias(),
            Self::Restored(alias) => alias.clone(),
        }
    }

    /// Changes the first vCPU's registers from KVM's initial values to those of the first instruction.
    pub(crate) fn apply_to(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        match self {
            Self::Linux(plan) => {
                *regs = plan.entry().regs();
                plan.entry().apply_to(sregs);
            }
            Self::Flat(plan) => plan.start().apply_to(regs, sregs),
            Self::Restored(_) => {}
        }
    }
}

impl fmt::Display for GuestPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(plan) => plan.fmt(f),
            Self::Flat(plan) => plan.fmt(f),
            Self::Restored(_) => writeln!(f, "boot: from a snapshot"),
        }
    }
}

fn plan_linux(
    config: &LinuxBoot,
    kernel: &mut KernelFile,
    initrd: Option<&InitrdFile>,
    ram: &Ram,
    hints: &KernelHints,
) -> Result<GuestPlan, Error> {
    let reserved = hints.reserved.clone();
    let e820 = reserved.map(|reserved| e820::with_reserved(e820::map(ram), reserved));
    let plan = BootPlan::new(&BootSpec {
        protocol: protocol(config.protocol),
        initrd_len: initrd.map(InitrdFile::len),
        cmdline: &format!("{}{}", hints.cmdline, config.cmdline.as_str()),
        layout: BootLayout { e820: e820.as_deref(), ..BootLayout::default() },
        ..BootSpec::new(&kernel.inspect()?, ram)
    })?;
    Ok(GuestPlan::Linux(plan))
}

fn plan_flat(
    config: &FlatBoot,
    image: &mut SourceFile,
    modules: &[SourceFile],
    ram: &Ram,
) -> Result<GuestPlan, Error> {
    let modules: Vec<_> = modules
        .iter()
        .zip(&config.modules)
        .map(|(file, module)| ModuleSpec { len: file.len(), cmdline: module.cmdline.as_str() })
        .collect();
    let found = match config.format {
        FlatFormat::Auto => image.inspect_flat()?,
        FlatFormat::Raw => FlatImage::Raw { len: image.len() },
    };
    let cmdline = config.cmdline.as_ref().map(CommandLine::as_str);
    let cmdline = match found {
        FlatImage::Multiboot(_) => Some(multiboot_cmdline(image.path(), cmdline.unwrap_or_default())),
        _ => cmdline.map(str::to_owned),
    };
    let plan = FlatPlan::new(&FlatSpec {
        image: &found,
        load_address: config.load_address.map(|address| address.get()),
        mode: config.mode.map(mode),
        entry: config.entry.map(|address| address.get()),
        stack: config.stack.map(|address| address.get()),
        tables: match config.tables {
            true => TableSource::Plan,
            false => TableSource::Image { page_tables: config.page_tables.map(|address| address.get()) },
        },
        cmdline: cmdline.as_deref(),
        modules: &modules,
        ram,
    })?;
    plan.check_contents(image.file())?;
    Ok(GuestPlan::Flat(plan))
}

/// A multiboot kernel's command line: the image's name, without the host's directories, then the config's. GRUB legacy and QEMU
/// put a name there, and kernels such as Xen skip the first word.
fn multiboot_cmdline(image: &Path, cmdline: &str) -> String {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    // One word, of printable ASCII.
    let name: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    if cmdline.is_empty() { name } else { format!("{name} {cmdline}") }
}

/// Translates the config's protocol; `None` if the kernel file determines it.
fn protocol(requested: Protocol) -> Option<boot::Protocol> {
    match requested {
        Protocol::Auto => None,
        Protocol::Linux64 => Some(boot::Protocol::Linux64),
        Protocol::Linux32 => Some(boot::Protocol::Linux32),
        Protocol::Pvh => Some(boot::Protocol::Pvh),
    }
}

/// Translates the config's mode.
fn mode(requested: FlatMode) -> Mode {
    match requested {
        FlatMode::Real => Mode::Real,
        FlatMode::Reset => Mode::Reset,
        FlatMode::Protected => Mode::Protected,
        FlatMode::Paged => Mode::Paged,
        FlatMode::Long => Mode::Long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiboot_cmdline_begins_with_the_images_name() {
        assert_eq!(
            multiboot_cmdline(Path::new("/srv/guests/xen"), "com1=115200 console=com1"),
            "xen com1=115200 console=com1"
        );
        assert_eq!(multiboot_cmdline(Path::new("kernel.elf"), ""), "kernel.elf");
    }

    /// The options start after the first space.
    #[test]
    fn multiboot_cmdline_has_a_name_of_one_word() {
        assert_eq!(multiboot_cmdline(Path::new("my kernel\u{e9}"), "one two"), "my_kernel_ one two");
    }
}
