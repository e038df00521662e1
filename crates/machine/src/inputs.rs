//! The files that a machine is made of.

use std::path::Path;

use vmm_boot::{Role, SourceError, SourceFile, SourceProblem};
use vmm_config::{Boot, Config};
use vmm_virtio::KindEntry;

use crate::Error;
use crate::file_use::take_input;
use crate::virtio::{self, OpenDevice};

/// The opened files and devices. A machine that was reset gives them to the next one: what the guest has written is there, and no
/// lock, port or socket's name is free in between.
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
    pub fn open(config: &Config, kinds: &[KindEntry]) -> Result<Self, Error> {
        Self::open_for(config, kinds, false)
    }

    /// Opens what `config` names as far as a [`Plan`](crate::Plan) needs it, and leaves the host as it is: no socket gets its
    /// name. For a plan that is shown and not built.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn look(config: &Config, kinds: &[KindEntry]) -> Result<Self, Error> {
        Self::open_for(config, kinds, true)
    }

    fn open_for(config: &Config, kinds: &[KindEntry], plan_only: bool) -> Result<Self, Error> {
        let files = match &config.boot {
            Boot::Linux(linux) => Files::Linux {
                kernel: open(Role::Kernel, linux.kernel.as_path())?,
                initrd: linux.initrd.as_ref().map(|path| open(Role::Initrd, path.as_path())).transpose()?,
            },
            Boot::Flat(flat) => Files::Flat {
                image: open(Role::Image, flat.image.as_path())?,
                modules: flat
                    .modules
                    .iter()
                    .map(|module| open(Role::Module, module.path.as_path()))
                    .collect::<Result<_, _>>()?,
            },
        };
        let devices = virtio::open(config, kinds, Vec::new(), plan_only)?;
        Ok(Self { files, devices })
    }

    /// Opens those devices of `config` anew that a machine has lost, since their threads panicked.
    pub(crate) fn reopen_lost(&mut self, config: &Config, kinds: &[KindEntry]) -> Result<(), Error> {
        self.devices = virtio::open(config, kinds, std::mem::take(&mut self.devices), false)?;
        Ok(())
    }
}

/// Opens a file, which no output of a machine is written over while it is open.
fn open(role: Role, path: &Path) -> Result<SourceFile, Error> {
    let mut source = SourceFile::open(role, path)?;
    let failed = |error| SourceError { role, path: path.to_owned(), problem: SourceProblem::Open(error) };
    take_input(source.file(), role.into()).map_err(failed)?;
    Ok(source)
}
