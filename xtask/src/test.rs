//! `cargo xtask test`: runs everything that a change must pass, on any host.

use std::ffi::OsString;
use std::process::ExitCode;

use rig::{Assets, REQUIRE_GUESTS, Reason, note};

use crate::failure::Failure;
use crate::lint;
use crate::workspace::{self, cargo, succeed};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Arguments for cargo test
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    set_up()?;
    if lint::run()? != ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    let mut tests = cargo(&["test", "--workspace"]);
    tests.args(&arguments.arguments);
    // In CI nobody reads the list of ignored tests, so a test that can't run must fail.
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        tests.env(REQUIRE_GUESTS, "1");
    }
    succeed(tests.status()?, "cargo test --workspace")?;
    if arguments.arguments.is_empty() {
        without_features()?;
        bare_metal_in_rig()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tests the libraries that have features without any: what needs one must be refused, and the rest must work.
fn without_features() -> Result<(), Failure> {
    let mut tests = cargo(&["test", "--no-default-features"]);
    tests.args(workspace::packages_arguments(&["vmm-hostio", "vmm-virtio-devices"]));
    succeed(tests.status()?, "cargo test --no-default-features")
}

/// If this host's KVM is a software implementation, runs the bare-metal guests again in the rig, whose KVM has what that lacks, such
/// as paging in protected mode, and exits as a hardware one does.
fn bare_metal_in_rig() -> Result<(), Failure> {
    if rig::can_run_linux() != Err(Reason::SoftwareKvm) {
        return Ok(());
    }
    let mut tests = cargo(&["test", "--package", "micro-tests"]);
    tests.env("VMM_USE_RIG", "1");
    succeed(tests.status()?, "cargo test --package micro-tests, in the rig")
}

/// Fetches and builds what guest tests use, and installs QEMU if they need the rig.
fn set_up() -> Result<(), Failure> {
    Assets::at(workspace::root()).prepare_all()?;
    if let Some(reason) = rig::reason_for_rig() {
        note(&format!("{reason}; guest tests run in the rig"));
        rig::install_qemu()?;
    }
    Ok(())
}
