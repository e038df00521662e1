//! `cargo xtask rootfs`: builds disk images from which a guest boots to a login prompt, and the configs that boot them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgGroup;
use rig::{Assets, KernelKind, Rootfs};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::workspace;

/// With `panic=-1` a panic resets at once, which ends the guest. The image is the first disk.
const CMDLINE: &str = "console=ttyS0 root=/dev/vda rw panic=-1";
/// The kernel whose modules are in the initramfs.
const KERNEL: KernelKind = KernelKind::Cloud61;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("kinds").required(true).multiple(true).args(["busybox", "debian", "fio"])))]
pub(crate) struct Arguments {
    /// Build a small image with a static Busybox only
    #[arg(long)]
    busybox: bool,
    /// Build a minimal Debian with systemd, using mmdebstrap and this host's package sources
    #[arg(long)]
    debian: bool,
    /// Build the small image with fio, for testing and measuring disks
    #[arg(long)]
    fio: bool,
    /// Size of the image, such as 256M or 2G [default: 64M for Busybox, 1G for Debian, 128M for fio]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Write the image here instead of target/rootfs/NAME.ext4; its config is written next to it, as .json
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite existing files, including what guests have written to the image
    #[arg(long)]
    force: bool,
}

/// Builds the requested images, and prints how to boot them.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let kinds = arguments.kinds();
    if arguments.output.is_some() && kinds.len() > 1 {
        return Err("--output names one file: use it with only one of --busybox, --debian and --fio".into());
    }
    let assets = Assets::at(workspace::root());
    for kind in kinds {
        let image = arguments.image(kind)?;
        assets.build_rootfs(kind, arguments.size.unwrap_or(kind.default_len()), &image)?;
        print_how_to_boot(&assets, kind, &image)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn kinds(&self) -> Vec<Rootfs> {
        let wanted = |kind: &Rootfs| match kind {
            Rootfs::Busybox => self.busybox,
            Rootfs::Debian => self.debian,
            Rootfs::Fio => self.fio,
        };
        Rootfs::ALL.into_iter().filter(wanted).collect()
    }

    /// The absolute path of the image to build. Creates its directory.
    ///
    /// # Errors
    /// The image or its config exists already and `--force` wasn't given, or the path isn't suitable.
    fn image(&self, kind: Rootfs) -> Result<PathBuf, Failure> {
        let path = match &self.output {
            Some(path) => std::path::absolute(path)?,
            None => workspace::target_dir().join("rootfs").join(format!("{}.ext4", kind.name())),
        };
        if path.extension().is_some_and(|extension| extension == "json") {
            return Err(
                format!("--output {}: the config takes this name; choose another", path.display()).into()
            );
        }
        for file in [&path, &config_path(&path)] {
            if file.exists() && !self.force {
                return Err(format!("{} exists already; --force overwrites it", file.display()).into());
            }
        }
        let dir = path.parent().ok_or("--output: not a file")?;
        fs::create_dir_all(dir).map_err(|error| format!("can't create {}: {error}", dir.display()))?;
        Ok(path)
    }
}

fn config_path(image: &Path) -> PathBuf {
    image.with_extension("json")
}

/// Writes the config, and prints the paths of all files and the command that boots them.
fn print_how_to_boot(assets: &Assets, kind: Rootfs, image: &Path) -> Result<(), Failure> {
    let kernel = assets.kernel(KERNEL)?.vmlinuz();
    let initrd = assets.disk_initrd(KERNEL)?;
    let path = config_path(image);
    let config = config(kind, &kernel, &initrd, image);
    fs::write(&path, format!("{config:#}\n"))
        .map_err(|error| format!("can't write {}: {error}", path.display()))?;
    println!("image   {}", image.display());
    println!("initrd  {}", initrd.display());
    println!("kernel  {}", kernel.display());
    println!("config  {}", path.display());
    println!("boot    cargo run --release -p vmm-bin -- --config {}", path.display());
    println!("login   root, password root");
    Ok(())
}

fn config(kind: Rootfs, kernel: &Path, initrd: &Path, image: &Path) -> Value {
    let memory = match kind {
        Rootfs::Busybox | Rootfs::Fio => "256M",
        // Enough for systemd, udev, dbus and logind besides the kernel and an initramfs.
        Rootfs::Debian => "512M",
    };
    json!({
        "boot": { "kernel": kernel, "initrd": initrd, "cmdline": CMDLINE },
        "memory": { "size": memory },
        "cpus": { "count": 1 },
        "devices": [{ "type": "block", "path": image }],
    })
}

/// Parses a size in MiB (M) or GiB (G); returns bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    /// The minimum for a journal and the file system's tables.
    const LEAST: u64 = 16 << 20;
    let shift = match text.chars().last() {
        Some('M') => 20,
        Some('G') => 30,
        _ => return Err("no unit: write M for MiB or G for GiB, as in 256M".to_owned()),
    };
    let count: u64 =
        text[..text.len() - 1].parse().map_err(|_| "not a whole number before the unit".to_owned())?;
    match count.checked_mul(1 << shift) {
        Some(len) if len >= LEAST => Ok(len),
        Some(_) => Err("less than 16M, the minimum for a file system with a journal".to_owned()),
        None => Err("longer than a file can be".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn arguments_neither_kind_is_refused() {
        assert!(Line::try_parse_from(["rootfs", "--size", "64M"]).is_err());
    }

    #[test]
    fn arguments_both_kinds_are_both_built() {
        let line = Line::try_parse_from(["rootfs", "--debian", "--busybox"]).unwrap();
        assert_eq!(line.arguments.kinds(), [Rootfs::Busybox, Rootfs::Debian]);
    }

    #[test]
    fn image_that_exists_is_refused_without_force() {
        let line = Line::try_parse_from(["rootfs", "--busybox", "--output", file!()]).unwrap();
        // The tests' current directory is the package's.
        let arguments = Arguments { output: Some("src/rootfs.rs".into()), ..line.arguments };
        let error = arguments.image(Rootfs::Busybox).unwrap_err().to_string();
        assert!(error.ends_with("src/rootfs.rs exists already; --force overwrites it"), "{error}");
    }

    #[test]
    fn size_units_are_binary() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
    }

    #[test]
    fn size_that_cannot_be_is_refused() {
        let refused = ["", "64", "M", "-1G", "15M", "99999999999999G", "64é"];
        assert!(refused.iter().all(|text| parse_size(text).is_err()));
    }

    #[test]
    fn config_names_the_image_as_a_block_device() {
        let config = config(Rootfs::Busybox, "/k".as_ref(), "/i".as_ref(), "/d.ext4".as_ref());
        assert_eq!(config["devices"], json!([{ "type": "block", "path": "/d.ext4" }]));
    }
}
