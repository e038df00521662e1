//! Why a value is rejected. Contains only text and numbers, so that every type of value can depend on it.

use thiserror::Error;

use crate::text::quote;

/// Why a value is rejected. To be printed after a prefix such as `memory.size: ` or `--memory: `.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The JSON value has the wrong type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What is expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The object has no field of this name; `hint` is the nearest name or a list of all names.
    #[error("unknown field, {hint}")]
    UnknownField {
        /// What to write instead.
        hint: String,
    },
    /// A duplicate name.
    #[error("given twice, keep one")]
    GivenTwice,
    /// The name isn't one of a fixed set.
    #[error("unknown {what} {}, {hint}", quote(name))]
    UnknownName {
        /// The kind of name.
        what: &'static str,
        /// The name as given.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// Below the minimum.
    #[error("{value} is too small, at least {least}")]
    TooSmall {
        /// The value as it was written.
        value: String,
        /// The minimum, in the unit of the value.
        least: String,
    },
    /// The memory is enough only for a flat image.
    #[error("{size} is too small for a Linux kernel, at least {least}; only a flat image runs in less")]
    TooSmallForLinux {
        /// The size.
        size: String,
        /// The minimum for Linux.
        least: String,
    },
    /// The image has page tables of its own in addition to the monitor's.
    #[error(
        "the monitor writes the page tables unless \"tables\" is false; set \"tables\" to false, or remove this"
    )]
    PageTablesTwice,
    /// Above the maximum, or doesn't fit.
    #[error("{value} is too large, at most {most}")]
    TooLarge {
        /// The value as it was written.
        value: String,
        /// The maximum, in the unit of the value.
        most: String,
    },
    /// Negative.
    #[error("{} is negative, write a number above 0", quote(text))]
    Negative {
        /// The value as it was written.
        text: String,
    },
    /// A decimal fraction.
    #[error("{} is a fraction, write a whole number{}", quote(text), if *has_unit { " of a smaller unit" } else { "" })]
    Fraction {
        /// The value as it was written.
        text: String,
        /// Whether the value has units.
        has_unit: bool,
    },
    /// White space in a number.
    #[error("{} contains white space, write {like} without any", quote(text))]
    WhiteSpace {
        /// The value as it was written.
        text: String,
        /// An example.
        like: &'static str,
    },
    /// It doesn't start with a digit.
    #[error("{} is not {what}, write one such as {like}", quote(text))]
    NotANumber {
        /// The value as it was written.
        text: String,
        /// Description of the expected value, with an article.
        what: &'static str,
        /// An example.
        like: &'static str,
    },
    /// The unit of a size or time doesn't exist.
    #[error("{} has the unknown unit {}, use {known}", quote(text), quote(unit))]
    UnknownUnit {
        /// The value as it was written.
        text: String,
        /// The text after the digits.
        unit: String,
        /// The valid units.
        known: &'static str,
    },
    /// Almost valid: the correct notation can be shown.
    #[error("{} {problem}, write {}", quote(text), quote(instead))]
    Misspelt {
        /// The value as it was written.
        text: String,
        /// What is wrong, as a verb phrase.
        problem: &'static str,
        /// The correct notation.
        instead: String,
    },
    /// The guest's memory doesn't end on a page boundary.
    #[error("{value} is not a multiple of {unit}, the nearest below is \"{nearest}\"")]
    NotAMultiple {
        /// The value as it was written.
        value: String,
        /// The unit of which it must be a multiple.
        unit: String,
        /// The largest smaller multiple.
        nearest: String,
    },
    /// A command line contains a byte that a kernel can't receive.
    #[error("byte {offset} is {found}, use printable ASCII only")]
    NotPrintable {
        /// Counted from 0.
        offset: usize,
        /// Description of the byte or character.
        found: String,
    },
    /// An empty path.
    #[error("the path is empty, name a file")]
    EmptyPath,
    /// A host path contains a NUL.
    #[error("byte {offset} of the path is a NUL, remove it")]
    NulInPath {
        /// Counted from 0.
        offset: usize,
    },
    /// A serial output lacks its path.
    #[error("{} needs a path, write {like}", quote(name))]
    NeedsPath {
        /// `file` or `socket`.
        name: String,
        /// The correct notation.
        like: String,
    },
    /// A name lacks its value.
    #[error("{} needs a value, write {{{}: ...}}", quote(name), quote(name))]
    NeedsValue {
        /// The name as given.
        name: String,
    },
    /// A name that has no value was given one.
    #[error("{} has no value, write {}", quote(name), quote(name))]
    TakesNoValue {
        /// The name as given.
        name: String,
    },
    /// Two alternatives were both given, such as two serial outputs.
    #[error("\"{0}\" and \"{1}\" exclude each other, keep one")]
    Both(&'static str, &'static str),
    /// A flag's value isn't UTF-8.
    #[error("{} is not UTF-8", quote(text))]
    NotUtf8 {
        /// The value, with U+FFFD for invalid bytes.
        text: String,
    },
    /// Neither the file nor a flag sets it.
    #[error("missing, add {0}")]
    Missing(&'static str),
    /// An object lacks a member.
    #[error("{missing} is missing, add {give}")]
    Incomplete {
        /// The member, in JSON notation.
        missing: &'static str,
        /// Description of its value.
        give: String,
    },
    /// An option for Linux kernels is combined with a flat image.
    #[error("not possible with {other}, remove {remove}")]
    NotWith {
        /// The other option, and where it was given.
        other: String,
        /// What to remove.
        remove: String,
    },
    /// An option for flat images is used without one.
    #[error("needs a flat image, add one with --flat")]
    NeedsFlat,
    /// There are more processors than can be started without interrupt controllers.
    #[error(
        "{count} is too many with {}, as no processor could start another; set it to 1 or {}",
        if *by_flag { "--irqchip=false" } else { "\"irqchip\": false" },
        if *by_flag { "remove that flag" } else { "\"irqchip\" to true" }
    )]
    NeedsIrqchip {
        /// The requested number.
        count: u16,
        /// Whether a flag disabled the interrupt controllers.
        by_flag: bool,
    },
    /// The product of threads, cores and sockets isn't the number of processors.
    #[error(
        "{count} is not {}{product} ({factors}); choose numbers whose product is {count}",
        if *is_whole { "" } else { "a multiple of " }
    )]
    NotTheProduct {
        /// Number of processors.
        count: u16,
        /// The given numbers with their names.
        factors: String,
        /// Their product.
        product: u64,
        /// Whether all three are given.
        is_whole: bool,
    },
    /// The number of affinity lists isn't that of the processors.
    #[error(
        "{lists} {} for {count} {}, add one for each processor",
        if *lists == 1 { "list" } else { "lists" },
        if *count == 1 { "processor" } else { "processors" }
    )]
    ListsForCpus {
        /// Number of lists.
        lists: usize,
        /// Number of processors.
        count: u16,
    },
    /// A processor has no CPU to run on.
    #[error("the list is empty, add at least one host CPU")]
    NoHostCpu,
    /// A string contains several CPU features.
    #[error("{} contains several features, write a list: {}", quote(text), listed(text))]
    SeveralFeatures {
        /// The value as it was written.
        text: String,
    },
    /// Neither a CPU baseline nor a signed feature.
    #[error(
        "{} isn't a CPU feature, write a baseline such as \"x86-64-v2\", or a feature such as \"+aes\" or \"-aes\"",
        quote(text)
    )]
    BadFeature {
        /// The value as it was written.
        text: String,
    },
    /// `expect` is used although a halt doesn't end the guest: why, and what to change.
    #[error("a hlt never ends this guest, {0}")]
    HaltNeverEnds(String),
    /// `expect` is empty.
    #[error("nothing is expected, add \"rax\" or an entry of \"memory\", or leave it out")]
    ExpectsNothing,
    /// Two values are expected of the accumulator.
    #[error("rax is given twice, keep one")]
    RaxTwice,
    /// Two devices use the same port.
    #[error("{port} is also the port of {first}, choose another for one of them")]
    PortTaken {
        /// The port.
        port: String,
        /// The first device with it: its position in the file, or its flag.
        first: String,
    },
    /// A field that a device of this type doesn't have precedes the type.
    #[error("unknown field {name}, {hint}")]
    Unused {
        /// Its name, quoted.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// An invalid id.
    #[error("{text} isn't a valid id, use 1 to 32 letters, digits, \"-\", \"_\" or \".\"")]
    BadId {
        /// The text, quoted.
        text: String,
    },
    /// Two devices have the same id.
    #[error("\"{id}\" is also the id of devices[{first}], choose another for one of them")]
    IdTaken {
        /// The id.
        id: String,
        /// The index of the first device with it.
        first: usize,
    },
    /// Two devices are in the same slot.
    #[error("slot {slot} is also that of devices[{first}], choose another for one of them")]
    SlotTaken {
        /// The slot.
        slot: String,
        /// The index of the first device in it.
        first: usize,
    },
}

/// Comma-separated words as a JSON list.
fn listed(text: &str) -> String {
    let words: Vec<_> = text.split(',').map(|word| quote(word.trim())).collect();
    format!("[{}]", words.join(", "))
}
