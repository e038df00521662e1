//! The output of `--trace-exits=summary`.

use std::fmt;

use tracing::warn;
use vmm_kvm::{Statistics, StatisticsFile};
use vmm_vcpu::Summary;

/// The exits of a machine: those to userspace as counted by the monitor, and KVM's own statistics where it has them.
#[derive(Debug)]
pub struct ExitReport {
    /// The exits that the monitor handled.
    pub exits: Summary,
    /// KVM's statistics, summed over all vCPUs.
    pub vcpus: Statistics,
    /// KVM's statistics of the VM.
    pub vm: Statistics,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Summary::HEADER, self.exits)?;
        for (of, statistics) in [("vCPUs", &self.vcpus), ("VM", &self.vm)] {
            let rows = statistics.to_string();
            if !rows.is_empty() {
                write!(f, "\n{:<36} {:>14}\n{rows}", format!("KVM's statistics, {of}"), "value")?;
            }
        }
        Ok(())
    }
}

/// The open statistics files of a machine.
#[derive(Debug, Default)]
pub(super) struct StatisticsFiles {
    pub(super) vcpus: Vec<StatisticsFile>,
    pub(super) vm: Option<StatisticsFile>,
}

impl StatisticsFiles {
    /// The report of `exits` and the statistics. A file that can't be read is logged and left out.
    pub(super) fn report(&self, exits: Summary) -> ExitReport {
        let (vcpus, vm) = (sum(&self.vcpus), sum(self.vm.as_slice()));
        ExitReport { exits, vcpus, vm }
    }
}

fn sum(files: &[StatisticsFile]) -> Statistics {
    let mut all = Statistics::default();
    for file in files {
        match file.read() {
            Ok(statistics) => all.merge(&statistics),
            Err(error) => warn!("{error}"),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const VCPU: &[u8] = include_bytes!("../../../kvm/tests/fixtures/statistics-vcpu.bin");

    fn report(vcpus: Statistics) -> String {
        ExitReport { exits: Summary::default(), vcpus, vm: Statistics::default() }.to_string()
    }

    #[test]
    fn report_without_statistics_is_the_table_alone() {
        let expected = "\
exit            where      count      rate/s  outside
total                          0           0      0.0%
";
        assert_eq!(report(Statistics::default()), expected);
    }

    #[test]
    fn report_has_statistics_under_their_owner() {
        let text = report(Statistics::parse(VCPU).unwrap());
        let expected = "0.0%\n\nKVM's statistics, vCPUs                       value\nhalt_wakeup                                       1\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("VM\n"), "{text}");
    }
}
