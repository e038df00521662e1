//! Bare-metal guests: kernels of a few instructions, each for one purpose. Their sources are in
//! `resources/guests`; the head of each describes what it does and what a test must observe. They are built
//! with binutils and a C compiler, which every development machine has for linking.
//!
//! ```no_run
//! use driver::guests;
//!
//! let kernel = guests::path("echo");
//! ```

mod images;
mod tools;
mod width;

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

use self::images::{IMAGES, Image};
use crate::program::workspace;

/// Set to 1 for everything that runs in the rig, which can't build anything: the host has prepared all.
const IN_RIG: &str = "VMM_IN_RIG";

/// File in the images' directory with a hash of what they were built from.
const STAMP: &str = ".built-from";

/// The images' directory, `target/guests`, brought up to date once per process. In the rig it is used as it
/// is.
///
/// Several processes may call this concurrently: one builds, the others wait, and each image is replaced
/// atomically. Panics with a message if a tool is missing or fails.
pub fn build_all() -> PathBuf {
    let dir = up_to_date().as_ref().unwrap_or_else(|error| panic!("{error}"));
    dir.clone()
}

/// The image with this name, brought up to date. Panics if there is no such guest.
pub fn path(name: &str) -> PathBuf {
    let image = IMAGES.iter().find(|image| image.name == name);
    let image = image.unwrap_or_else(|| panic!("no guest is called {name}"));
    build_all().join(image.file_name())
}

/// The paths of all images, brought up to date.
///
/// # Errors
/// A tool is missing or fails.
pub fn all() -> Result<Vec<PathBuf>, String> {
    let dir = up_to_date().as_ref().map_err(String::clone)?;
    Ok(IMAGES.iter().map(|image| dir.join(image.file_name())).collect())
}

fn up_to_date() -> &'static Result<PathBuf, String> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = workspace().join("target/guests");
        if env::var_os(IN_RIG).is_none_or(|value| value != "1") {
            update(&dir)?;
        }
        Ok(dir)
    })
}

/// Builds the images if one is missing or their inputs have changed.
fn update(dir: &Path) -> Result<(), String> {
    let sources = workspace().join("resources/guests");
    let told = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| format!("can't {what} {}: {error}", path.display())
    };
    fs::create_dir_all(dir).map_err(told("create", dir))?;
    let _lock = lock(dir).map_err(told("lock", dir))?;
    let stamp = fingerprint(&sources, dir).map_err(told("read", &sources))?;
    if is_up_to_date(dir, &stamp) {
        return Ok(());
    }
    let new = dir.join(".new");
    fs::create_dir_all(&new).map_err(told("create", &new))?;
    for image in IMAGES {
        build(image, &sources, &new)?;
        let file = dir.join(image.file_name());
        fs::rename(new.join(image.file_name()), &file).map_err(told("create", &file))?;
    }
    fs::remove_dir_all(&new).map_err(told("remove", &new))?;
    // Last, so that an interrupted build is repeated.
    fs::write(dir.join(STAMP), stamp).map_err(told("write to", dir))
}

/// Serialises builds of several processes. The kernel releases the lock if a process dies.
fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let file = File::create(dir.join(".lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn build(image: &Image, sources: &Path, out: &Path) -> Result<(), String> {
    for mut command in image.commands(sources, out) {
        tools::run(&mut command).map_err(|error| format!("guest {}: {error}", image.name))?;
    }
    Ok(())
}

fn is_up_to_date(dir: &Path, stamp: &str) -> bool {
    fs::read_to_string(dir.join(STAMP)).is_ok_and(|built_from| built_from == stamp)
        && IMAGES.iter().all(|image| dir.join(image.file_name()).is_file())
}

/// Changes with any source and any build command.
fn fingerprint(sources: &Path, dir: &Path) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files_below(sources)? {
        file.hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    let commands: Vec<_> = IMAGES.iter().flat_map(|image| image.commands(sources, dir)).collect();
    format!("{commands:?}").hash(&mut hasher);
    Ok(format!("{:016x}\n", hasher.finish()))
}

/// All files, in a stable order.
fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn image(name: &str) -> Vec<u8> {
        fs::read(path(name)).unwrap()
    }

    #[test]
    fn images_are_all_built_and_none_is_empty() {
        let lens: Vec<_> = all().unwrap().iter().map(|path| fs::metadata(path).unwrap().len()).collect();
        assert_eq!(lens.len(), IMAGES.len());
        assert!(!lens.contains(&0), "{lens:?}");
    }

    #[test]
    fn images_have_names_of_their_own() {
        let mut names: Vec<_> = IMAGES.iter().map(Image::file_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), IMAGES.len());
    }

    #[test]
    fn reset_image_ends_with_the_jump_of_the_reset_vector() {
        let image = image("reset-hello");
        assert_eq!(image.len(), 0x1_0000);
        // ljmp 0xf000:0
        assert_eq!(image[0xfff0..0xfff5], [0xea, 0x00, 0x00, 0x00, 0xf0]);
    }

    /// 65,525 bytes: ld appends the jump at the end, and gcc is called as in the article.
    #[test]
    fn reset_image_of_the_article_ends_with_its_jump() {
        let image = image("kernel1");
        assert_eq!(image.len(), 65_525);
        assert_eq!(image[0xfff0..], [0xea, 0x00, 0x00, 0x00, 0xf0]);
    }

    #[test]
    fn flat_image_begins_with_its_code() {
        // xor ax, ax
        assert_eq!(image("hello-real")[..2], [0x31, 0xc0]);
    }

    /// The PML4 at 0x2000, whose first entry is present; the code ends below it.
    #[test]
    fn image_with_tables_has_them_where_its_config_says() {
        let image = image("guest64-tables");
        assert_eq!((image.len(), &image[0x2000..0x2008]), (0x5000, &0x3003_u64.to_le_bytes()[..]));
    }

    /// Multiboot Specification 0.6.96 §3.1: within the first 8 KiB of the file, at a multiple of 4.
    #[test]
    fn multiboot_header_is_in_the_first_8_kib() {
        let image = image("multiboot");
        let mut words = image[..0x2000].chunks_exact(4);
        assert!(words.any(|word| word == 0x1bad_b002_u32.to_le_bytes()));
    }

    #[test]
    fn built_once_nothing_is_built_again() {
        let dir = build_all();
        let built = || fs::metadata(dir.join("echo.elf")).unwrap().modified().unwrap();
        let before = built();
        update(&dir).unwrap();
        assert_eq!(built(), before);
    }

    #[test]
    fn config_examples_name_images_that_are_built() {
        let configs = workspace().join("resources/configs/guests");
        let images: Vec<_> = all().unwrap().iter().map(|path| path.canonicalize().unwrap()).collect();
        for config in files_below(&configs).unwrap() {
            let example: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
            let image = example["boot"]["flat"]["image"].as_str().expect("a path");
            let image = configs.join(image).canonicalize().expect("it exists");
            assert!(images.contains(&image), "{}", config.display());
        }
    }

    #[test]
    #[should_panic(expected = "no guest is called ehco")]
    fn path_of_an_unknown_guest_panics() {
        path("ehco");
    }
}
