//! How the MADT describes processors.

use libtest_mimic::Trial;
use vmm_acpi::{Cpu, render};

use crate::machine::{AREA, cpus, description, tables};
use crate::reader::{structures, table};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        processors_up_to_255_have_short_entries,
        processors_beyond_255_have_long_entries,
        sparse_apic_ids_have_the_entries_of_their_size,
        nmi_can_be_left_out,
        no_processors_are_rendered_as_none,
    ]
}

const LOCAL_APIC: u8 = 0;
const LOCAL_APIC_NMI: u8 = 4;
const LOCAL_X2APIC: u8 = 9;
const LOCAL_X2APIC_NMI: u8 = 10;

fn count(structures: &[(u8, Vec<u8>)], wanted: u8) -> usize {
    structures.iter().filter(|(kind, _)| *kind == wanted).count()
}

fn processors_up_to_255_have_short_entries() {
    let structures = structures(table(&tables(255), "APIC"));
    assert_eq!((count(&structures, LOCAL_APIC), count(&structures, LOCAL_X2APIC)), (255, 0));
    let nmi = (LOCAL_APIC_NMI, vec![4, 6, 0xff, 0, 0, 1]);
    assert_eq!(structures.last(), Some(&nmi), "all processors, as the bus says, LINT1");
}

fn processors_beyond_255_have_long_entries() {
    let structures = structures(table(&tables(257), "APIC"));
    assert_eq!((count(&structures, LOCAL_APIC), count(&structures, LOCAL_X2APIC)), (255, 2));
    let last = (LOCAL_X2APIC, vec![9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(structures[256], last, "APIC id 256, enabled, uid 256");
    let nmi = (LOCAL_X2APIC_NMI, vec![10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    assert_eq!(structures.last(), Some(&nmi), "as the bus says, all processors, LINT1");
}

fn sparse_apic_ids_have_the_entries_of_their_size() {
    // Three cores per socket, which occupy four ids: the last core of the 64th socket and the first of the
    // 65th.
    let cpus = [Cpu { uid: 191, apic_id: 254 }, Cpu { uid: 192, apic_id: 256 }];
    let tables = render(&description(&cpus, &[]), AREA).unwrap();
    let kinds: Vec<u8> = structures(table(&tables, "APIC")).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds[..2], [LOCAL_APIC, LOCAL_X2APIC]);
}

fn nmi_can_be_left_out() {
    let cpus = cpus(300);
    let mut description = description(&cpus, &[]);
    description.nmi_on_lint1 = false;
    let tables = render(&description, AREA).unwrap();
    let structures = structures(table(&tables, "APIC"));
    assert_eq!((count(&structures, LOCAL_APIC_NMI), count(&structures, LOCAL_X2APIC_NMI)), (0, 0));
}

fn no_processors_are_rendered_as_none() {
    let structures = structures(table(&tables(0), "APIC"));
    assert_eq!((count(&structures, LOCAL_APIC), count(&structures, LOCAL_X2APIC)), (0, 0));
}
