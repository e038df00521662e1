//! The machine that was asked for: the file, the flags and the defaults made one.

use std::path::Path;

use serde::Serialize;

use crate::{
    cmdline::CommandLine,
    count::CpuCount,
    error::{ConfigError, ValueError},
    file::ConfigFile,
    overrides::{Flag, Overrides},
    path::FilePath,
    protocol::Protocol,
    serial::Serial,
    size::MemorySize,
};

/// A complete config: nothing is left to be defaulted, and no path depends on a config file.
///
/// It serializes as a config file that says the same, read from the current directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// What the guest boots.
    pub boot: Boot,
    /// The guest's memory.
    pub memory: Memory,
    /// The virtual processors.
    pub cpus: Cpus,
    /// Where COM1 goes.
    pub serial: Serial,
}

/// What the guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// The kernel file.
    pub kernel: FilePath,
    /// The initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<FilePath>,
    /// The kernel's command line.
    pub cmdline: CommandLine,
    /// How the kernel is entered.
    pub protocol: Protocol,
}

/// The guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// How much.
    pub size: MemorySize,
}

/// The virtual processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpus {
    /// How many.
    pub count: CpuCount,
}

impl ConfigFile {
    /// What the file and the flags ask for together: a flag replaces the file's field, and a default fills what neither
    /// gives. Relative paths of the file start at its directory, those of flags at the current directory.
    ///
    /// # Errors
    /// If neither names a kernel.
    pub fn merge(self, overrides: Overrides) -> Result<Config, ConfigError> {
        let directory = self.origin.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let from_file = |path: FilePath| path.within(directory);

        let Some(kernel) = overrides.kernel.or(self.boot.kernel.map(from_file)) else {
            return Err(no_kernel(self.origin.as_deref()));
        };
        Ok(Config {
            boot: Boot {
                kernel,
                initrd: overrides.initrd.or(self.boot.initrd.map(from_file)),
                cmdline: overrides.cmdline.or(self.boot.cmdline).unwrap_or_default(),
                protocol: overrides.protocol.or(self.boot.protocol).unwrap_or_default(),
            },
            memory: Memory { size: overrides.memory.or(self.memory.size).unwrap_or_default() },
            cpus: Cpus { count: overrides.cpus.or(self.cpus.count).unwrap_or_default() },
            serial: overrides
                .serial
                .or(self.serial.map(|serial| serial.within(directory)))
                .unwrap_or_default(),
        })
    }
}

/// The remedy depends on whether there is a file to add the kernel to.
fn no_kernel(origin: Option<&Path>) -> ConfigError {
    match origin {
        Some(file) => ConfigError::Field {
            file: file.to_owned(),
            at: None,
            field: "boot.kernel".to_owned(),
            message: ValueError::Missing("the path of a kernel here or with --kernel").to_string(),
        },
        None => {
            let remedy = "the path of a kernel, or a config file that names one with --config";
            ConfigError::Flag { flag: Flag::Kernel, problem: ValueError::Missing(remedy) }
        }
    }
}
