//! The guests of these tests: stock kernels with Busybox.

use std::path::PathBuf;
use std::time::Duration;

use driver::{Launch, Monitor};
use rig::{Assets, Kernel, KernelKind};

/// Exit codes, as in `vmm-bin --help`.
pub(crate) const ENDED: i32 = 0;
pub(crate) const BAD_CONFIG: i32 = 3;
pub(crate) const BAD_HOST: i32 = 4;
pub(crate) const CRASHED: i32 = 5;
pub(crate) const BY_SIGHUP: i32 = 128 + 1;
pub(crate) const BY_SIGINT: i32 = 128 + 2;
pub(crate) const BY_SIGTERM: i32 = 128 + 15;

/// A boot takes 4 to 12 s in an otherwise idle rig.
pub(crate) const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// A kernel command line with which the kernel prints no messages to the console.
pub(crate) const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";

/// The two kinds of kernel files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image {
    BzImage,
    Vmlinux,
}

impl Image {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BzImage => "bzimage",
            Self::Vmlinux => "vmlinux",
        }
    }
}

/// The kernel for tests in which the kernel makes no difference: the one that boots fastest.
pub(crate) const ANY: (KernelKind, Image) = (KernelKind::Cloud61, Image::Vmlinux);

pub(crate) fn kernel(kind: KernelKind) -> Kernel {
    Assets::here().kernel(kind).expect("all kernels were fetched beforehand")
}

pub(crate) fn image_path((kind, image): (KernelKind, Image)) -> PathBuf {
    match image {
        Image::BzImage => kernel(kind).vmlinuz(),
        Image::Vmlinux => kernel(kind).vmlinux().expect("all kernels were unpacked beforehand"),
    }
}

pub(crate) fn initrd_path() -> PathBuf {
    Assets::here().guest_initrd().expect("the initramfs was built beforehand")
}

/// Launches a Busybox guest with this much memory.
pub(crate) fn boot_with_memory(image: (KernelKind, Image), memory: &str, cmdline: &str) -> Launch {
    Monitor::command(["--memory", memory, "--cmdline", cmdline])
        .args([["--kernel".into(), image_path(image)], ["--initrd".into(), initrd_path()]].concat())
}

/// Default guest memory in bytes.
pub(crate) const RAM_LEN: u64 = 256 << 20;

/// Launches a Busybox guest with [`RAM_LEN`] bytes of memory.
pub(crate) fn boot(image: (KernelKind, Image), cmdline: &str) -> Launch {
    boot_with_memory(image, "256M", cmdline)
}

/// The values that the guest's init prints when Linux is up.
#[derive(Clone, Debug)]
pub(crate) struct InitUp {
    pub(crate) cpus: u64,
    pub(crate) mem_kb: u64,
    pub(crate) release: String,
}

impl InitUp {
    /// Waits for the line of init and parses it.
    #[track_caller]
    pub(crate) fn expect(monitor: &mut Monitor) -> Self {
        monitor.expect("INIT-UP ", BOOT_DEADLINE);
        Self::parse(&monitor.expect("\r\n", BOOT_DEADLINE))
    }

    /// Parses what follows `INIT-UP`: the uptime, then `key=value` pairs.
    pub(crate) fn parse(words: &str) -> Self {
        let value = |key| words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let number = |key| value(key).and_then(|text| text.parse().ok());
        let parsed = || {
            Some(Self {
                cpus: number("cpus")?,
                mem_kb: number("mem_kb")?,
                release: value("linux")?.to_owned(),
            })
        };
        parsed().unwrap_or_else(|| panic!("init says {words:?}"))
    }
}
