//! Headings of `--help`.

pub(crate) const BOOT: &str = "Boot";
pub(crate) const FLAT: &str = "Flat image";
pub(crate) const MACHINE: &str = "Machine";
pub(crate) const RUN: &str = "Run";
pub(crate) const SANDBOX: &str = "Sandbox";
pub(crate) const DIAGNOSTICS: &str = "Diagnostics";
