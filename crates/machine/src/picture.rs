//! A plan's memory map as an SVG.

use std::fmt::Write;
use std::ops::Range;

use vmm_arch::layout;

use crate::Plan;
use crate::platform;

/// Sizes in SVG user units.
const ROW_HEIGHT: usize = 30;
const TOP: usize = 40;
const BOX_LEFT: usize = 130;
const BOX_WIDTH: usize = 300;
const WIDTH: usize = BOX_LEFT + BOX_WIDTH + 20;

/// The use of a range of guest-physical addresses. Where ranges overlap, the later variant is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Nothing,
    Ram,
    Reserved,
    Kvm,
    Placed,
}

impl Kind {
    /// A light fill, readable under black text.
    fn colour(self) -> &'static str {
        match self {
            Self::Nothing => "#ffffff",
            Self::Ram => "#dbeafe",
            Self::Reserved => "#e5e7eb",
            Self::Kvm => "#fde68a",
            Self::Placed => "#bbf7d0",
        }
    }
}

/// A range of addresses with one use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    range: Range<u64>,
    kind: Kind,
    label: &'static str,
}

impl Plan {
    /// The guest-physical memory map as an SVG, the highest address on top. Rows aren't to scale.
    pub fn memory_map_svg(&self) -> String {
        let rows = self.rows();
        let height = TOP + rows.len() * ROW_HEIGHT + 30;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             font-family=\"monospace\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"{BOX_LEFT}\" y=\"20\" font-weight=\"bold\">guest-physical memory</text>\n"
        );
        for (place, row) in rows.iter().rev().enumerate() {
            let y = TOP + place * ROW_HEIGHT;
            let (colour, label) = (row.kind.colour(), row.label);
            // Writing into a string can't fail.
            let _ = write!(
                svg,
                "<rect x=\"{BOX_LEFT}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{ROW_HEIGHT}\" fill=\"{colour}\" \
                 stroke=\"#374151\"/>\n\
                 <text x=\"{}\" y=\"{}\">{label}</text>\n\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:#x}</text>\n",
                BOX_LEFT + 10,
                y + 19,
                BOX_LEFT - 8,
                y + ROW_HEIGHT + 4,
                row.range.start,
            );
        }
        svg + "</svg>\n"
    }

    /// The address space up to the end of RAM or of the MMIO gap, split where its use changes.
    fn rows(&self) -> Vec<Row> {
        let stretches = self.stretches();
        let mut borders: Vec<u64> =
            stretches.iter().flat_map(|row| [row.range.start, row.range.end]).collect();
        borders.sort_unstable();
        borders.dedup();
        let mut rows: Vec<Row> = Vec::new();
        for range in borders.windows(2).map(|pair| pair[0]..pair[1]) {
            let over =
                stretches.iter().filter(|row| row.range.start <= range.start && range.end <= row.range.end);
            let top = over.max_by_key(|row| row.kind).expect("a stretch covers everything");
            match rows.last_mut() {
                Some(last) if (last.kind, last.label) == (top.kind, top.label) => last.range.end = range.end,
                _ => rows.push(Row { range, ..top.clone() }),
            }
        }
        rows
    }

    /// All ranges, which may overlap.
    fn stretches(&self) -> Vec<Row> {
        let row = |(label, range), kind| Row { range, kind, label };
        let end = self.ram.last().map_or(0, |range| range.end).max(layout::MMIO_GAP.end);
        let mut all = vec![row(("", 0..end), Kind::Nothing)];
        all.extend(platform::emulated_ranges(self.irqchip).into_iter().map(|range| row(range, Kind::Kvm)));
        all.extend(self.ram.iter().map(|range| row(("RAM", range.clone()), Kind::Ram)));
        all.extend(self.boot.reserved().into_iter().map(|range| row(("reserved", range), Kind::Reserved)));
        let placed = self.boot.placements().into_iter().map(|placed| (placed.what, placed.range));
        all.extend(placed.chain(self.tables.ranges()).map(|range| row(range, Kind::Placed)));
        all.extend(self.boot.alias().map(|alias| {
            let len = alias.source.end - alias.source.start;
            row(("the image's last 64 KiB again", alias.gpa..alias.gpa + len), Kind::Placed)
        }));
        all
    }
}
