//! Whether the files that a machine writes can be written, before one of them is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vmm_config::Config;
use vmm_hostio::NamedSocket;
use vmm_virtio::HostEnd;

use crate::file_use::{Use, Writing, share_log};
use crate::metrics::refuse_other_than_file;
use crate::output_file::{Place, look, look_at_name};
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

    /// Whether the files that `config` names for consoles can be written, beside its `inputs`, and its sockets be made.
    ///
    /// # Errors
    /// One can't be, or is in use.
    pub fn consoles(&mut self, config: &Config, inputs: &Inputs) -> Result<(), Error> {
        for (field, end) in console::ends(&config.serial, virtio::consoles(&inputs.devices)) {
            let checked = match &end {
                HostEnd::File(path) => self.add(path, Writing::Replaces),
                HostEnd::Socket(path) => self.socket(path),
                HostEnd::Stdio | HostEnd::Pty | HostEnd::None => Ok(()),
            };
            checked.map_err(|source| OpenError::new(&field, &end, source))?;
        }
        Ok(())
    }

    /// Takes note that standard output and error are in use, where they are files: nothing replaces them meanwhile. To be called
    /// when all others are known. Any number of monitors may have the same.
    ///
    /// # Errors
    /// One of them is in use as something that isn't written.
    pub fn note_streams(&self) -> io::Result<StreamsInUse> {
        let mut locks = Vec::new();
        for (name, stream) in
            [("standard output", io::stdout().as_fd()), ("standard error", io::stderr().as_fd())]
        {
            let Some((file, place)) = as_file(stream)? else { continue };
            // One that goes by its name too, such as /dev/stdout, has a lock of its own.
            if self.0.iter().all(|(other, _)| *other != place) {
                let noted = share_log(&file);
                locks.extend(noted.map_err(|error| io::Error::other(format!("{name}: {error}")))?);
            }
        }
        Ok(StreamsInUse { _locks: locks })
    }

    fn socket(&mut self, path: &Path) -> io::Result<()> {
        NamedSocket::look(path)?;
        self.add_place(look_at_name(path)?, Use::Socket)
    }

    fn add(&mut self, path: &Path, writing: Writing) -> io::Result<()> {
        let Some(place) = look(path, writing)? else { return Ok(()) };
        if writing == Writing::Replaces {
            refuse_stream(path, &place)?;
        }
        self.add_place(
            place,
            match writing {
                Writing::Replaces => Use::Output,
                Writing::Appends => Use::Log,
            },
        )
    }

    fn add_place(&mut self, place: Place, planned: Use) -> io::Result<()> {
        if let Some((_, found)) = self.0.iter().find(|(other, _)| *other == place) {
            return Err(found.refusal());
        }
        self.0.push((place, planned));
        Ok(())
    }
}

/// What [`OutputCheck::note_streams`] found.
#[derive(Debug)]
#[must_use = "the files are protected for as long as this lives"]
pub struct StreamsInUse {
    _locks: Vec<File>,
}

/// Refuses a file that is standard output or error as well, and would be written twice: unless it goes by a name for that.
fn refuse_stream(path: &Path, place: &Place) -> io::Result<()> {
    let is_meant = ["/dev", "/proc"].iter().any(|directory| path.starts_with(directory));
    for (name, stream) in
        [("standard output", io::stdout().as_fd()), ("standard error", io::stderr().as_fd())]
    {
        if !is_meant && as_file(stream)?.is_some_and(|(_, other)| other == *place) {
            return Err(io::Error::other(format!("it is {name} too; name another file")));
        }
    }
    Ok(())
}

/// A stream that is a file which is written, and where that is.
fn as_file(stream: BorrowedFd<'_>) -> io::Result<Option<(File, Place)>> {
    let file = File::from(stream.try_clone_to_owned()?);
    let found = file.metadata()?;
    let is_written = is_written(&file)?;
    Ok((found.is_file() && is_written).then(|| (file, Place::of(&found))))
}

fn is_written(file: &File) -> io::Result<bool> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    Ok(flags & OFlag::O_ACCMODE != OFlag::O_RDONLY)
}
