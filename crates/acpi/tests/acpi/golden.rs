//! Compares the tables' bytes with the recorded ones.

use std::fs;

use libtest_mimic::Trial;

use crate::fixtures::{hex, path};
use crate::machine::tables;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        tables_of_one_processor_are_as_recorded,
        tables_of_four_processors_are_as_recorded,
        tables_of_300_processors_are_as_recorded,
    ]
}

fn tables_of_one_processor_are_as_recorded() {
    assert_golden(1);
}

fn tables_of_four_processors_are_as_recorded() {
    assert_golden(4);
}

fn tables_of_300_processors_are_as_recorded() {
    assert_golden(300);
}

fn assert_golden(cpus: u32) {
    for table in tables(cpus).iter() {
        let path = path(cpus, table, "hex");
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(hex(table), golden, "{} differs; VMM_BLESS=1 accepts it", path.display());
    }
}
