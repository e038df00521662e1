//! Whether the files that a machine writes can be written, before one of them is.

use std::io;
use std::path::Path;

use vmm_config::Config;
use vmm_virtio::HostEnd;

use crate::file_use::{Use, Writing};
use crate::metrics::refuse_other_than_file;
use crate::output_file::{Place, look};
use crate::{Error, Inputs, OpenError, console, virtio};

/// Checks the files that a machine writes without making, changing or locking one: first all of them, and only then a start opens
/// any. To be used when the [`Inputs`] are open, and in the order in which the start opens the files, so that both refuse the same
/// one. Pipes aren't opened either, so whether they have readers isn't known.
#[derive(Debug, Default)]
pub struct OutputCheck(Vec<(Place, Use)>);

impl OutputCheck {
    /// Whether [`MetricsFile::create`](crate::MetricsFile::create) would take this path.
    ///
    /// # Errors
    /// It wouldn't.
    pub fn metrics(&mut self, path: &Path) -> io::Result<()> {
        refuse_other_than_file(path)?;
        self.add(path, Writing::Replaces)
    }

    /// Whether [`Messages::to_log`](crate::Messages::to_log) would.
    ///
    /// # Errors
    /// It wouldn't.
    pub fn log(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, Writing::Appends)
    }

    /// Whether the files that `config` names for consoles can be written, beside its `inputs`.
    ///
    /// # Errors
    /// One can't be, or is in use.
    pub fn consoles(&mut self, config: &Config, inputs: &Inputs) -> Result<(), Error> {
        for (field, end) in console::ends(&config.serial, virtio::consoles(&inputs.devices)) {
            if let HostEnd::File(path) = &end {
                self.add(path, Writing::Replaces).map_err(|source| OpenError::new(&field, &end, source))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, writing: Writing) -> io::Result<()> {
        let Some(place) = look(path, writing)? else { return Ok(()) };
        if let Some((_, found)) = self.0.iter().find(|(other, _)| *other == place) {
            return Err(found.refusal());
        }
        let planned = match writing {
            Writing::Replaces => Use::Output,
            Writing::Appends => Use::Log,
        };
        self.0.push((place, planned));
        Ok(())
    }
}
