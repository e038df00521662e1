//! The files that a machine is made of.

use vmm_boot::{Role, SourceFile};
use vmm_config::{Boot, Config};
use vmm_virtio::Entry;

use crate::Error;
use crate::virtio::{self, OpenDevice};

/// The opened files and devices.
#[derive(Debug)]
pub struct Inputs {
    pub(crate) files: Files,
    pub(crate) devices: Vec<OpenDevice>,
}

/// By what the guest is.
#[derive(Debug)]
pub(crate) enum Files {
    /// A kernel that follows a boot protocol.
    Linux { kernel: SourceFile, initrd: Option<SourceFile> },
    /// A flat image.
    Flat { image: SourceFile, modules: Vec<SourceFile> },
}

impl Inputs {
    /// Opens what `config` names. `kinds` are the virtio devices that there are.
    ///
    /// # Errors
    /// A file is missing, empty, unreadable or no regular file; a device is of no kind, or can't be opened.
    pub fn open(config: &Config, kinds: &[Entry]) -> Result<Self, Error> {
        let files = match &config.boot {
            Boot::Linux(linux) => Files::Linux {
                kernel: SourceFile::open(Role::Kernel, linux.kernel.as_path())?,
                initrd: linux
                    .initrd
                    .as_ref()
                    .map(|path| SourceFile::open(Role::Initrd, path.as_path()))
                    .transpose()?,
            },
            Boot::Flat(flat) => Files::Flat {
                image: SourceFile::open(Role::Image, flat.image.as_path())?,
                modules: flat
                    .modules
                    .iter()
                    .map(|module| SourceFile::open(Role::Module, module.path.as_path()))
                    .collect::<Result<_, _>>()?,
            },
        };
        Ok(Self { files, devices: virtio::open(config, kinds)? })
    }
}
