//! Flat images and their initial state.

use std::{fmt, path::Path, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    cmdline::CommandLine, number::Address, path::FilePath, strict, text::hint, value_error::ValueError,
};

/// A flat image: a raw binary, or an ELF executable or multiboot kernel, which contain their load addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"image\": \"hello.bin\"}")]
pub struct FlatSection {
    /// The image: a raw binary, an ELF executable or a multiboot 1 kernel. Required, here or by --flat. A
    /// relative path starts at the directory of this file.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub image: Option<FilePath>,
    /// The image's format: "auto" detects it by its headers, "raw" is a raw binary whatever it contains.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FlatFormat", extend("default" = FlatFormat::default()))]
    pub format: Option<FlatFormat>,
    /// Load address of a raw binary or a position-independent executable. The default depends on the mode: 0
    /// for "real", the last pages below 1 MiB for "reset", otherwise 0x100000.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub load_address: Option<Address>,
    /// The processor mode in which the image starts. The default depends on the image: "real" for a raw
    /// binary, "protected" for ELF32 and multiboot, "long" for ELF64.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FlatMode")]
    pub mode: Option<FlatMode>,
    /// The address of the first instruction. The default is the image's own, or the load address of a raw
    /// binary. Not with mode "reset".
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub entry: Option<Address>,
    /// Initial value of the stack pointer. The default is 0x8ff0, or the end of a smaller memory. Not with
    /// mode "reset".
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub stack: Option<Address>,
    /// Whether the monitor writes the mode's descriptor tables and page tables into the guest's memory. If
    /// false, the image provides its own.
    #[serde(deserialize_with = "strict::present_bool", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", extend("default" = true))]
    pub tables: Option<bool>,
    /// Address of the image's page tables. Only if tables is false, and then required in the modes with
    /// paging, "paged" and "long".
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub page_tables: Option<Address>,
    /// The modules of a multiboot kernel, in order.
    #[serde(deserialize_with = "modules", skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
}

/// A module of a multiboot kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// The file. A relative path starts at the directory of this file.
    pub path: FilePath,
    /// The module's string, of printable ASCII.
    #[serde(default = "CommandLine::empty")]
    pub cmdline: CommandLine,
}

/// Format of a flat image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlatFormat {
    /// Detected by its headers: multiboot, ELF or, without any, raw.
    #[default]
    Auto,
    /// A raw binary, even if it contains what looks like a header.
    Raw,
}

/// The processor mode in which a flat image starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlatMode {
    /// 16-bit real mode.
    Real,
    /// The processor's state after a reset: 16-bit, at the last 16 bytes below 4 GiB, where the end of the
    /// first MiB is mirrored.
    Reset,
    /// 32-bit protected mode with flat segments.
    Protected,
    /// 32-bit protected mode with paging.
    Paged,
    /// 64-bit long mode.
    Long,
}

impl FlatSection {
    /// Resolves its paths relative to `directory`.
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
    /// All modes, in the order of the documentation.
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

/// A module as read, possibly incomplete.
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
