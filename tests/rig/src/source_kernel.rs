//! A kernel built from the distribution's source, because no stock kernel lacks ACPI.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::kernels::write_atomically;
use crate::packages;
use crate::progress::step;

/// The package of the source, an archive in usr/src.
const PACKAGE: &str = "linux-source-6.1";
/// Options in addition to those of a tinyconfig.
const FRAGMENT: &str = include_str!("../../../resources/kernels/no-acpi.config");
/// Build dependencies: objtool needs libelf.
const BUILD_PACKAGES: [&str; 8] =
    ["bc", "bison", "flex", "gcc", "libc6-dev", "libelf-dev", "make", "xz-utils"];

/// Inputs of the kernel. A newer version of the package builds an equivalent kernel for all tests.
pub(crate) const INPUTS: [&str; 2] = [PACKAGE, FRAGMENT];

/// Builds the ELF kernel as the file `vmlinux` in the directory `scratch`, which needs 2 GiB.
pub(crate) fn build(scratch: &Path, vmlinux: &Path) -> Result<()> {
    packages::install(&BUILD_PACKAGES)?;
    packages::unpack(PACKAGE, scratch)?;
    let archive = scratch.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
    step(&format!("unpacking {PACKAGE}"), || {
        output_of(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(scratch))
    })?;
    fs::remove_file(&archive).at("remove", &archive)?;
    let tree = scratch.join(PACKAGE);
    configure(&tree)?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    step("building a kernel without ACPI, which takes minutes", || {
        output_of(make(&tree).arg(format!("-j{jobs}")).arg("vmlinux"))
    })?;
    let built = tree.join("vmlinux");
    write_atomically(vmlinux, &fs::read(&built).at("read", &built)?)
}

/// Creates .config from the smallest config and the fragment, and checks that Kconfig didn't change the
/// fragment's options.
fn configure(tree: &Path) -> Result<()> {
    output_of(make(tree).arg("tinyconfig"))?;
    let config = tree.join(".config");
    let text = fs::read_to_string(&config).at("read", &config)? + FRAGMENT;
    // The last value of an option applies.
    fs::write(&config, text).at("write", &config)?;
    output_of(make(tree).arg("olddefconfig"))?;
    let text = fs::read_to_string(&config).at("read", &config)?;
    match missing(&text) {
        None => Ok(()),
        Some(option) => Err(Error::format(
            format!("config of {PACKAGE}"),
            format!(
                "hasn't got {option:?} of resources/kernels/no-acpi.config: an option that it needs is off"
            ),
        )),
    }
}

/// The first line of the fragment that isn't in the config. A disabled option may also be absent.
fn missing(config: &str) -> Option<&'static str> {
    let has = |line: &str| config.lines().any(|other| other == line);
    FRAGMENT.lines().find(|line| match option_that_is_off(line) {
        Some(option) => has(&format!("{option}=y")),
        None => line.starts_with("CONFIG_") && !has(line),
    })
}

fn option_that_is_off(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" is not set")
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(tree);
    make
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fragment's options, and nothing else.
    fn config() -> String {
        FRAGMENT.lines().filter(|line| line.starts_with("CONFIG_")).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn config_with_all_options_misses_none() {
        assert_eq!(missing(&config()), None);
    }

    #[test]
    fn config_without_an_option_misses_it() {
        assert_eq!(missing(&config().replace("CONFIG_SMP=y\n", "")), Some("CONFIG_SMP=y"));
    }

    #[test]
    fn config_with_an_option_that_must_be_off_misses_that() {
        let expected = Some("# CONFIG_ACPI is not set");
        assert_eq!(missing(&format!("{}CONFIG_ACPI=y\n", config())), expected);
    }
}
