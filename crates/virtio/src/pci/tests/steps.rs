//! What a guest does, at random.

use proptest::prelude::*;
use proptest::sample::select;

use super::function_model::WINDOW;

/// How configuration space is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Cam,
    Ecam,
}

/// An access, or an interrupt of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    ReadConfig(Way, u64, usize),
    WriteConfig(Way, u64, Vec<u8>),
    ReadBar(u64, usize),
    WriteBar(u64, Vec<u8>),
    /// Of the configuration, or of a queue.
    Fire(Option<usize>),
}

/// COMMAND, BAR 0, MSI-X's control and the window's capability, as offsets in configuration space.
const INTERESTING: [u64; 17] =
    [0x00, 0x04, 0x06, 0x0c, 0x10, 0x14, 0x18, 0x34, 0x3c, 0x40, 0x42, 0x44, 0x94, 0x98, 0x9c, 0xa0, 0xfc];

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Cam), Just(Way::Ecam)]
}

fn width() -> impl Strategy<Value = usize> {
    select(vec![1, 2, 2, 4, 4, 4, 8])
}

/// Small numbers, bits, places in and beside the BAR's window, and anything.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..16,
        2 => (0_u32..64).prop_map(|bit| 1 << bit),
        2 => (0_u64..0x42).prop_map(|place| WINDOW.start - 0x8_0000 + place * 0x8_0000),
        1 => select(vec![u64::MAX, 0xffff_ffff, 0xffff, 0x8000, 0xc000]),
        1 => any::<u64>(),
    ]
}

fn config_offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (select(INTERESTING.to_vec()), 0_u64..4, any::<bool>())
            .prop_map(|(at, byte, aligned)| if aligned { at } else { at + byte }),
        1 => 0_u64..0x110,
    ]
}

/// Mostly in the common configuration, the table and the pending bits, and their ends.
fn bar_offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..0x44).prop_map(|at| at & !1),
        2 => 0_u64..0x44,
        1 => 0x1fff_u64..0x2006,
        2 => 0x3ffe_u64..0x400a,
        1 => 0x4ffc_u64..0x5002,
        1 => 0x5ffe_u64..0x600c,
        4 => (0_u64..14).prop_map(|dword| 0x8000 + dword * 4),
        1 => 0x7ffc_u64..0x8038,
        2 => 0x4_7ffc_u64..0x4_800a,
        1 => 0_u64..0x7_fff8,
    ]
}

fn one() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (way(), config_offset(), width()).prop_map(|(way, at, width)| {
            Step::ReadConfig(way, if way == Way::Cam { at & 0xff } else { at }, width)
        }),
        3 => (way(), config_offset(), width(), value()).prop_map(|(way, at, width, value)| {
            let at = if way == Way::Cam { at & 0xff } else { at };
            Step::WriteConfig(way, at, value.to_le_bytes()[..width].to_vec())
        }),
        4 => (bar_offset(), width()).prop_map(|(at, width)| Step::ReadBar(at, width)),
        4 => (bar_offset(), width(), value())
            .prop_map(|(at, width, value)| Step::WriteBar(at, value.to_le_bytes()[..width].to_vec())),
        3 => prop_oneof![Just(None), (0_usize..4).prop_map(Some)].prop_map(Step::Fire),
    ]
}

fn config(at: u64, bytes: &[u8]) -> Step {
    Step::WriteConfig(Way::Ecam, at, bytes.to_vec())
}

fn bar(at: u64, bytes: &[u8]) -> Step {
    Step::WriteBar(at, bytes.to_vec())
}

/// The BAR at one of the places, and memory accesses and bus mastering on.
fn enable() -> impl Strategy<Value = Vec<Step>> {
    (0_u64..0x20).prop_map(|place| {
        let address = (WINDOW.start + place * 0x8_0000).to_le_bytes();
        vec![config(0x10, &address[..4]), config(0x14, &address[4..]), config(4, &[6, 0])]
    })
}

/// All vectors set up, and mapped.
fn vectors() -> impl Strategy<Value = Vec<Step>> {
    any::<u8>().prop_map(|data| {
        let entry = |vector: u64| {
            let at = 0x8000 + 16 * vector;
            let message = u64::from(data) << 8 | vector;
            [bar(at, &0xfee0_1000_u64.to_le_bytes()), bar(at + 8, &message.to_le_bytes())]
        };
        let mut steps: Vec<_> = (0..3).flat_map(entry).collect();
        steps.extend([bar(16, &[0, 0])]);
        for queue in 0..2 {
            steps.extend([bar(22, &[queue, 0]), bar(26, &[queue + 1, 0])]);
        }
        steps.push(config(0x42, &[0, 0x80]));
        steps
    })
}

/// A driver's initialisation up to DRIVER_OK, its rings possibly where there is no memory.
fn start() -> impl Strategy<Value = Vec<Step>> {
    (select(vec![0x1000_u32, 0x2000, 0x2008, 0x10_0000, 0xf_fff0]), 0_u8..5).prop_map(|(rings, enabled)| {
        let mut steps = vec![bar(20, &[0]), bar(20, &[1]), bar(20, &[3])];
        steps.extend([bar(8, &1_u32.to_le_bytes()), bar(12, &1_u32.to_le_bytes()), bar(20, &[11])]);
        for queue in 0..2 {
            steps.extend([bar(22, &[queue, 0]), bar(24, &[4, 0])]);
            steps.extend(
                [(32, rings), (40, rings + 0x400), (48, rings + 0x800)]
                    .map(|(at, gpa)| bar(at, &gpa.to_le_bytes())),
            );
            if enabled != queue {
                steps.push(bar(28, &[1, 0]));
            }
        }
        steps.push(bar(20, &[15]));
        steps
    })
}

/// An access by the window.
fn window() -> impl Strategy<Value = Vec<Step>> {
    (bar_offset(), select(vec![1_u32, 2, 4, 4, 3, 8]), value(), any::<bool>()).prop_map(
        |(offset, len, value, is_write)| {
            let aim = [config(0x98, &(offset as u32).to_le_bytes()), config(0x9c, &len.to_le_bytes())];
            let data = &value.to_le_bytes()[..4];
            let access = if is_write { config(0xa0, data) } else { Step::ReadConfig(Way::Cam, 0xa0, 4) };
            aim.into_iter().chain([access]).collect()
        },
    )
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = prop_oneof![
        20 => one().prop_map(|step| vec![step]),
        2 => enable(),
        2 => vectors(),
        2 => start(),
        3 => window(),
    ];
    prop::collection::vec(some, 1..60).prop_map(|steps| steps.concat())
}
