//! Memory statistics from the guest's driver (virtio 1.2 §5.5.6.3).

use serde_json::{Map, Value};
use vmm_virtio::{Buffers, Fault, FieldReader, FieldWriter, StateError};

/// Names of the statistics, indexed by tag (virtio 1.2 §5.5.6.4; VIRTIO_BALLOON_S_OOM_KILL and later ones as
/// in Linux 6.12's include/uapi/linux/virtio_balloon.h).
const NAMES: [&str; 16] = [
    "swap_in",
    "swap_out",
    "major_faults",
    "minor_faults",
    "free_memory",
    "total_memory",
    "available_memory",
    "disk_caches",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kills",
    "allocation_stalls",
    "async_scanned",
    "direct_scanned",
    "async_reclaimed",
    "direct_reclaimed",
];
/// Bytes per statistic: le16 tag, le64 value, packed.
const STAT_LEN: u64 = 10;
/// Maximum number of statistics read per chain.
const STATS_PER_CHAIN: usize = 64;

/// The latest value of each tag. The guest may report anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    values: [Option<u64>; NAMES.len()],
    /// Number of reports by the driver.
    reports: u64,
}

impl Statistics {
    /// Reads the statistics in `from`. Unknown tags are skipped (virtio 1.2 §5.5.6.3).
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn record(&mut self, from: Buffers<'_>) -> Result<(), Fault> {
        let mut rest = from;
        for _ in 0..STATS_PER_CHAIN {
            let Some((here, after)) = rest.split_at(STAT_LEN) else { break };
            rest = after;
            let mut bytes = [0; STAT_LEN as usize];
            here.read(&mut bytes)?;
            let [t0, t1, value @ ..] = bytes;
            let tag = u16::from_le_bytes([t0, t1]);
            if let Some(stat) = self.values.get_mut(usize::from(tag)) {
                *stat = Some(u64::from_le_bytes(value));
            }
        }
        // A restored count may be any number.
        self.reports = self.reports.wrapping_add(1);
        Ok(())
    }

    /// Writes them to a snapshot.
    pub(super) fn save(&self, fields: &mut FieldWriter) {
        fields.list(&self.values, |fields, value| fields.option(*value, FieldWriter::u64));
        fields.u64(self.reports);
    }

    /// Reads them from a snapshot, which may have fewer.
    ///
    /// # Errors
    /// There are more than are known.
    pub(super) fn load(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let value = |fields: &mut FieldReader<'_>| fields.option("statistic", |fields| fields.u64("value"));
        let saved = fields.list("statistics", NAMES.len(), value)?;
        let mut values = [None; NAMES.len()];
        values[..saved.len()].copy_from_slice(&saved);
        Ok(Self { values, reports: fields.u64("reports")? })
    }

    /// Number of reports by the driver.
    pub(super) fn reports(&self) -> u64 {
        self.reports
    }

    /// Names and values of the reported statistics.
    pub(super) fn values(&self) -> Map<String, Value> {
        let known = NAMES.iter().zip(self.values).filter_map(|(name, value)| Some((*name, value?)));
        known.map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}
