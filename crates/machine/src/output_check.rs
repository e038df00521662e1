//! Whether the files that a machine writes can be written, before one of them is.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vmm_config::Config;
use vmm_hostio::NamedSocket;
use vmm_virtio::HostEnd;

use crate::file_use::{Use, Writing, note_stdin, refuse_use, share_log};
use crate::metrics::refuse_other_than_file;
use crate::output_file::{Place, look, look_at_name, refuse_device};
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

    /// Takes note that the standard streams are in use, where they are files: nothing replaces them meanwhile. To be called when
    /// all others are known. Any number of monitors may have the same.
    ///
    /// # Errors
    /// Standard output or error is in use as something that isn't written.
    pub fn note_streams(&self) -> io::Result<StreamsInUse> {
        let input = Stream::Input.file()?;
        let mut locks: Vec<File> = input.and_then(|(file, _)| note_stdin(&file)).into_iter().collect();
        for stream in Stream::OUTPUTS {
            let refused = |error: io::Error| match error.raw_os_error() {
                // The host's, not of what the stream is.
                Some(_) => error,
                None => io::Error::other(format!("{}: {error}", stream.name())),
            };
            let Some((file, place)) = output_stream(stream).map_err(refused)? else { continue };
            // One that goes by its name too, such as /dev/stdout, has a lock of its own.
            if self.0.iter().all(|(other, _)| *other != place) {
                locks.extend(share_log(&file).map_err(refused)?);
            }
        }
        Ok(StreamsInUse { _locks: locks })
    }

    fn socket(&mut self, path: &Path) -> io::Result<()> {
        NamedSocket::look(path)?;
        self.add_place(look_at_name(path)?, Use::Socket)
    }

    fn add(&mut self, path: &Path, writing: Writing) -> io::Result<()> {
        refuse_stream(path, writing)?;
        let Some(place) = look(path, writing)? else { return Ok(()) };
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

/// Whether nothing may be written to standard error: it leads into one of `inputs`, which the machine is about to open, into
/// standard input, a block device or the file below one, or into what anybody uses as a disk or as an input.
pub fn is_stderr_protected(inputs: impl IntoIterator<Item = PathBuf>) -> bool {
    match output_stream(Stream::Error) {
        Ok(None) => false,
        Ok(Some((file, place))) => {
            let is_there = |path: PathBuf| fs::metadata(path).is_ok_and(|found| Place::of(&found) == place);
            refuse_use(&file, Writing::Appends).is_err() || inputs.into_iter().any(is_there)
        }
        // Not if the host lacks descriptors to look: that is to be said.
        Err(error) => error.raw_os_error().is_none(),
    }
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Input,
    Output,
    Error,
}

impl Stream {
    const OUTPUTS: [Self; 2] = [Self::Output, Self::Error];

    fn name(self) -> &'static str {
        match self {
            Self::Input => "standard input",
            Self::Output => "standard output",
            Self::Error => "standard error",
        }
    }

    /// It, and what it leads to, if it is open to be read or written as it is meant to be.
    fn open(self) -> io::Result<Option<(File, Metadata)>> {
        let (descriptor, unfit) = match self {
            Self::Input => (io::stdin().as_fd().try_clone_to_owned()?, OFlag::O_WRONLY),
            Self::Output => (io::stdout().as_fd().try_clone_to_owned()?, OFlag::O_RDONLY),
            Self::Error => (io::stderr().as_fd().try_clone_to_owned()?, OFlag::O_RDONLY),
        };
        let file = File::from(descriptor);
        let (found, is_fit) = (file.metadata()?, flags(&file)? & OFlag::O_ACCMODE != unfit);
        Ok(is_fit.then_some((file, found)))
    }

    /// It, if it is a regular file, and where that is.
    fn file(self) -> io::Result<Option<(File, Place)>> {
        let file = self.open()?.filter(|(_, found)| found.is_file());
        Ok(file.map(|(file, found)| (file, Place::of(&found))))
    }
}

/// Standard output or error, if it is a file, and one that may be written as far as that shows without its locks.
fn output_stream(stream: Stream) -> io::Result<Option<(File, Place)>> {
    let Some((file, found)) = stream.open()? else { return Ok(None) };
    refuse_device(&found)?;
    let place = Place::of(&found);
    if found.is_file() && Stream::Input.file()?.is_some_and(|(_, input)| input == place) {
        return Err(io::Error::other("it is standard input too; name another file"));
    }
    Ok(found.is_file().then_some((file, place)))
}

/// Refuses a file that is a standard stream as well: it would be written over what that stream reads, or by two writers at different
/// offsets. To replace the file of standard output or error is allowed by a name such as /dev/stdout.
fn refuse_stream(path: &Path, writing: Writing) -> io::Result<()> {
    let Ok(place) = fs::metadata(path).map(|found| Place::of(&found)) else { return Ok(()) };
    let is_same = |other: &(File, Place)| other.1 == place;
    if Stream::Input.file()?.as_ref().is_some_and(is_same) {
        return Err(io::Error::other("it is standard input; name another file"));
    }
    let is_meant = ["/dev", "/proc"].iter().any(|directory| path.starts_with(directory));
    for stream in Stream::OUTPUTS {
        let Some((file, _)) = stream.file()?.filter(is_same) else { continue };
        let remedy = match writing {
            Writing::Replaces if is_meant => continue,
            Writing::Replaces => "name another file",
            // Each of two that append leaves what the other one has written.
            Writing::Appends if flags(&file)?.contains(OFlag::O_APPEND) => continue,
            Writing::Appends => "name another file, or redirect with >>",
        };
        return Err(io::Error::other(format!("it is {} too; {remedy}", stream.name())));
    }
    Ok(())
}

fn flags(file: &File) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?))
}
