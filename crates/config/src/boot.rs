//! What the guest boots, merged from file and flags.

use std::path::Path;

use serde::Serialize;

use crate::{
    cmdline::CommandLine,
    error::ConfigError,
    file::BootSection,
    flag::Flag,
    flat::{FlatFormat, FlatMode, FlatSection, Module},
    number::Address,
    overrides::Overrides,
    path::FilePath,
    protocol::Protocol,
    value_error::ValueError,
};

/// What the guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "BootSection")]
pub enum Boot {
    /// A Linux kernel.
    Linux(LinuxBoot),
    /// A flat image.
    Flat(FlatBoot),
}

/// A Linux kernel and its boot parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxBoot {
    /// The kernel file.
    pub kernel: FilePath,
    /// The initial RAM disk.
    pub initrd: Option<FilePath>,
    /// The kernel's command line.
    pub cmdline: CommandLine,
    /// How the kernel is entered.
    pub protocol: Protocol,
}

/// A flat image and its initial state. Absent values depend on the image, and are determined when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatBoot {
    /// The image: a raw binary, an ELF executable or a multiboot kernel.
    pub image: FilePath,
    /// The image's format.
    pub format: FlatFormat,
    /// Load address of a raw binary or a position-independent executable.
    pub load_address: Option<Address>,
    /// The processor mode in which the image starts.
    pub mode: Option<FlatMode>,
    /// The address of the first instruction.
    pub entry: Option<Address>,
    /// Initial value of the stack pointer.
    pub stack: Option<Address>,
    /// Whether the monitor sets up the mode's descriptor tables and page tables.
    pub tables: bool,
    /// Address of the image's page tables, if the monitor sets up none.
    pub page_tables: Option<Address>,
    /// The command line of a multiboot kernel, which follows the image's name.
    pub cmdline: Option<CommandLine>,
    /// The modules of a multiboot kernel, in order.
    pub modules: Vec<Module>,
}

impl Boot {
    /// What `section` requests, which has resolved paths and includes the flags.
    pub(crate) fn new(section: BootSection, origin: Option<&Path>) -> Result<Boot, ConfigError> {
        let BootSection { kernel, initrd, cmdline, protocol, flat } = section;
        let Some(flat) = flat else {
            let kernel = kernel.ok_or_else(|| no_kernel(origin))?;
            let (cmdline, protocol) = (cmdline.unwrap_or_default(), protocol.unwrap_or_default());
            return Ok(Boot::Linux(LinuxBoot { kernel, initrd, cmdline, protocol }));
        };
        let FlatSection { image, format, load_address, mode, entry, stack, tables, page_tables, modules } =
            flat;
        let format = format.unwrap_or_default();
        let tables = tables.unwrap_or(true);
        let image = image.ok_or_else(|| {
            let problem = ValueError::Missing("the path of an image here or with --flat");
            ConfigError::field(origin, "boot.flat.image", &problem)
        })?;
        Ok(Boot::Flat(FlatBoot {
            image,
            format,
            load_address,
            mode,
            entry,
            stack,
            tables,
            page_tables,
            cmdline,
            modules,
        }))
    }
}

impl BootSection {
    /// Resolves its paths relative to `directory`.
    #[must_use]
    pub(crate) fn within(self, directory: &Path) -> BootSection {
        let from_there = |path: FilePath| path.within(directory);
        BootSection {
            kernel: self.kernel.map(from_there),
            initrd: self.initrd.map(from_there),
            flat: self.flat.map(|flat| flat.within(directory)),
            ..self
        }
    }

    /// Applies the flags.
    #[must_use]
    pub(crate) fn replaced(self, overrides: &Overrides) -> BootSection {
        let flat = match (overrides.flat.clone(), self.flat) {
            (None, None) => None,
            (image, flat) => {
                let flat = flat.unwrap_or_default();
                Some(FlatSection {
                    image: image.or(flat.image),
                    load_address: overrides.load_address.or(flat.load_address),
                    mode: overrides.mode.or(flat.mode),
                    entry: overrides.entry.or(flat.entry),
                    stack: overrides.stack.or(flat.stack),
                    ..flat
                })
            }
        };
        BootSection {
            kernel: overrides.kernel.clone().or(self.kernel),
            initrd: overrides.initrd.clone().or(self.initrd),
            cmdline: overrides.cmdline.clone().or(self.cmdline),
            protocol: overrides.protocol.or(self.protocol),
            flat,
        }
    }
}

/// For serialization: the section that requests this.
impl From<Boot> for BootSection {
    fn from(boot: Boot) -> BootSection {
        match boot {
            Boot::Linux(LinuxBoot { kernel, initrd, cmdline, protocol }) => BootSection {
                kernel: Some(kernel),
                initrd,
                cmdline: Some(cmdline),
                protocol: Some(protocol),
                flat: None,
            },
            Boot::Flat(flat) => {
                let section = FlatSection {
                    image: Some(flat.image),
                    format: Some(flat.format).filter(|format| *format != FlatFormat::Auto),
                    load_address: flat.load_address,
                    mode: flat.mode,
                    entry: flat.entry,
                    stack: flat.stack,
                    tables: Some(flat.tables),
                    page_tables: flat.page_tables,
                    modules: flat.modules,
                };
                BootSection { cmdline: flat.cmdline, flat: Some(section), ..BootSection::default() }
            }
        }
    }
}

/// The remedy depends on whether there is a file to which the kernel can be added.
fn no_kernel(origin: Option<&Path>) -> ConfigError {
    match origin {
        Some(_) => {
            let remedy =
                "the path of a kernel here or with --kernel, or a flat image with boot.flat or --flat";
            ConfigError::field(origin, "boot.kernel", &ValueError::Missing(remedy))
        }
        None => {
            let remedy = "the path of a kernel, or a flat image with --flat, \
                          or a config file that names one (boot.kernel or boot.flat) with --config";
            ConfigError::Flag { flag: Flag::Kernel, problem: ValueError::Missing(remedy) }
        }
    }
}
