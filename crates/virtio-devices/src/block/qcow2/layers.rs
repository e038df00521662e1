//! An image and its backing files, and how imago accesses them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use imago::FormatAccess;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use vmm_virtio::DeviceError;

use super::entries::Problem;
use super::failure::ImageFailure;
use super::header::{AUTOCLEAR, Backing, Compression, HEADER_LEN_MAX, Header, INCOMPATIBLE};
use super::refusal::Refusal;
use super::storage::View;
use super::tables::Tables;
use super::zstd::ZstdQcow2;
use crate::block::file::DiskFile;
use crate::block::format;
use crate::block::image::BACKING_MAX;
use crate::block::stamp::StampedFile;
use crate::host_file::read_range;
use crate::image_format::{self, ImageFormat};
use crate::loop_device::LayersBelow;
use crate::place::{Access, Place};
use crate::shell;

/// imago's view of an image and its backing files.
pub(super) type Format = FormatAccess<View>;

/// Length of the first read: the default cluster size of `qemu-img create`.
const FIRST_READ_LEN: usize = 64 << 10;

/// The files, locked for the lifetime of this.
pub(super) struct Layers {
    /// From the image downwards.
    files: Vec<Layer>,
    /// Of the image.
    failure: ImageFailure,
}

struct Layer {
    file: File,
    path: PathBuf,
    /// Its length in bytes when it was opened.
    len: u64,
    _below: LayersBelow,
    /// `None` if the bytes are the disk's.
    header: Option<Header>,
}

impl Layers {
    /// Opens the image in `file` at `place`, and its backing files if they match those listed in `backing`.
    pub(super) fn open(
        file: DiskFile,
        place: Place<'_>,
        access: Access,
        backing: &[Place<'_>],
    ) -> Result<Self, DeviceError> {
        if let Some(extra) = backing.get(BACKING_MAX) {
            let problem = format!(
                "exceeds the maximum of {BACKING_MAX} backing files: merge them, qemu-img convert -O qcow2 {} NEW.qcow2",
                shell::path(place.path)
            );
            return Err(extra.wrong(&problem));
        }
        let header = read_header(&file, place, None)?;
        if header.is_corrupt && access == Access::ReadWrite {
            let path = shell::path(place.path);
            return Err(place.wrong(&format!(
                "is marked corrupt: set \"read_only\" to read what is left, or repair it, qemu-img check -r all {path}"
            )));
        }
        let mut below = header.backing.clone();
        let mut layers = vec![Layer::new(file, Some(header), place)?];
        let (mut above, mut rest) = (place, backing);
        while let Some(named) = below {
            let Some((listed, others)) = rest.split_first() else {
                let name = shell::word(&named.name);
                return Err(above.wrong(&format!("has the backing file {name}, list that under \"backing\"")));
            };
            let layer = open_below(above, &named, *listed)?;
            below = layer.header.as_ref().and_then(|header| header.backing.clone());
            layers.push(layer);
            (above, rest) = (*listed, others);
        }
        if let Some(unused) = rest.first() {
            let is_raw = layers.last().is_some_and(|layer| layer.header.is_none());
            let why = if is_raw { "is raw" } else { "has no backing file" };
            let above = above.path.display();
            return Err(unused.wrong(&format!("is listed, but {above} {why}: remove it")));
        }
        Ok(Self { files: layers, failure: ImageFailure::default() })
    }

    /// Builds imago's view, with the image writable for [`Access::ReadWrite`]. Nothing is written yet.
    pub(super) fn build(&self, access: Access) -> io::Result<Format> {
        let (image, below) = self.files.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut format = None;
        for layer in below.iter().rev() {
            format = Some(layer.build(format, None)?);
        }
        image.build(format, (access == Access::ReadWrite).then(|| self.failure.clone()))
    }

    /// Cluster size of the image in bytes.
    pub(super) fn cluster_len(&self) -> usize {
        self.image().map_or(0, |header| 1 << header.cluster_bits)
    }

    /// How many bytes of the disk an L2 table maps: it is a cluster of 8-byte entries.
    pub(super) fn l2_span(&self) -> usize {
        self.cluster_len() / 8 * self.cluster_len()
    }

    /// Checks that data can't overwrite the image's tables, and returns their locations.
    pub(super) fn check_tables(&self, place: Place<'_>) -> Result<Tables, DeviceError> {
        let Some((layer, header)) = self.files.first().zip(self.image()) else {
            return Err(place.wrong("isn't a qcow2 image"));
        };
        Tables::check(&layer.file, header).map_err(|problem| match problem {
            Problem::Image(refusal) => place.wrong(&refusal.problem(place.path)),
            Problem::Host(error) => place.host("can't be read", &error),
        })
    }

    /// The image's own file.
    pub(super) fn file(&self) -> Option<&File> {
        Some(&self.files.first()?.file)
    }

    /// All files, from the image downwards.
    pub(super) fn stamped(&self) -> Vec<StampedFile<'_>> {
        self.files.iter().map(|Layer { file, path, .. }| StampedFile { file, path }).collect()
    }

    /// The name of the image's backing file, if it is relative to the image's directory.
    pub(super) fn relative_backing(&self) -> Option<&[u8]> {
        let backing = self.files.first()?.header.as_ref()?.backing.as_ref()?;
        (!backing.name.starts_with(b"/")).then_some(&backing.name)
    }

    /// Whether a change of the image has been lost.
    pub(super) fn failure(&self) -> &ImageFailure {
        &self.failure
    }

    /// Whether the image has consistent dirty bitmaps.
    pub(super) fn has_bitmaps(&self) -> bool {
        self.image().is_some_and(Header::has_bitmaps)
    }

    /// Clears the autoclear features, because a write would make them inconsistent and none is maintained
    /// here.
    pub(super) fn clear_features(&self) -> io::Result<()> {
        let Some(layer) = self.files.first() else { return Ok(()) };
        if self.image().is_none_or(|header| header.autoclear == 0) {
            return Ok(());
        }
        layer.file.write_all_at(&[0; AUTOCLEAR.end - AUTOCLEAR.start], AUTOCLEAR.start as u64)?;
        // Before the data that the features describe is changed.
        self.failure.note(layer.file.sync_data())
    }

    /// Whether [`mark`](Self::mark) has an effect.
    pub(super) fn can_be_marked(&self) -> bool {
        self.image().is_some_and(|header| header.marked(true).is_some())
    }

    /// Sets the image's dirty bit, so that it isn't used without a check if the monitor dies, or clears it
    /// when the tables are consistent on stable storage.
    pub(super) fn mark(&self, is_written: bool) -> io::Result<()> {
        let (Some(layer), Some(header)) = (self.files.first(), self.image()) else { return Ok(()) };
        let Some(features) = header.marked(is_written) else { return Ok(()) };
        layer.file.write_all_at(&features.to_be_bytes(), INCOMPATIBLE.start as u64)?;
        // The bit must be set before the changes that it covers. If it stays set too long, that costs a
        // repair but no data.
        if is_written { self.failure.note(layer.file.sync_data()) } else { Ok(()) }
    }

    fn image(&self) -> Option<&Header> {
        self.files.first()?.header.as_ref()
    }
}

impl Layer {
    fn new(file: DiskFile, header: Option<Header>, place: Place<'_>) -> Result<Self, DeviceError> {
        let len = file.len().map_err(|error| place.host("has no length", &error))?;
        Ok(Self { file: file.file, path: file.path, len, _below: file.below, header })
    }

    /// Writable if it has a place for its failure.
    fn build(&self, below: Option<Format>, failure: Option<ImageFailure>) -> io::Result<Format> {
        let file = self.file.try_clone()?;
        let Some(header) = &self.header else {
            return Ok(FormatAccess::new(Raw::open_image(View::raw(file, self.len)?, false)?));
        };
        let is_writable = failure.is_some();
        let view = View::qcow2((file, self.len), header, failure)?;
        let mut image = Qcow2::<View, Format>::open_image(view, is_writable)?;
        image.set_data_file(None);
        image.set_backing(below);
        Ok(match header.compression {
            Compression::Deflate => FormatAccess::new(image),
            Compression::Zstd => FormatAccess::new(ZstdQcow2::new(image, self.file.try_clone()?, header)),
        })
    }
}

/// Opens the backing file that the image at `above` names, if it matches the one listed in the config.
fn open_below(above: Place<'_>, named: &Backing, place: Place<'_>) -> Result<Layer, DeviceError> {
    let path = above.path.parent().unwrap_or(Path::new("")).join(OsStr::from_bytes(&named.name));
    let same = matches!((path.canonicalize(), place.path.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if !same {
        let (above, name) = (above.path.display(), shell::word(&named.name));
        return Err(place.wrong(&format!("is listed, but the backing file of {above} is {name}")));
    }
    let file = DiskFile::open(place, Access::Read)?;
    match named.format.as_deref() {
        Some("qcow2") => {
            let header = read_header(&file, place, Some((above, named)))?;
            Layer::new(file, Some(header), place)
        }
        Some("raw") => Layer::new(file, None, place),
        // Not guessed: a guest that once wrote a raw file could have made it a qcow2 image, which may refer
        // to any file of the host.
        None => {
            let found =
                image_format::detect(&file.file).map_err(|error| place.host("can't be read", &error))?;
            Err(above.wrong(&without_format(above, named, place, found)))
        }
        Some(format) => {
            let (name, format) = (shell::word(&named.name), shell::word(format.as_bytes()));
            let (below, rebase) = (shell::path(place.path), rebase(above, "qcow2", "NEW.qcow2"));
            Err(above.wrong(&format!(
                "says that its backing file {name} is {format}, which isn't supported: convert that, qemu-img convert -f \
                 {format} -O qcow2 {below} NEW.qcow2, and then {rebase}"
            )))
        }
    }
}

/// The message for the image at `above` that doesn't contain the format of its backing file at `place`, which
/// looks like `found`.
fn without_format(above: Place<'_>, named: &Backing, place: Place<'_>, found: Option<ImageFormat>) -> String {
    let name = shell::word(&named.name);
    let as_raw = rebase(above, "raw", &name);
    let (likeness, advice) = match found {
        None => ("raw".to_owned(), as_raw),
        Some(found) => {
            let as_qcow2 = match found {
                ImageFormat::Qcow2 => rebase(above, "qcow2", &name),
                ImageFormat::Foreign(_) => {
                    let convert = found.conversion(place.path, "qcow2");
                    format!("{convert}, and then {}", rebase(above, "FORMAT", "NEW"))
                }
                other => {
                    let convert = other.conversion(place.path, "qcow2");
                    format!("{convert}, and then {}", rebase(above, "qcow2", "NEW.qcow2"))
                }
            };
            let advice = format!("{as_qcow2}, or if its bytes are the disk's, {as_raw}");
            (format!("like {}", found.noun()), advice)
        }
    };
    format!("doesn't say the format of its backing file {name}, which looks {likeness}: {advice}")
}

/// The command that sets the image's backing file `name` (quoted) and its format, and changes nothing else.
fn rebase(above: Place<'_>, format: &str, name: &str) -> String {
    format!("qemu-img rebase -u -f qcow2 -F {format} -b {name} {}", shell::path(above.path))
}

/// Reads the header of the image at `place`. `named` is the image above it that says it is qcow2, or `None`
/// if the config does.
fn read_header(
    file: &DiskFile,
    place: Place<'_>,
    named: Option<(Place<'_>, &Backing)>,
) -> Result<Header, DeviceError> {
    let unread = |error: io::Error| place.host("can't be read", &error);
    let mut bytes = read_range(&file.file, 0, FIRST_READ_LEN).map_err(unread)?;
    if bytes.is_empty() {
        let path = shell::path(place.path);
        return Err(place.wrong(&format!("is empty: make it an image, qemu-img create -f qcow2 {path} 1G")));
    }
    let mut header = Header::parse(&bytes);
    if header.is_err() && bytes.len() == FIRST_READ_LEN {
        // A larger cluster may contain more of the header.
        bytes = read_range(&file.file, 0, HEADER_LEN_MAX).map_err(unread)?;
        header = Header::parse(&bytes);
    }
    header.map_err(|refusal| {
        let found =
            image_format::detect(&file.file).ok().flatten().filter(|found| *found != ImageFormat::Qcow2);
        match (refusal, found, named) {
            (Refusal::NotQcow2 | Refusal::Version(_), Some(other), _) => {
                place.wrong(&instead_of_qcow2(other, place.path))
            }
            (Refusal::NotQcow2, None, Some((above, named))) => {
                let (shown, rebase) = (above.path.display(), rebase(above, "raw", &shell::word(&named.name)));
                place.wrong(&format!(
                    "isn't a qcow2 image, though {shown} says so: if its bytes are the disk's, {rebase}"
                ))
            }
            (refusal, ..) => place.wrong(&refusal.problem(place.path)),
        }
    })
}

/// What to do about a file that isn't a qcow2 image as the config or the image above it claims; printed after
/// its path.
fn instead_of_qcow2(found: ImageFormat, path: &Path) -> String {
    let (noun, remedy) = (found.noun(), format::remedy(found, path));
    format!("isn't a qcow2 image, it looks like {noun}: {remedy}")
}
