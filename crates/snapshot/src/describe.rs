//! A manifest as text for people and for programs.

use std::fmt::Write;

use crate::manifest::{DiskContents, Manifest, SavedDisk};

/// The manifest as lines of text. The config isn't in it; [`describe_json`] has everything.
pub fn describe(manifest: &Manifest) -> String {
    let Manifest { format, program, version, created, id, parent, host, memory, disks, sections, .. } =
        manifest;
    let mut lines = Lines(String::new());
    lines.add("snapshot", format_args!("{id}"));
    if let Some(parent) = parent {
        lines.add("parent", format_args!("{parent}"));
    }
    lines.add("taken", format_args!("{created}"));
    lines.add("by", format_args!("{} {}, format {format}", program.escape_debug(), version.escape_debug()));
    let (vendor, kernel) = (host.vendor.escape_debug(), host.kernel.escape_debug());
    let (family, model, stepping, tsc_khz) = (host.family, host.model, host.stepping, host.tsc_khz);
    lines.add("processor", format_args!("{vendor}, family {family}, model {model}, stepping {stepping}"));
    lines.add("TSC", format_args!("{tsc_khz} kHz"));
    lines.add("kernel", format_args!("Linux {kernel}"));
    lines
        .add("memory", format_args!("{} in {}", size(memory.len()), count(memory.regions().len(), "region")));
    for region in memory.regions() {
        let (end, len) = (region.gpa + region.len, size(region.len));
        lines.add("", format_args!("{:#x}..{end:#x}, {len} at offset {:#x}", region.gpa, region.offset));
    }
    lines.list("disks", disks, |disk| {
        let SavedDisk { id, path, len, contents } = disk;
        let contents = match contents {
            DiskContents::Stamp(stamp) => format!("not in the snapshot, stamp {}", stamp.escape_debug()),
            DiskContents::Saved(path) => format!("saved as {}", path.escape_debug()),
        };
        format!("{}: {}, {}, {contents}", id.escape_debug(), path.escape_debug(), size(*len))
    });
    lines.list("sections", sections, ToString::to_string);
    lines.0
}

/// The manifest as one line of JSON.
pub fn describe_json(manifest: &Manifest) -> String {
    let text = serde_json::to_string(manifest).expect("all keys of a manifest are texts");
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Within texts only, where JSON escapes those below 0x20 and leaves others that a terminal obeys.
        if c.is_control() {
            write!(line, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// Lines of a heading and a text, one below the other.
struct Lines(String);

impl Lines {
    fn add(&mut self, heading: &str, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{heading:<10}{text}").expect("a String takes everything");
    }

    fn list<T>(&mut self, heading: &str, items: &[T], text: impl Fn(&T) -> String) {
        if items.is_empty() {
            self.add(heading, format_args!("none"));
        }
        for (index, item) in items.iter().enumerate() {
            self.add(if index == 0 { heading } else { "" }, format_args!("{}", text(item)));
        }
    }
}

/// A length in the largest unit in which it is a whole number.
pub(crate) fn size(len: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| len >= *unit && len.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{len} bytes"), |(unit, name)| format!("{} {name}", len / unit))
}

/// "1 section", "2 sections".
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
