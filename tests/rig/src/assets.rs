//! The cache of everything that's fetched or built once: kernels, Busybox, initramfs images. It lies in `target/assets` of
//! the workspace and is filled lazily. Any number of processes may use it at once.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::initramfs::{GUEST_INIT, Initramfs, is_static};
use crate::kernels::{self, Kernel, KernelKind, write_atomically};
use crate::lock;
use crate::outer;
use crate::packages;
use crate::reexec::in_rig;

const INSTALLED_BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// The cache of one workspace.
#[derive(Clone, Debug)]
pub struct Assets {
    target: PathBuf,
}

impl Assets {
    /// The cache of the workspace at `workspace`. Nothing is created yet.
    pub fn at(workspace: &Path) -> Self {
        Self { target: workspace.join("target") }
    }

    /// The cache of the workspace that this crate was built in.
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

    /// A statically linked Busybox: the installed one if it is, else the one of the busybox-static package.
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

    /// An initramfs of your own, built by `build` unless one with the same `name` and `inputs` is in the cache. `inputs`
    /// must tell apart whatever the result depends on: the text of the init script, the kernel's release, a version.
    pub fn initrd(
        &self,
        name: &str,
        inputs: &[&str],
        build: impl FnOnce() -> Result<Initramfs>,
    ) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        inputs.hash(&mut hasher);
        let dir = self.dir().join("initrd");
        let path = dir.join(format!("{name}-{:016x}.gz", hasher.finish()));
        if !path.exists() {
            fs::create_dir_all(&dir).at("create", &dir)?;
            write_atomically(&path, &build()?.gzip())?;
        }
        Ok(path)
    }

    /// Fetches and builds all that guest tests use, so that nothing is missing inside the rig.
    pub fn prepare_all(&self) -> Result<()> {
        for kind in KernelKind::ALL {
            self.kernel(kind)?.vmlinux()?;
        }
        self.guest_initrd().map(drop)
    }

    /// The initramfs of the rig's outer machine for `kernel`.
    pub(crate) fn outer_initrd(&self, kernel: &Kernel) -> Result<PathBuf> {
        let busybox = self.busybox()?;
        let inputs = [outer::INIT, kernel.release(), &stamp(&busybox)?];
        self.initrd("outer", &inputs, || outer::initramfs(&busybox, kernel))
    }

    /// Where the rig keeps a directory per run.
    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.target.join("rig")
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

/// Tells one build of a file from another without reading it.
fn stamp(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).at("examine", path)?;
    Ok(format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().ok()))
}
