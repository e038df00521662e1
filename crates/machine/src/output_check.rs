//! Checks that a machine's output files can be written, before any of them is changed.

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

/// Checks a machine's output files without creating, changing or locking any, so that a start opens none unless all pass. Use it
/// after the [`Inputs`] are open, and in the order in which the start opens the files, so that both refuse the same one. Pipes
/// aren't opened, so a missing reader isn't detected.
#[derive(Debug, Default)]
pub struct OutputCheck(Vec<(Place, Use)>);

impl OutputCheck {
    /// Checks a path for [`MetricsFile::create`](crate::MetricsFile::create).
    ///
    /// # Errors
    /// Those of `MetricsFile::create`.
    pub fn metrics(&mut self, path: &Path) -> io::Result<()> {
        refuse_other_than_file(path)?;
        self.add(path, Writing::Replaces)
    }

    /// Checks a path for [`Messages::to_log`](crate::Messages::to_log).
    ///
    /// # Errors
    /// Those of `Messages::to_log`.
    pub fn log(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, Writing::Appends)
    }

    /// Checks a path for a control socket.
    ///
    /// # Errors
    /// It can't be listened at, or is in use.
    pub fn control(&mut self, path: &Path) -> io::Result<()> {
        self.socket(path)
    }

    /// Checks the files and sockets of the consoles of `config`, whose `inputs` are open.
    ///
    /// # Errors
    /// A file can't be written or a socket can't be created, or one is in use.
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

    /// Marks standard streams that are files as in use, so that nothing replaces them. Call it after the other checks. Any
    /// number of monitors may share a stream.
    ///
    /// # Errors
    /// Standard output or error is a file that must not be written, such as a disk in use.
    pub fn note_streams(&self) -> io::Result<StreamsInUse> {
        let input = StandardStream::Input.file()?;
        let mut locks: Vec<File> = input.and_then(|(file, _)| note_stdin(&file)).into_iter().collect();
        for stream in StandardStream::OUTPUTS {
            let refused = |error: io::Error| match error.raw_os_error() {
                // An error of the host, not about the stream's file.
                Some(_) => error,
                None => io::Error::other(format!("{}: {error}", stream.name())),
            };
            let Some((file, place)) = output_stream(stream).map_err(refused)? else { continue };
            // An output that names the same file, such as /dev/stdout, takes its own lock.
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

/// The locks of [`OutputCheck::note_streams`].
#[derive(Debug)]
#[must_use = "the files are protected for as long as this lives"]
pub struct StreamsInUse {
    _locks: Vec<File>,
}

/// Whether standard error must not be written, because it is redirected to one of `inputs`, which the machine is about to open,
/// to the file of standard input, to a block device or its backing file, or to a file in use as a disk or an input.
pub fn is_stderr_protected(inputs: impl IntoIterator<Item = PathBuf>) -> bool {
    match output_stream(StandardStream::Error) {
        Ok(None) => false,
        Ok(Some((file, place))) => {
            let is_there = |path: PathBuf| fs::metadata(path).is_ok_and(|found| Place::of(&found) == place);
            refuse_use(&file, Writing::Appends).is_err() || inputs.into_iter().any(is_there)
        }
        // An error of the host, such as a lack of descriptors, is no reason: it must be reported.
        Err(error) => error.raw_os_error().is_none(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StandardStream {
    Input,
    Output,
    Error,
}

impl StandardStream {
    const OUTPUTS: [Self; 2] = [Self::Output, Self::Error];

    fn name(self) -> &'static str {
        match self {
            Self::Input => "standard input",
            Self::Output => "standard output",
            Self::Error => "standard error",
        }
    }

    /// Its file, if it is open for reading (input) or writing (outputs).
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

    /// Its file, if that is a regular one.
    fn file(self) -> io::Result<Option<(File, Place)>> {
        let file = self.open()?.filter(|(_, found)| found.is_file());
        Ok(file.map(|(file, found)| (file, Place::of(&found))))
    }
}

/// The file of standard output or error, if it is a regular one. An error if it must not be written; locks aren't checked.
fn output_stream(stream: StandardStream) -> io::Result<Option<(File, Place)>> {
    let Some((file, found)) = stream.open()? else { return Ok(None) };
    refuse_device(&found)?;
    let place = Place::of(&found);
    if found.is_file() && StandardStream::Input.file()?.is_some_and(|(_, input)| input == place) {
        return Err(io::Error::other("it is standard input too; name another file"));
    }
    Ok(found.is_file().then_some((file, place)))
}

/// Refuses the file of a standard stream: an output would overwrite the stream's input, or two writers would have different
/// offsets. A name such as /dev/stdout is accepted, because the user means the stream.
fn refuse_stream(path: &Path, writing: Writing) -> io::Result<()> {
    let Ok(place) = fs::metadata(path).map(|found| Place::of(&found)) else { return Ok(()) };
    let is_same = |other: &(File, Place)| other.1 == place;
    if StandardStream::Input.file()?.as_ref().is_some_and(is_same) {
        return Err(io::Error::other("it is standard input; name another file"));
    }
    let is_meant = ["/dev", "/proc"].iter().any(|directory| path.starts_with(directory));
    for stream in StandardStream::OUTPUTS {
        let Some((file, _)) = stream.file()?.filter(is_same) else { continue };
        let remedy = match writing {
            Writing::Replaces if is_meant => continue,
            Writing::Replaces => "name another file",
            // Two writers that append don't overwrite each other.
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
