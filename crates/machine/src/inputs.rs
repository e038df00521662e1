//! The files that a machine is made of.

use vmm_boot::{Role, SourceFile};
use vmm_config::Config;

use crate::Error;

/// The opened kernel and initrd.
#[derive(Debug)]
pub struct Inputs {
    pub(crate) kernel: SourceFile,
    pub(crate) initrd: Option<SourceFile>,
}

impl Inputs {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// A file is missing, empty, unreadable or no regular file.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let initrd = config.boot.initrd.as_ref();
        Ok(Self {
            kernel: SourceFile::open(Role::Kernel, config.boot.kernel.as_path())?,
            initrd: initrd.map(|path| SourceFile::open(Role::Initrd, path.as_path())).transpose()?,
        })
    }
}
