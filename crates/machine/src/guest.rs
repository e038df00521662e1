//! What the machine starts with: a kernel by its protocol, or a flat image.

use std::fmt;

use vmm_arch::boot;
use vmm_arch::flat::Mode;
use vmm_boot::{BootLayout, BootPlan, BootSpec, FlatPlan, FlatSpec, ModuleSpec, SourceFile, TableSource};
use vmm_config::{Boot, FlatBoot, FlatMode, LinuxBoot, Protocol};
use vmm_kvm::kvm_bindings::{kvm_regs, kvm_sregs};
use vmm_memory::GuestRam;

use crate::Error;
use crate::inputs::{Files, Inputs};
use crate::plan::Ram;

/// Where everything goes that the guest starts with, and how its first instruction runs.
#[derive(Clone, Debug)]
pub enum GuestPlan {
    /// A kernel that follows a boot protocol.
    Linux(BootPlan),
    /// A flat image.
    Flat(FlatPlan),
}

impl GuestPlan {
    /// Reads the headers of the files and plans around them. `cmdline` stands in front of what a Linux kernel is told.
    pub(crate) fn new(config: &Boot, inputs: &mut Inputs, ram: &Ram, cmdline: &str) -> Result<Self, Error> {
        match (config, &mut inputs.files) {
            (Boot::Linux(linux), Files::Linux { kernel, initrd }) => {
                plan_linux(linux, kernel, initrd.as_ref(), ram, cmdline)
            }
            (Boot::Flat(flat), Files::Flat { image, modules }) => plan_flat(flat, image, modules, ram),
            _ => Err(Error::OtherInputs),
        }
    }

    /// Writes it all into `ram`.
    pub(crate) fn load(&self, ram: &GuestRam, inputs: &mut Inputs) -> Result<(), Error> {
        match (self, &mut inputs.files) {
            (Self::Linux(plan), Files::Linux { kernel, initrd }) => {
                let initrd = initrd.as_mut().map(SourceFile::file);
                plan.load(ram.memory(), kernel.file(), initrd).map_err(Error::Load)
            }
            (Self::Flat(plan), Files::Flat { image, modules }) => {
                let modules = modules.iter_mut().map(SourceFile::file);
                plan.load(ram.memory(), image.file(), modules).map_err(Error::LoadFlat)
            }
            _ => Err(Error::OtherInputs),
        }
    }

    /// Changes the registers that KVM gave the first vCPU into those of the first instruction.
    pub(crate) fn apply_to(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        match self {
            Self::Linux(plan) => {
                *regs = plan.entry().regs();
                plan.entry().apply_to(sregs);
            }
            Self::Flat(plan) => plan.start().apply_to(regs, sregs),
        }
    }
}

impl fmt::Display for GuestPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(plan) => plan.fmt(f),
            Self::Flat(plan) => plan.fmt(f),
        }
    }
}

fn plan_linux(
    config: &LinuxBoot,
    kernel: &mut SourceFile,
    initrd: Option<&SourceFile>,
    ram: &Ram,
    in_front: &str,
) -> Result<GuestPlan, Error> {
    let plan = BootPlan::new(&BootSpec {
        image: &kernel.inspect()?,
        protocol: protocol(config.protocol),
        initrd_len: initrd.map(SourceFile::len),
        cmdline: &format!("{in_front}{}", config.cmdline.as_str()),
        ram,
        layout: BootLayout::default(),
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
    let plan = FlatPlan::new(&FlatSpec {
        image: &image.inspect_flat()?,
        load_address: config.load_address.map(|address| address.get()),
        mode: config.mode.map(mode),
        entry: config.entry.map(|address| address.get()),
        stack: config.stack.map(|address| address.get()),
        tables: match config.tables {
            true => TableSource::Plan,
            false => TableSource::Image { page_tables: config.page_tables.map(|address| address.get()) },
        },
        cmdline: config.cmdline.as_ref().map(|cmdline| cmdline.as_str()),
        modules: &modules,
        ram,
    })?;
    plan.check_contents(image.file())?;
    Ok(GuestPlan::Flat(plan))
}

/// The config's word for a protocol, as the platform's; `None` leaves it to the kernel file.
fn protocol(asked: Protocol) -> Option<boot::Protocol> {
    match asked {
        Protocol::Auto => None,
        Protocol::Linux64 => Some(boot::Protocol::Linux64),
        Protocol::Linux32 => Some(boot::Protocol::Linux32),
        Protocol::Pvh => Some(boot::Protocol::Pvh),
    }
}

/// The config's word for a mode, as the platform's.
fn mode(asked: FlatMode) -> Mode {
    match asked {
        FlatMode::Real => Mode::Real,
        FlatMode::Reset => Mode::Reset,
        FlatMode::Protected => Mode::Protected,
        FlatMode::Paged => Mode::Paged,
        FlatMode::Long => Mode::Long,
    }
}
