//! The files that a machine is made of.

use std::path::Path;

use vmm_boot::{Role, SourceError, SourceFile, SourceProblem};
use vmm_config::{Boot, Config};

use crate::file_use::take_input;
use crate::legacy::{self, Found};
use crate::virtio::{self, OpenDevice};
use crate::{Error, Kinds};

/// The opened files and devices. A machine that was reset gives them to the next one: what the guest has written is there, and no
/// lock, port or socket's name is free in between.
#[derive(Debug)]
pub struct Inputs {
    pub(crate) files: Files,
    pub(crate) devices: Vec<OpenDevice>,
    pub(crate) legacy: Vec<Found>,
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
    /// Opens what `config` names. `kinds` are the devices that there are.
    ///
    /// # Errors
    /// A file is missing, empty, unreadable or no regular file; a device is of no kind, or can't be opened.
    pub fn open(config: &Config, kinds: &Kinds<'_>) -> Result<Self, Error> {
        Self::open_for(config, kinds, false)
    }

    /// Opens what `config` names as far as a [`Plan`](crate::Plan) needs it, and leaves the host as it is: no socket gets its
    /// name. For a plan that is shown and not built.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn look(config: &Config, kinds: &Kinds<'_>) -> Result<Self, Error> {
        Self::open_for(config, kinds, true)
    }

    fn open_for(config: &Config, kinds: &Kinds<'_>, plan_only: bool) -> Result<Self, Error> {
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
        Ok(Self { files, devices, legacy: legacy::find(config, kinds)? })
    }

    /// For the machine that follows one of the same config, with what that one had open. Devices that it has lost, since their
    /// threads panicked, are opened anew.
    pub(crate) fn again(
        files: Files,
        kept: Vec<OpenDevice>,
        config: &Config,
        kinds: &Kinds<'_>,
    ) -> Result<Self, Error> {
        let devices = virtio::open(config, kinds, kept, false)?;
        Ok(Self { files, devices, legacy: legacy::find(config, kinds)? })
    }
}

/// Opens a file, which no output of a machine is written over while it is open.
fn open(role: Role, path: &Path) -> Result<SourceFile, Error> {
    let mut source = SourceFile::open(role, path)?;
    let failed = |error| SourceError { role, path: path.to_owned(), problem: SourceProblem::Open(error) };
    take_input(source.file(), role.into()).map_err(failed)?;
    Ok(source)
}
