//! Why a value is refused. Its operands are text and plain numbers, so that every type of value can be above it.

use thiserror::Error;

use crate::text::quote;

/// Why a value is refused. Reads well after a prefix such as `memory.size: ` or `--memory: `.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A JSON value of another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A name that the object doesn't have; `hint` is the nearest name or the list of all.
    #[error("unknown field, {hint}")]
    UnknownField {
        /// What to write instead.
        hint: String,
    },
    /// One name, two values.
    #[error("given twice, keep one")]
    GivenTwice,
    /// One of a few names was expected.
    #[error("unknown {what} {}, {hint}", quote(name))]
    UnknownName {
        /// The kind of name.
        what: &'static str,
        /// The name as given.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// Less than the least.
    #[error("{value} is too small, at least {least}")]
    TooSmall {
        /// The value as it was written.
        value: String,
        /// The least, in the unit of the value.
        least: String,
    },
    /// Memory that is enough for a flat image only.
    #[error("{size} is too small for a Linux kernel, at least {least}; only a flat image runs in less")]
    TooSmallForLinux {
        /// The size.
        size: String,
        /// The least for Linux.
        least: String,
    },
    /// Page tables of the image's own beside the monitor's.
    #[error(
        "the monitor writes the page tables unless \"tables\" is false; set \"tables\" to false, or remove this"
    )]
    PageTablesTwice,
    /// More than the most, or more than fits.
    #[error("{value} is too large, at most {most}")]
    TooLarge {
        /// The value as it was written.
        value: String,
        /// The most, in the unit of the value.
        most: String,
    },
    /// Below zero.
    #[error("{} is negative, write a number above 0", quote(text))]
    Negative {
        /// The value as it was written.
        text: String,
    },
    /// Digits with a decimal point.
    #[error("{} is a fraction, write a whole number{}", quote(text), if *has_unit { " of a smaller unit" } else { "" })]
    Fraction {
        /// The value as it was written.
        text: String,
        /// Whether the value has units to choose among.
        has_unit: bool,
    },
    /// White space in a number.
    #[error("{} holds white space, write {like} without any", quote(text))]
    WhiteSpace {
        /// The value as it was written.
        text: String,
        /// An example.
        like: &'static str,
    },
    /// Doesn't begin with a digit.
    #[error("{} is not {what}, write one such as {like}", quote(text))]
    NotANumber {
        /// The value as it was written.
        text: String,
        /// What it should be, with its article.
        what: &'static str,
        /// An example.
        like: &'static str,
    },
    /// A size or a time in a unit that doesn't exist here.
    #[error("{} has the unknown unit {}, use {known}", quote(text), quote(unit))]
    UnknownUnit {
        /// The value as it was written.
        text: String,
        /// What follows the digits.
        unit: String,
        /// The units that exist.
        known: &'static str,
    },
    /// Nearly right: what was meant can be shown.
    #[error("{} {problem}, write {}", quote(text), quote(instead))]
    Misspelt {
        /// The value as it was written.
        text: String,
        /// What is wrong with it, as a verb and its object.
        problem: &'static str,
        /// The value as it is written right.
        instead: String,
    },
    /// Guest memory that doesn't end on a page.
    #[error("{value} is not a multiple of {unit}, the nearest below is \"{nearest}\"")]
    NotAMultiple {
        /// The value as it was written.
        value: String,
        /// What it must be a multiple of.
        unit: String,
        /// The largest multiple that is not larger.
        nearest: String,
    },
    /// A command line with a byte that the kernel can't be given.
    #[error("byte {offset} is {found}, use printable ASCII only")]
    NotPrintable {
        /// Counted from 0.
        offset: usize,
        /// The byte or character in words.
        found: String,
    },
    /// An empty path.
    #[error("the path is empty, name a file")]
    EmptyPath,
    /// No path of the host holds a NUL.
    #[error("byte {offset} of the path is a NUL, remove it")]
    NulInPath {
        /// Counted from 0.
        offset: usize,
    },
    /// A serial output that takes a path, without one.
    #[error("{} needs a path, write {like}", quote(name))]
    NeedsPath {
        /// `file` or `socket`.
        name: String,
        /// How to write it there.
        like: String,
    },
    /// A name that stands for nothing without a value, alone.
    #[error("{} needs a value, write {{{}: ...}}", quote(name), quote(name))]
    NeedsValue {
        /// The name as given.
        name: String,
    },
    /// A name that stands alone, with a value.
    #[error("{} takes no value, write {}", quote(name), quote(name))]
    TakesNoValue {
        /// The name as given.
        name: String,
    },
    /// Two of which one may be there, such as two serial outputs.
    #[error("\"{0}\" and \"{1}\" exclude each other, keep one")]
    Both(&'static str, &'static str),
    /// A flag's value that is not text.
    #[error("{} is not UTF-8", quote(text))]
    NotUtf8 {
        /// The value with U+FFFD for what isn't text.
        text: String,
    },
    /// Neither the file nor a flag gives it.
    #[error("missing, give {0}")]
    Missing(&'static str),
    /// An object without a member that it needs.
    #[error("{missing} is missing, give {give}")]
    Incomplete {
        /// The member, as it is written there.
        missing: &'static str,
        /// What to give it.
        give: String,
    },
    /// What belongs to a Linux kernel, together with a flat image.
    #[error("not possible with {other}, remove {remove}")]
    NotWith {
        /// The other of the two, and where it was given.
        other: String,
        /// What has to go.
        remove: String,
    },
    /// What belongs to a flat image, without one.
    #[error("needs a flat image, give one with --flat")]
    NeedsFlat,
    /// More processors than can be started without interrupt controllers.
    #[error(
        "{count} is too many with {}, as no processor could start another; set it to 1 or {}",
        if *by_flag { "--irqchip=false" } else { "\"irqchip\": false" },
        if *by_flag { "remove that flag" } else { "\"irqchip\" to true" }
    )]
    NeedsIrqchip {
        /// How many were asked for.
        count: u16,
        /// Whether it was a flag that asked for no interrupt controllers.
        by_flag: bool,
    },
    /// Threads, cores and sockets that don't make the number of processors.
    #[error(
        "{count} is not {}{product} ({factors}); choose numbers whose product it is",
        if *is_whole { "" } else { "a multiple of " }
    )]
    NotTheProduct {
        /// How many processors there are.
        count: u16,
        /// The numbers that are given, by their names.
        factors: String,
        /// Their product.
        product: u64,
        /// Whether all three are given.
        is_whole: bool,
    },
    /// Lists of the host's CPUs for more or fewer processors than there are.
    #[error(
        "{lists} {} for {count} {}, give one for each processor",
        if *lists == 1 { "list" } else { "lists" },
        if *count == 1 { "processor" } else { "processors" }
    )]
    ListsForCpus {
        /// How many lists there are.
        lists: usize,
        /// How many processors there are.
        count: u16,
    },
    /// A processor that could run nowhere.
    #[error("the list is empty, name at least one CPU of the host")]
    NoHostCpu,
    /// Several CPU features in one string.
    #[error("{} is several, write a list: {}", quote(text), listed(text))]
    SeveralFeatures {
        /// The value as it was written.
        text: String,
    },
    /// Neither a CPU baseline nor a feature with a sign.
    #[error(
        "{} is no CPU feature, write a baseline such as \"x86-64-v2\", or a feature such as \"+aes\" or \"-aes\"",
        quote(text)
    )]
    BadFeature {
        /// The value as it was written.
        text: String,
    },
    /// An expectation of a guest whose halt doesn't end it: why, and what to do about that.
    #[error("a hlt never ends this guest, {0}")]
    HaltNeverEnds(String),
    /// An expectation of nothing at all.
    #[error("nothing is expected, give \"rax\" or an entry of \"memory\", or leave it out")]
    ExpectsNothing,
    /// The accumulator is expected to be two things.
    #[error("rax is given twice, keep one")]
    RaxTwice,
    /// Two devices at one port.
    #[error("{port} is the port of {first} too, give one of them another")]
    PortTaken {
        /// The port.
        port: String,
        /// The first device with it: its place in the file, or its flag.
        first: String,
    },
    /// A field that a device of this type hasn't, in front of its type.
    #[error("unknown field {name}, {hint}")]
    Unused {
        /// Its name, quoted.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// No id.
    #[error("{text} is no id, give 1 to 32 letters, digits, \"-\", \"_\" or \".\"")]
    BadId {
        /// What was given, quoted.
        text: String,
    },
    /// Two devices with one id.
    #[error("\"{id}\" is the id of devices[{first}] too, give one of them another")]
    IdTaken {
        /// The id.
        id: String,
        /// The index of the first device with it.
        first: usize,
    },
}

/// What is separated by commas, as a JSON list.
fn listed(text: &str) -> String {
    let words: Vec<_> = text.split(',').map(|word| quote(word.trim())).collect();
    format!("[{}]", words.join(", "))
}
