//! qcow2 images, by the imago crate.
//!
//! imago would read straight into guest memory, through Rust slices of it; a guest that changes the bytes meanwhile makes
//! that undefined. So the data takes a step through a small buffer of ours.

use std::io;
use std::ops::Range;
use std::path::Path;

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use vmm_virtio::{Buffers, Fault, OpenError};

use super::file::DiskFile;
use super::image::{Image, Source};
use super::request::SECTOR_LEN;
use crate::host_file::{Access, Place};

type Format = FormatAccess<Storage>;

/// Bytes on their way between guest and image: a cluster of what `qemu-img create` makes.
const PIECE_LEN: usize = 64 << 10;

/// The disk.
pub(super) struct Qcow2Image {
    format: Format,
    piece: Box<[u8]>,
    is_writable: bool,
}

impl Qcow2Image {
    /// The image in `file`, and of the files that it names those which `backing` lists, each named by its own place.
    pub(super) fn open(
        file: DiskFile,
        place: Place<'_>,
        access: Access,
        backing: &[Place<'_>],
    ) -> Result<Self, OpenError> {
        let format = open_chain(file, place, access, backing)?;
        let len = format.size();
        if len == 0 || !len.is_multiple_of(SECTOR_LEN) {
            let problem =
                format!("holds a disk of {len} bytes, not of whole sectors of 512: qemu-img resize it");
            return Err(place.wrong(&problem));
        }
        let piece = vec![0; PIECE_LEN].into();
        Ok(Self { format, piece, is_writable: access == Access::ReadWrite })
    }

    /// The disk's size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.format.size()
    }
}

fn open_chain(
    file: DiskFile,
    place: Place<'_>,
    access: Access,
    backing: &[Place<'_>],
) -> Result<Format, OpenError> {
    if !file.is_qcow2() {
        return Err(place.wrong("isn't a qcow2 image, its \"format\" is \"raw\""));
    }
    let broken = |error: io::Error| place.wrong(&format!("can't be opened as qcow2: {error}"));
    let storage = Storage::try_from(file.file).map_err(broken)?;
    // Nothing that the image names is opened by imago.
    let builder = Qcow2::<Storage, Format>::builder(storage).write(access == Access::ReadWrite);
    let mut image =
        builder.backing(None).data_file(None).open(DenyImplicitOpenGate::default()).map_err(broken)?;
    if image.requires_external_data_file() {
        return Err(place.wrong("keeps its data in another file, convert it (qemu-img convert)"));
    }
    match (image.implicit_backing_file(), backing.split_first()) {
        (None, None) => {}
        (None, Some((unused, _))) => {
            let above = place.path.display();
            return Err(unused.wrong(&format!("is listed, but {above} has no backing file: remove it")));
        }
        (Some(name), None) => {
            return Err(place.wrong(&format!("has the backing file {name}, list that under \"backing\"")));
        }
        (Some(name), Some((below, rest))) => {
            let format = image.implicit_backing_format().map(String::as_str);
            let below = open_below(place, name, format, *below, rest)?;
            image.set_backing(Some(below));
        }
    }
    Ok(FormatAccess::new(image))
}

/// The backing file that the image at `above` calls `name`, if it is the one that the config lists.
fn open_below(
    above: Place<'_>,
    name: &str,
    format: Option<&str>,
    place: Place<'_>,
    rest: &[Place<'_>],
) -> Result<Format, OpenError> {
    let named = above.path.parent().unwrap_or(Path::new("")).join(name);
    let same = matches!((named.canonicalize(), place.path.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if !same {
        let above = above.path.display();
        return Err(place.wrong(&format!("is listed, but the backing file of {above} is {name}")));
    }
    let file = DiskFile::open(place, Access::Read)?;
    match format {
        Some("qcow2") => open_chain(file, place, Access::Read, rest),
        Some("raw") => {
            if let Some(unused) = rest.first() {
                let raw = place.path.display();
                return Err(unused.wrong(&format!("is listed, but {raw} is raw: remove it")));
            }
            let storage = Storage::try_from(file.file);
            let raw = storage.and_then(|storage| Raw::open_image(storage, false));
            let raw = raw.map_err(|error| place.wrong(&format!("can't be opened: {error}")))?;
            Ok(FormatAccess::new(raw))
        }
        // Guessing would let whoever once wrote a raw file make a qcow2 image of it, which names any file of the host.
        _ => {
            let format = format.unwrap_or("no format");
            let problem = format!(
                "says {format} of its backing file {name}, which must be raw or qcow2: qemu-img rebase -u -F"
            );
            Err(above.wrong(&problem))
        }
    }
}

impl Source for Qcow2Image {
    fn read(&mut self, offset: u64, into: &Buffers<'_>) -> io::Result<()> {
        let (mut left, mut at) = (*into, offset);
        while !left.is_empty() {
            let piece = &mut self.piece[..left.len().min(PIECE_LEN as u64) as usize];
            self.format.read(&mut *piece, at)?;
            let (here, rest) = left.split_at(piece.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
            here.write(piece).map_err(memory)?;
            (left, at) = (rest, at + piece.len() as u64);
        }
        Ok(())
    }

    fn read_bytes(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.format.read(into, offset)
    }
}

impl Image for Qcow2Image {
    fn write(&mut self, offset: u64, from: &Buffers<'_>) -> io::Result<()> {
        let (mut left, mut at) = (*from, offset);
        while !left.is_empty() {
            let piece = &mut self.piece[..left.len().min(PIECE_LEN as u64) as usize];
            let (here, rest) = left.split_at(piece.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
            here.read(piece).map_err(memory)?;
            self.format.write(&*piece, at)?;
            (left, at) = (rest, at + piece.len() as u64);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.is_writable {
            return Ok(());
        }
        // What imago has in memory first.
        self.format.flush()?;
        self.format.sync()
    }

    fn discard(&mut self, range: Range<u64>) -> io::Result<()> {
        match self.format.discard_to_any(range.start, range.end - range.start) {
            // A hint that this image can't take.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }

    fn write_zeroes(&mut self, range: Range<u64>, unmap: bool) -> io::Result<()> {
        let len = range.end - range.start;
        if unmap {
            match self.format.discard_to_zero(range.start, len) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                other => return other,
            }
        }
        self.format.write_zeroes(range.start, len)
    }
}

fn memory(fault: Fault) -> io::Error {
    io::Error::other(fault)
}
