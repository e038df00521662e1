//! An image that is no Linux kernel, and how it is started.

use std::{fmt, path::Path, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    cmdline::CommandLine, number::Address, path::FilePath, strict, text::hint, value_error::ValueError,
};

/// A flat image: a raw binary, or an ELF executable or multiboot kernel that says itself where it belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"image\": \"hello.bin\"}")]
pub struct FlatSection {
    /// The image: a raw binary, an ELF executable or a multiboot 1 kernel. Required, here or by --flat. A relative path
    /// starts at the directory of this file.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub image: Option<FilePath>,
    /// What the file is: "auto" goes by its headers, "raw" is a raw binary whatever it holds.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FlatFormat", extend("default" = FlatFormat::default()))]
    pub format: Option<FlatFormat>,
    /// Where a raw binary or a position-independent executable is put. Without it the mode says: at 0 for "real", in
    /// the last pages below 1 MiB for "reset", otherwise at 0x100000.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub load_address: Option<Address>,
    /// The state in which the processor enters the image. Without it the image says: "real" for a raw binary, "protected"
    /// for ELF32 and multiboot, "long" for ELF64.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FlatMode")]
    pub mode: Option<FlatMode>,
    /// The address of the first instruction. Without it the image's own, or the load address of a raw binary. Not with mode
    /// "reset".
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub entry: Option<Address>,
    /// What the stack pointer starts at. Without it 0x8ff0, or the end of a smaller memory. Not with mode "reset".
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub stack: Option<Address>,
    /// Whether the monitor writes the descriptor tables and page tables of the mode into the guest's memory. If false the
    /// image brings its own.
    #[serde(deserialize_with = "strict::present_bool", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", extend("default" = true))]
    pub tables: Option<bool>,
    /// Where the image has its page tables: only if tables is false, and required then in the modes with paging, "paged" and
    /// "long".
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub page_tables: Option<Address>,
    /// The files that a multiboot kernel is handed, in this order.
    #[serde(deserialize_with = "modules", skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
}

/// A file that a multiboot kernel is handed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// The file. A relative path starts at the directory of this file.
    pub path: FilePath,
    /// What the kernel is told with it, of printable ASCII.
    #[serde(default = "CommandLine::empty")]
    pub cmdline: CommandLine,
}

/// What the file of a flat image is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlatFormat {
    /// What its headers say: multiboot, ELF or, without any, raw.
    #[default]
    Auto,
    /// A raw binary, though it may hold what looks like a header.
    Raw,
}

/// The state in which the processor enters a flat image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlatMode {
    /// 16-bit real mode.
    Real,
    /// The processor's own state after a reset: 16-bit, at the last 16 bytes below 4 GiB, where the end of the first MiB is
    /// seen once more.
    Reset,
    /// 32-bit protected mode with flat segments.
    Protected,
    /// 32-bit protected mode with paging.
    Paged,
    /// 64-bit long mode.
    Long,
}

impl FlatSection {
    /// Its paths as seen from where `directory` is seen from.
    #[must_use]
    pub(crate) fn within(self, directory: &Path) -> FlatSection {
        let module = |module: Module| Module { path: module.path.within(directory), ..module };
        FlatSection {
            image: self.image.map(|image| image.within(directory)),
            modules: self.modules.into_iter().map(module).collect(),
            ..self
        }
    }
}

impl FromStr for FlatFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<FlatFormat, ValueError> {
        match text {
            "auto" => Ok(FlatFormat::Auto),
            "raw" => Ok(FlatFormat::Raw),
            _ => Err(ValueError::UnknownName {
                what: "format",
                name: text.to_owned(),
                hint: hint(text, &["auto", "raw"]),
            }),
        }
    }
}

impl<'de> Deserialize<'de> for FlatFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FlatFormat, D::Error> {
        strict::text(deserializer, "\"auto\" or \"raw\"")
    }
}

impl FlatMode {
    /// Every mode, in the order of the documentation.
    pub const ALL: [FlatMode; 5] =
        [FlatMode::Real, FlatMode::Reset, FlatMode::Protected, FlatMode::Paged, FlatMode::Long];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            FlatMode::Real => "real",
            FlatMode::Reset => "reset",
            FlatMode::Protected => "protected",
            FlatMode::Paged => "paged",
            FlatMode::Long => "long",
        }
    }
}

impl FromStr for FlatMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<FlatMode, ValueError> {
        let names = FlatMode::ALL.map(FlatMode::name);
        FlatMode::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| ValueError::UnknownName {
            what: "mode",
            name: text.to_owned(),
            hint: hint(text, &names),
        })
    }
}

impl fmt::Display for FlatMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl<'de> Deserialize<'de> for FlatMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FlatMode, D::Error> {
        strict::text(deserializer, "a mode such as \"real\"")
    }
}

impl<'de> Deserialize<'de> for Module {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Module, D::Error> {
        strict::checked::<_, ModuleSection, _>(deserializer, "an object such as {\"path\": \"initrd.img\"}")
    }
}

/// A module as it is written, whole or not.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ModuleSection {
    #[serde(deserialize_with = "strict::present")]
    path: Option<FilePath>,
    #[serde(deserialize_with = "strict::present")]
    cmdline: Option<CommandLine>,
}

impl TryFrom<ModuleSection> for Module {
    type Error = ValueError;

    fn try_from(section: ModuleSection) -> Result<Module, ValueError> {
        let missing =
            || ValueError::Incomplete { missing: "\"path\"", give: "the path of the module".to_owned() };
        let path = section.path.ok_or_else(missing)?;
        Ok(Module { path, cmdline: section.cmdline.unwrap_or(CommandLine::empty()) })
    }
}

fn modules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Module>, D::Error> {
    strict::list(deserializer, "a list such as [{\"path\": \"initrd.img\"}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_misspelt_names_the_nearest() {
        let error = "protcted".parse::<FlatMode>().unwrap_err();
        assert_eq!(error.to_string(), "unknown mode \"protcted\", did you mean \"protected\"?");
    }

    #[test]
    fn mode_nothing_near_lists_all() {
        let error = "unreal64".parse::<FlatMode>().unwrap_err();
        let expected =
            r#"unknown mode "unreal64", expected one of "real", "reset", "protected", "paged", "long""#;
        assert_eq!(error.to_string(), expected);
    }
}
