//! A machine's input files and devices.

use std::path::Path;

use vmm_boot::{InitrdFile, KernelFile, Role, SourceError, SourceFile, SourceProblem};
use vmm_config::{Boot, Config, OnReboot};
use vmm_hostio::InputLock;
use vmm_sandbox::Needs;

use crate::file_use::take_input;
use crate::legacy::{self, LegacyCandidate};
use crate::virtio::{self, OpenDevice};
use crate::{Error, Kinds};

/// The open files and devices of a machine. After a reset the next machine gets them: what the guest has written is kept, and no
/// lock, port or socket name is released in between.
#[derive(Debug)]
pub struct Inputs {
    pub(crate) files: Files,
    pub(crate) devices: Vec<OpenDevice>,
    pub(crate) legacy: Vec<LegacyCandidate>,
}

/// The files to boot from.
#[derive(Debug)]
pub(crate) enum Files {
    Linux {
        kernel: KernelFile,
        initrd: Option<InitrdFile>,
    },
    Flat {
        image: SourceFile,
        modules: Vec<SourceFile>,
    },
    /// A restored machine that isn't booted again has none.
    None,
}

impl Inputs {
    /// Opens the files and devices of `config`. `kinds` are the available devices.
    ///
    /// # Errors
    /// A file is missing, empty, unreadable or not a regular file; a device has an unknown type or can't be opened.
    pub fn open(config: &Config, kinds: &Kinds<'_>) -> Result<Self, Error> {
        Self::open_for(config, kinds, (true, false))
    }

    /// Opens only what a [`Plan`](crate::Plan) needs, without side effects on the host such as new sockets. For a plan that is
    /// only shown.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn look(config: &Config, kinds: &Kinds<'_>) -> Result<Self, Error> {
        Self::open_for(config, kinds, (true, true))
    }

    /// Opens what a restored machine needs: the files to boot from only if the config has it restart after a reset.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_to_restore(config: &Config, kinds: &Kinds<'_>) -> Result<Self, Error> {
        Self::open_for(config, kinds, (config.on_reboot == OnReboot::Restart, false))
    }

    fn open_for(config: &Config, kinds: &Kinds<'_>, (boots, plan_only): (bool, bool)) -> Result<Self, Error> {
        let files = match &config.boot {
            _ if !boots => Files::None,
            Boot::Linux(linux) => {
                let mut kernel = KernelFile::open(linux.kernel.as_path())?;
                take(kernel.source())?;
                let initrd = linux.initrd.as_ref().map(|path| InitrdFile::open(path.as_path()));
                let mut initrd = initrd.transpose()?;
                initrd.as_mut().map_or(Ok(()), |initrd| take(initrd.source()))?;
                Files::Linux { kernel, initrd }
            }
            Boot::Flat(flat) => Files::Flat {
                image: open(Role::Image, flat.image.as_path())?,
                modules: flat
                    .modules
                    .iter()
                    .map(|module| open(Role::Module, module.path.as_path()))
                    .collect::<Result<_, _>>()?,
            },
        };
        let devices = virtio::open(config, kinds, plan_only)?;
        Ok(Self { files, devices, legacy: legacy::candidates(config, kinds)? })
    }

    /// What the next machine has from the previous one, without its legacy devices.
    pub(crate) fn kept(files: Files, devices: Vec<OpenDevice>) -> Self {
        Self { files, devices, legacy: Vec::new() }
    }

    /// Completes what was [kept](Self::kept).
    ///
    /// # Errors
    /// The thread of a device has panicked.
    pub(crate) fn complete(&mut self, config: &Config, kinds: &Kinds<'_>) -> Result<(), Error> {
        virtio::check_kept(config, kinds, &self.devices)?;
        self.legacy = legacy::candidates(config, kinds)?;
        Ok(())
    }
}

impl Inputs {
    /// What the devices need of the host after they were opened.
    pub(crate) fn needs(&self) -> Needs {
        let mut all = Needs::default();
        self.devices.iter().for_each(|device| all.add(device.device.needs()));
        all
    }
}

fn open(role: Role, path: &Path) -> Result<SourceFile, Error> {
    let mut source = SourceFile::open(role, path)?;
    take(&mut source)?;
    Ok(source)
}

/// Marks the file as in use, so that no output overwrites it.
fn take(source: &mut SourceFile) -> Result<(), Error> {
    let role = source.role();
    take_input(source.file(), lock_of(role)).map_err(|error| {
        let path = source.path().to_owned();
        SourceError { role, path, problem: SourceProblem::Open(error) }.into()
    })
}

fn lock_of(role: Role) -> InputLock {
    match role {
        Role::Kernel => InputLock::Kernel,
        Role::Initrd => InputLock::Initrd,
        Role::Image => InputLock::Image,
        Role::Module => InputLock::Module,
    }
}
