//! Stock kernels, taken from the distribution's packages, and their modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::compression::unpack;
use crate::error::{At, Error, Result};
use crate::modinfo;
use crate::packages;
use crate::progress::note;
use crate::vmlinux;

/// The file next to the unpacked package that contains the package's name.
const PACKAGE_FILE: &str = "package";
/// The apt cache may list versions that the mirror no longer has, and vice versa.
const DOWNLOAD_ATTEMPTS: usize = 3;

/// A kernel for tests, identified by its purpose rather than its exact version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelKind {
    /// Debian's 6.1 cloud kernel: lz4 payload, few drivers.
    Cloud61,
    /// Debian's 6.1 generic kernel: xz payload, drivers for everything in QEMU. The rig runs this one.
    Generic61,
    /// Debian's 6.12 cloud kernel (bookworm-backports): zstd payload.
    Cloud612,
}

impl KernelKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Cloud61, Self::Generic61, Self::Cloud612];

    /// A short name, which is also the directory's name in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud61 => "cloud-6.1",
            Self::Generic61 => "generic-6.1",
            Self::Cloud612 => "cloud-6.12",
        }
    }

    /// Name of the package, with `*` for any text.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Cloud61 => "linux-image-6.1.*-cloud-amd64",
            Self::Generic61 => "linux-image-6.1.*-amd64",
            Self::Cloud612 => "linux-image-6.12.*-cloud-amd64",
        }
    }

    fn series(self) -> [u32; 2] {
        match self {
            Self::Cloud61 | Self::Generic61 => [6, 1],
            Self::Cloud612 => [6, 12],
        }
    }

    fn is_cloud(self) -> bool {
        self != Self::Generic61
    }
}

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Kernel {
    dir: PathBuf,
    package: String,
    release: String,
}

/// A kernel module's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name with `_` instead of `-`, as the kernel lists it.
    pub name: String,
    /// The file, possibly compressed.
    pub path: PathBuf,
}

impl Module {
    /// The module's decompressed ELF.
    pub fn read(&self) -> Result<Vec<u8>> {
        unpack(&fs::read(&self.path).at("read", &self.path)?, &self.path.display().to_string())
    }
}

impl Kernel {
    /// Opens the result of [`fetch`] in `dir`; `None` if there is none yet.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>> {
        let note = dir.join(PACKAGE_FILE);
        let Ok(package) = fs::read_to_string(&note) else { return Ok(None) };
        let boot = dir.join("boot");
        let release = fs::read_dir(&boot)
            .at("list", &boot)?
            .flatten()
            .find_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .ok_or_else(|| Error::format(boot.display().to_string(), "no vmlinuz-* in the kernel package"))?;
        Ok(Some(Self { dir: dir.to_owned(), package: package.trim().to_owned(), release }))
    }

    /// Name of its package.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// Its release, as printed by `uname -r`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The bzImage.
    pub fn vmlinuz(&self) -> PathBuf {
        self.dir.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Whether the option is built into the kernel, according to the config in its package: `X86_MPPARSE` for
    /// `CONFIG_X86_MPPARSE=y`.
    pub fn has_built_in(&self, option: &str) -> Result<bool> {
        let path = self.dir.join("boot").join(format!("config-{}", self.release));
        let config = fs::read_to_string(&path).at("read", &path)?;
        Ok(config.lines().any(|line| line == format!("CONFIG_{option}=y")))
    }

    /// The ELF kernel, extracted from the bzImage on first use.
    pub fn vmlinux(&self) -> Result<PathBuf> {
        let path = self.dir.join("vmlinux");
        if !path.exists() {
            let bzimage = self.vmlinuz();
            let elf = vmlinux::extract(&fs::read(&bzimage).at("read", &bzimage)?)?;
            write_atomically(&path, &elf)?;
        }
        Ok(path)
    }

    /// The module files to load for `names`, each after its dependencies. Names may be written with `-` or
    /// `_`. Built-in drivers are left out; unknown ones are an error.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let library = ModuleLibrary::open(self)?;
        let mut order = Vec::new();
        names.iter().try_for_each(|name| library.add(name, &mut order))?;
        Ok(order)
    }

    /// The [`modules`](Self::modules) for `required`, and those for `optional` that the kernel has.
    pub(crate) fn modules_with(&self, required: &[&str], optional: &[&str]) -> Result<Vec<Module>> {
        let library = ModuleLibrary::open(self)?;
        let mut order = Vec::new();
        required.iter().try_for_each(|name| library.add(name, &mut order))?;
        for name in optional {
            let before = order.len();
            match library.add(name, &mut order) {
                // Drop its dependencies, too.
                Err(Error::ModuleNotFound { .. }) => order.truncate(before),
                other => other?,
            }
        }
        Ok(order)
    }
}

/// All modules of one kernel.
struct ModuleLibrary<'a> {
    kernel: &'a Kernel,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl<'a> ModuleLibrary<'a> {
    fn open(kernel: &'a Kernel) -> Result<Self> {
        let below = Path::new("lib/modules").join(&kernel.release);
        let places = [kernel.dir.join(&below), kernel.dir.join("usr").join(&below)];
        let root = places.iter().find(|dir| dir.is_dir()).ok_or_else(|| {
            Error::format(format!("package {}", kernel.package), format!("has no {}", below.display()))
        })?;
        let builtin = root.join("modules.builtin");
        let builtin = fs::read_to_string(&builtin).at("read", &builtin)?;
        let mut files = BTreeMap::new();
        collect(root, &mut files)?;
        Ok(Self {
            kernel,
            files,
            builtin: builtin.lines().filter_map(|line| module_name(Path::new(line))).collect(),
        })
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || order.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let path = self.files.get(&name).ok_or_else(|| Error::ModuleNotFound {
            release: self.kernel.release.clone(),
            module: name.clone(),
        })?;
        let module = Module { name, path: path.clone() };
        for needed in modinfo::depends(&module.read()?, &path.display().to_string())? {
            self.add(&needed, order)?;
        }
        order.push(module);
        Ok(())
    }
}

/// Adds all module files below `dir`. Symbolic links (`build`, `source`) aren't followed.
fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let path = entry.path();
        if entry.file_type().at("examine", &path)?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `kvm_amd` for `kernel/arch/x86/kvm/kvm-amd.ko.xz`; `None` for other files.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, compression) = file.split_once(".ko")?;
    matches!(compression, "" | ".gz" | ".xz" | ".zst").then(|| stem.replace('-', "_"))
}

/// Finds the newest package of `kind`, unpacks it to `dir` and stores its name there. `dir` appears
/// atomically.
pub(crate) fn fetch(kind: KernelKind, dir: &Path) -> Result<()> {
    let names = packages::search("^linux-image-[0-9]")?;
    let candidates = candidates(&names, kind);
    let mut outcome = Err(Error::KernelNotFound { pattern: kind.pattern().to_owned() });
    for package in candidates.iter().take(DOWNLOAD_ATTEMPTS) {
        outcome = unpack_kernel(package, dir);
        if outcome.is_ok() {
            if !KernelName::parse(package).is_some_and(|name| name.is(kind)) {
                note(&format!("the apt cache has no {}: {package} takes its place", kind.pattern()));
            }
            break;
        }
    }
    outcome
}

fn unpack_kernel(package: &str, dir: &Path) -> Result<()> {
    let temporary = dir.with_extension(format!("{}.part", std::process::id()));
    let unpacked = unpack_into(package, &temporary);
    let moved = unpacked.and_then(|()| fs::rename(&temporary, dir).at("create", dir));
    if moved.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    moved
}

fn unpack_into(package: &str, dir: &Path) -> Result<()> {
    packages::unpack(package, dir)?;
    // Ubuntu's modules are in a separate package.
    let has_modules = dir.join("lib/modules").is_dir() || dir.join("usr/lib/modules").is_dir();
    if let (false, Some(release)) = (has_modules, package.strip_prefix("linux-image-")) {
        packages::unpack(&format!("linux-modules-{release}"), dir)?;
        // Contains more drivers, but doesn't exist for every kernel.
        let _ = packages::unpack(&format!("linux-modules-extra-{release}"), dir);
    }
    let note = dir.join(PACKAGE_FILE);
    fs::write(&note, package).at("write", &note)
}

/// Writes a file atomically.
pub(crate) fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&temporary, contents).at("write", &temporary)?;
    fs::rename(&temporary, path).at("create", path)
}

/// The versions and the flavour in a package name.
#[derive(Debug, PartialEq, Eq)]
struct KernelName {
    version: Vec<u32>,
    is_cloud: bool,
}

impl KernelName {
    /// `None` for debug symbols, unsigned images, real-time kernels and meta-packages (`linux-image-6.12-amd64`).
    fn parse(package: &str) -> Option<Self> {
        let rest = package.strip_prefix("linux-image-")?;
        let (version, is_cloud) = rest
            .strip_suffix("-cloud-amd64")
            .map(|version| (version, true))
            .or_else(|| rest.strip_suffix("-amd64").map(|version| (version, false)))
            .or_else(|| rest.strip_suffix("-generic").map(|version| (version, false)))?;
        if version.ends_with("-rt") || version.contains("unsigned") {
            return None;
        }
        let numbers = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        let version: Vec<u32> = numbers.map(|part| part.parse().ok()).collect::<Option<_>>()?;
        (version.len() >= 3).then_some(Self { version, is_cloud })
    }

    fn is(&self, kind: KernelKind) -> bool {
        self.version.starts_with(&kind.series()) && self.is_cloud == kind.is_cloud()
    }
}

/// Package names that are suitable as `kind`, best first: the same series and flavour, then the flavour in
/// another series from 6 on, then any; newest first within each.
fn candidates(names: &[String], kind: KernelKind) -> Vec<String> {
    let mut ranked: Vec<(bool, bool, KernelName, &String)> = names
        .iter()
        .filter_map(|package| Some((KernelName::parse(package)?, package)))
        .filter(|(name, _)| name.version[0] >= 6)
        // A cloud kernel has no 9p and few drivers, so it can't replace a generic one.
        .filter(|(name, _)| kind.is_cloud() || !name.is_cloud)
        .map(|(name, package)| (name.is(kind), name.is_cloud == kind.is_cloud(), name, package))
        .collect();
    ranked.sort_by(|a, b| (b.0, b.1, &b.2.version).cmp(&(a.0, a.1, &a.2.version)));
    ranked.into_iter().map(|(.., package)| package.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(names: &[&str], kind: KernelKind) -> Option<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        candidates(&names, kind).into_iter().next()
    }

    #[test]
    fn candidates_newest_by_number_not_by_text() {
        let names = ["linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64"];
        assert_eq!(best(&names, KernelKind::Cloud612).unwrap(), names[1]);
    }

    #[test]
    fn candidates_debug_unsigned_rt_and_meta_are_left_out() {
        let names = [
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.1.0-56-rt-amd64",
            "linux-image-6.1-amd64",
        ];
        assert_eq!(best(&names, KernelKind::Generic61), None);
    }

    #[test]
    fn candidates_series_beats_newer_series() {
        let names = ["linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(best(&names, KernelKind::Cloud61).unwrap(), names[1]);
    }

    #[test]
    fn candidates_other_series_takes_the_place() {
        let names = ["linux-image-6.12.9+deb13-amd64", "linux-image-6.12.9+deb13-cloud-amd64"];
        assert_eq!(best(&names, KernelKind::Cloud61).unwrap(), names[1]);
    }

    #[test]
    fn candidates_ubuntu_generic_takes_the_place() {
        let names = ["linux-image-6.8.0-45-generic", "linux-image-unsigned-6.8.0-45-generic"];
        assert_eq!(best(&names, KernelKind::Cloud61).unwrap(), names[0]);
    }

    #[test]
    fn candidates_cloud_never_serves_as_generic() {
        assert_eq!(best(&["linux-image-6.1.0-56-cloud-amd64"], KernelKind::Generic61), None);
    }

    #[test]
    fn module_name_dash_and_compression_are_dropped() {
        assert_eq!(module_name(Path::new("kernel/kvm/kvm-amd.ko.xz")).unwrap(), "kvm_amd");
    }

    #[test]
    fn module_name_other_file_is_none() {
        assert_eq!(module_name(Path::new("modules.order")), None);
    }

    #[test]
    fn modules_optional_may_be_missing_and_required_may_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lib/modules/6.1.0");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let (package, release) = ("linux-image-6.1.0".to_owned(), "6.1.0".to_owned());
        let kernel = Kernel { dir: dir.path().to_owned(), package, release };
        assert_eq!(kernel.modules_with(&["ext4"], &["tun"]).unwrap(), []);
        let missing = kernel.modules_with(&["ext4", "tun"], &[]).unwrap_err();
        assert!(matches!(missing, Error::ModuleNotFound { module, .. } if module == "tun"));
    }
}
