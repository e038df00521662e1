//! Cache of everything that is fetched or built once: kernels, Busybox, initramfs images, disks. It is in the
//! workspace's `target/assets`, is filled on demand, and can be used by several processes concurrently.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::initramfs::{GUEST_INIT, Initramfs, is_static};
use crate::kernels::{self, Kernel, KernelKind, write_atomically};
use crate::lock;
use crate::outer;
use crate::packages;
use crate::rootfs::{self, Programs, Rootfs};
use crate::run_dir::RunDir;
use crate::source_kernel;
use crate::stamp::stamp;
use crate::variables::in_rig;

const INSTALLED_BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// The asset cache of a workspace.
#[derive(Clone, Debug)]
pub struct Assets {
    target: PathBuf,
}

impl Assets {
    /// The cache of the workspace at `workspace`. Nothing is created yet.
    pub fn at(workspace: &Path) -> Self {
        Self { target: workspace.join("target") }
    }

    /// The cache of the workspace in which this crate was built.
    pub fn here() -> Self {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
        Self::at(workspace.expect("this crate lies two levels below the workspace"))
    }

    /// A stock kernel, fetched on first use.
    pub fn kernel(&self, kind: KernelKind) -> Result<Kernel> {
        let dir = self.dir().join("kernels").join(kind.name());
        if let Some(kernel) = Kernel::open(&dir)? {
            return Ok(kernel);
        }
        let what = format!("the {} kernel", kind.name());
        let _lock = self.lock(kind.name(), &what)?;
        if let Some(kernel) = Kernel::open(&dir)? {
            return Ok(kernel);
        }
        let parent = dir.parent().expect("the path was joined above");
        fs::create_dir_all(parent).at("create", parent)?;
        kernels::fetch(kind, &dir)?;
        Kernel::open(&dir)?.ok_or(Error::NotPrepared { what })
    }

    /// A small ELF kernel without ACPI that gets virtio devices from its command line:
    /// resources/kernels/no-acpi.config. Built from the distribution's source on first use, which takes
    /// minutes.
    pub fn kernel_without_acpi(&self) -> Result<PathBuf> {
        const NAME: &str = "no-acpi-6.1";
        let dir = self.dir().join("kernels").join(format!("{NAME}-{}", digest(&source_kernel::INPUTS)));
        let path = dir.join("vmlinux");
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock(NAME, "the kernel without ACPI")?;
        if !path.exists() {
            fs::create_dir_all(&dir).at("create", &dir)?;
            let scratch = RunDir::create(&self.runs_dir())?;
            source_kernel::build(scratch.path(), &path)?;
        }
        Ok(path)
    }

    /// A statically linked Busybox: the installed one, or that of the busybox-static package.
    pub fn busybox(&self) -> Result<PathBuf> {
        let dir = self.dir().join("busybox");
        let fetched = [dir.join("bin/busybox"), dir.join("usr/bin/busybox")];
        let installed = INSTALLED_BUSYBOX.iter().map(PathBuf::from);
        let find = || {
            let mut places = installed.clone().chain(fetched.iter().cloned());
            places.find(|path| fs::read(path).is_ok_and(|bytes| is_static(&bytes)))
        };
        if let Some(path) = find() {
            return Ok(path);
        }
        let _lock = self.lock("busybox", "Busybox")?;
        if find().is_none() {
            packages::unpack("busybox-static", &dir)?;
        }
        find().ok_or_else(|| Error::format("package busybox-static", "has no statically linked bin/busybox"))
    }

    /// The initramfs of a Busybox guest (see [`GUEST_INIT`]), without modules.
    pub fn guest_initrd(&self) -> Result<PathBuf> {
        let busybox = self.busybox()?;
        self.initrd("guest", &[GUEST_INIT, &stamp(&busybox)?], || Initramfs::new(&busybox, GUEST_INIT))
    }

    /// A custom initramfs, created by `build` unless one with the same `name` and `inputs` is cached.
    /// `inputs` must identify everything that the result depends on in addition to the common contents of an
    /// [`Initramfs`]: the text of the init script, the kernel's release, a version.
    pub fn initrd(
        &self,
        name: &str,
        inputs: &[&str],
        build: impl FnOnce() -> Result<Initramfs>,
    ) -> Result<PathBuf> {
        let dir = self.dir().join("initrd");
        let path = dir.join(format!("{name}-{}.gz", digest(&[inputs, &Initramfs::INPUTS].concat())));
        if !path.exists() {
            fs::create_dir_all(&dir).at("create", &dir)?;
            write_atomically(&path, &build()?.gzip())?;
        }
        Ok(path)
    }

    /// The initramfs that mounts the disk in `root=` and starts its init, with the modules of the kernel of
    /// `kind`. Its parameters are described in resources/rootfs/disk-init.
    pub fn disk_initrd(&self, kind: KernelKind) -> Result<PathBuf> {
        let (busybox, kernel) = (self.busybox()?, self.kernel(kind)?);
        let stamp = stamp(&busybox)?;
        let inputs = [&rootfs::disk_initrd_inputs(kernel.release())[..], &[&stamp]].concat();
        let name = format!("disk-{}", kind.name());
        self.initrd(&name, &inputs, || rootfs::disk_initramfs(&busybox, &kernel))
    }

    /// The archive of a minimal Debian's files.
    pub(crate) fn debian_tar(&self) -> Result<PathBuf> {
        let inputs = rootfs::DEBIAN_RECIPE.map(str::to_owned);
        self.large(Rootfs::Debian.name(), "tar", &inputs, rootfs::build_debian_tar)
    }

    /// Directory with `vmlinuz` and `initrd.img`, the kernel of [`Rootfs::Debian`] and the initramfs that Debian made for it.
    pub fn debian_boot_files(&self) -> Result<PathBuf> {
        let tar = self.debian_tar()?;
        let path = tar.with_extension("boot");
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock("debian-boot", "Debian's kernel and initramfs")?;
        if !path.exists() {
            let scratch = RunDir::create(&self.runs_dir())?;
            let made = scratch.path().join("made");
            rootfs::copy_debian_boot_files(&tar, &made, scratch.path())?;
            fs::rename(&made, &path).at("create", &path)?;
        }
        Ok(path)
    }

    /// Directory of fio and its libraries, fetched on first use, to be run by
    /// [`fio::command`](crate::fio::command).
    pub fn fio(&self) -> Result<PathBuf> {
        self.programs(rootfs::fio::PROGRAMS)
    }

    /// Directory of iperf3, bash and their libraries, fetched on first use, to be run by
    /// [`programs::command`](crate::programs::command). bash can open connections without another program.
    pub fn iperf3(&self) -> Result<PathBuf> {
        self.programs(Programs(&[("iperf3", "iperf3"), ("bash", "bash")]))
    }

    /// Directory of curl and its libraries, likewise.
    pub fn curl(&self) -> Result<PathBuf> {
        self.programs(Programs(&[("curl", "curl")]))
    }

    /// Directory of setpci and kexec with their libraries, likewise.
    pub fn setpci_and_kexec(&self) -> Result<PathBuf> {
        self.programs(Programs(&[("pciutils", "setpci"), ("kexec-tools", "kexec")]))
    }

    /// Directory of Debian's newest C library, fetched on first use: `ld.so --library-path DIRECTORY PROGRAM` runs a program with it.
    pub fn newest_libc(&self) -> Result<PathBuf> {
        let path = self.dir().join(format!("libc-{}", digest(&rootfs::newest_libc::RECIPE)));
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock("libc", "the newest C library")?;
        if !path.exists() {
            let scratch = RunDir::create(&self.runs_dir())?;
            rootfs::newest_libc::fetch(&path, scratch.path())?;
        }
        Ok(path)
    }

    /// Directory of a Debian package's files, fetched on first use.
    pub fn package(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir().join(format!("package-{name}"));
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock(name, name)?;
        if !path.exists() {
            let scratch = RunDir::create(&self.runs_dir())?;
            let unpacked = scratch.path().join(name);
            packages::unpack(name, &unpacked)?;
            fs::rename(&unpacked, &path).at("rename", &unpacked)?;
        }
        Ok(path)
    }

    /// Fetches and builds all assets of guest tests, so that nothing is missing in the rig.
    pub fn prepare_all(&self) -> Result<()> {
        for kind in KernelKind::ALL {
            self.kernel(kind)?.vmlinux()?;
        }
        self.guest_initrd().map(drop)
    }

    /// The initramfs of the rig's outer machine for `kernel`.
    pub(crate) fn outer_initrd(&self, kernel: &Kernel) -> Result<PathBuf> {
        let busybox = self.busybox()?;
        let stamp = stamp(&busybox)?;
        let inputs = [&outer::inputs(kernel.release())[..], &[&stamp]].concat();
        self.initrd("outer", &inputs, || outer::initramfs(&busybox, kernel))
    }

    fn programs(&self, programs: Programs) -> Result<PathBuf> {
        let name = programs.name();
        let path = self.dir().join(format!("{name}-{}", digest(&programs.recipe())));
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock(name, name)?;
        if !path.exists() {
            let scratch = RunDir::create(&self.runs_dir())?;
            programs.fetch(&path, scratch.path())?;
        }
        Ok(path)
    }

    /// Parent of the rig's per-run directories.
    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.target.join("rig")
    }

    /// The file in `rootfs/` with this name and these inputs, created by `build` if missing. Files of other
    /// inputs are outdated and too large to keep, so they are removed, as is what an interrupted process
    /// left.
    pub(crate) fn large(
        &self,
        name: &str,
        extension: &str,
        inputs: &[String],
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let dir = self.dir().join("rootfs");
        let path = dir.join(format!("{name}-{}.{extension}", digest(inputs)));
        if path.exists() {
            return Ok(path);
        }
        let what = format!("the {name} root file system");
        let _lock = self.lock(&format!("rootfs-{name}.{extension}"), &what)?;
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&dir).at("create", &dir)?;
        for stale in files_like(&dir, &format!("{name}-"), &format!(".{extension}"))? {
            fs::remove_file(&stale).at("remove", &stale)?;
        }
        build(&path)?;
        Ok(path)
    }

    fn dir(&self) -> PathBuf {
        self.target.join("assets")
    }

    fn lock(&self, name: &str, what: &str) -> Result<lock::Lock> {
        if in_rig() {
            return Err(Error::NotPrepared { what: what.to_owned() });
        }
        lock::exclusive(&self.dir().join("locks").join(name), what)
    }
}

fn digest(inputs: &[impl Hash]) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The files in `dir` whose names start with `prefix` and contain `infix`.
fn files_like(dir: &Path, prefix: &str, infix: &str) -> Result<Vec<PathBuf>> {
    let names = fs::read_dir(dir).at("list", dir)?.flatten().map(|entry| entry.file_name());
    let is_like = |name: &str| name.starts_with(prefix) && name.contains(infix);
    Ok(names.filter(|name| name.to_str().is_some_and(is_like)).map(|name| dir.join(name)).collect())
}
