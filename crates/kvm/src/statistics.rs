//! KVM's own statistics of a VM and of a vCPU (KVM api.rst KVM_GET_STATS_FD).
//!
//! A statistics file describes itself: a header, a descriptor with a name for each statistic, and the values.
//! The kernel decides which statistics there are, so nothing is assumed here.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use kvm_bindings::{
    KVM_STATS_BASE_MASK, KVM_STATS_BASE_POW10, KVM_STATS_TYPE_LINEAR_HIST, KVM_STATS_TYPE_LOG_HIST,
    KVM_STATS_TYPE_MASK, KVM_STATS_TYPE_PEAK, KVM_STATS_UNIT_BYTES, KVM_STATS_UNIT_CYCLES,
    KVM_STATS_UNIT_MASK, KVM_STATS_UNIT_SECONDS,
};

use crate::{Error, KvmVcpu, Vm, ioctls};

/// Maximum number of bytes read from a statistics file. Linux 6.18 has 4200 for a vCPU.
const MAX_FILE_LEN: usize = 1 << 20;

/// Size of struct kvm_stats_header, and of struct kvm_stats_desc without the name.
const HEADER_LEN: usize = 24;
const DESCRIPTOR_LEN: usize = 16;

/// An open statistics file. It can be read on any thread, at any time until the VM is dropped.
#[derive(Debug)]
pub struct StatisticsFile(File);

/// Statistics with their values, of a VM, of a vCPU, or summed over several. Displayed as a table of the
/// nonzero ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics(Vec<Statistic>);

/// A statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// KVM's name of the statistic.
    pub name: String,
    /// The value, or the counts of a histogram's buckets.
    pub values: Vec<u64>,
    /// KVM_STATS_TYPE_*, KVM_STATS_UNIT_* and KVM_STATS_BASE_*.
    flags: u32,
    /// Exponent: the unit is multiplied by this power of the base.
    exponent: i16,
    /// Size of a linear histogram's buckets.
    bucket_size: u32,
}

impl Vm {
    /// Opens KVM's statistics of the VM; `None` if the host's KVM has none (Linux before 5.14).
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn statistics(&self) -> Result<Option<StatisticsFile>, Error> {
        open(&self.fd)
    }
}

impl KvmVcpu {
    /// Opens KVM's statistics of the vCPU; `None` if the host's KVM has none (Linux before 5.14).
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn statistics(&self) -> Result<Option<StatisticsFile>, Error> {
        open(&self.fd)
    }
}

fn open(of: &impl AsRawFd) -> Result<Option<StatisticsFile>, Error> {
    match ioctls::statistics(of) {
        Ok(file) => Ok(Some(StatisticsFile(file))),
        // What kernels return for an unknown ioctl.
        Err(error) if matches!(error.errno(), libc::ENOTTY | libc::EINVAL) => Ok(None),
        Err(error) => Err(Error::Ioctl { name: "KVM_GET_STATS_FD", source: error.into() }),
    }
}

impl StatisticsFile {
    /// Reads the current values.
    ///
    /// # Errors
    /// The file can't be read or is malformed.
    pub fn read(&self) -> Result<Statistics, Error> {
        let mut bytes = vec![0; 4096];
        let mut len = 0;
        loop {
            let read = self.0.read_at(&mut bytes[len..], len as u64);
            match read.map_err(|source| Error::Ioctl { name: "read of KVM's statistics", source })? {
                0 => break,
                more => len += more,
            }
            if len == MAX_FILE_LEN {
                return Err(Error::Statistics("longer than 1 MiB"));
            }
            bytes.resize((2 * len).clamp(bytes.len(), MAX_FILE_LEN), 0);
        }
        Statistics::parse(&bytes[..len])
    }
}

impl Statistics {
    /// Parses the contents of a statistics file.
    ///
    /// # Errors
    /// The contents are malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let header = Fields(bytes.get(..HEADER_LEN).ok_or(Error::Statistics("no header"))?);
        let name_len = header.u32(4) as usize;
        let count = header.u32(8) as usize;
        let (descriptors, data) = (header.u32(16) as usize, header.u32(20) as usize);
        let descriptors = bytes.get(descriptors..).ok_or(Error::Statistics("no descriptors"))?;
        let data = bytes.get(data..).ok_or(Error::Statistics("no values"))?;
        let len = name_len.checked_add(DESCRIPTOR_LEN).ok_or(Error::Statistics("names without end"))?;
        if descriptors.len() / len < count {
            return Err(Error::Statistics("more descriptors than fit"));
        }
        // Values of different statistics don't overlap, so there can't be more than this in total.
        let mut room = data.len() / 8;
        let mut statistics = Vec::with_capacity(count);
        for descriptor in descriptors.chunks_exact(len).take(count) {
            let statistic = Statistic::parse(descriptor, data)?;
            room = room.checked_sub(statistic.values.len()).ok_or(Error::Statistics("overlapping values"))?;
            statistics.push(statistic);
        }
        Ok(Self(statistics))
    }

    /// All statistics, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &Statistic> {
        self.0.iter()
    }

    /// The value of statistic `name`, unless it is a histogram.
    pub fn value(&self, name: &str) -> Option<u64> {
        match self.0.iter().find(|statistic| statistic.name == name)?.values[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// Adds the statistics of another vCPU. For peaks, keeps the higher value.
    pub fn merge(&mut self, other: &Self) {
        for theirs in &other.0 {
            match self.0.iter_mut().find(|ours| ours.name == theirs.name) {
                Some(ours) => ours.merge(theirs),
                None => self.0.push(theirs.clone()),
            }
        }
    }
}

/// Integers in host byte order, at fixed offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("N bytes")
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }
}

impl Statistic {
    /// Parses a descriptor of [`DESCRIPTOR_LEN`] bytes followed by the name.
    fn parse(descriptor: &[u8], data: &[u8]) -> Result<Self, Error> {
        let (fields, name) = descriptor.split_at(DESCRIPTOR_LEN);
        let fields = Fields(fields);
        let (len, offset) = (usize::from(fields.u16(6)), fields.u32(8) as usize);
        let outside = Error::Statistics("values outside of the file");
        let values = data.get(offset..).and_then(|data| data.get(..8 * len)).ok_or(outside)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        // The name is printed on terminals.
        let name = name.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
        Ok(Self {
            name,
            values: values.chunks_exact(8).map(|value| u64::from_ne_bytes(Fields(value).bytes(0))).collect(),
            flags: fields.u32(0),
            exponent: fields.u16(4) as i16,
            bucket_size: fields.u32(12),
        })
    }

    fn kind(&self) -> u32 {
        self.flags & KVM_STATS_TYPE_MASK
    }

    fn merge(&mut self, other: &Self) {
        self.values.resize(self.values.len().max(other.values.len()), 0);
        let is_peak = self.kind() == KVM_STATS_TYPE_PEAK;
        for (ours, theirs) in self.values.iter_mut().zip(&other.values) {
            *ours = if is_peak { *theirs.max(ours) } else { ours.wrapping_add(*theirs) };
        }
    }

    /// The unit; empty for a plain number.
    fn unit(&self) -> String {
        let unit = match self.flags & KVM_STATS_UNIT_MASK {
            KVM_STATS_UNIT_BYTES => "bytes",
            KVM_STATS_UNIT_SECONDS => "s",
            KVM_STATS_UNIT_CYCLES => "cycles",
            // Plain numbers, and booleans, which merge to the number of vCPUs for which they are true.
            _ => "",
        };
        let is_decimal = self.flags & KVM_STATS_BASE_MASK == KVM_STATS_BASE_POW10;
        match (unit, is_decimal, self.exponent) {
            (_, _, 0) => unit.into(),
            ("s", true, -9) => "ns".into(),
            ("s", true, -6) => "us".into(),
            ("s", true, -3) => "ms".into(),
            ("bytes", false, 10) => "KiB".into(),
            ("bytes", false, 20) => "MiB".into(),
            (_, true, exponent) => format!("x 10^{exponent} {unit}"),
            (_, false, exponent) => format!("x 2^{exponent} {unit}"),
        }
    }

    /// Lower bound of a histogram's bucket; `None` if the statistic isn't a histogram.
    fn bucket(&self, index: usize) -> Option<u64> {
        match self.kind() {
            KVM_STATS_TYPE_LINEAR_HIST => Some(u64::from(self.bucket_size).wrapping_mul(index as u64)),
            // The buckets start at 0, 1, 2, 4, and so on.
            KVM_STATS_TYPE_LOG_HIST => Some(match index {
                0 => 0,
                _ => 1u64.checked_shl(index as u32 - 1).unwrap_or(u64::MAX),
            }),
            _ => None,
        }
    }
}

/// One line per nonzero value: name, value and unit. Histograms have a line per bucket: name, lower bound and
/// count.
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for statistic in &self.0 {
            let (name, unit) = (&statistic.name, statistic.unit());
            for (i, value) in statistic.values.iter().enumerate().filter(|(_, value)| **value != 0) {
                let line = match statistic.bucket(i) {
                    None => format!("{name:<36} {value:>14} {unit}"),
                    Some(from) => {
                        format!("{:<36} {value:>14}", format!("{name} from {from} {unit}").trim_end())
                    }
                };
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{KVM_STATS_BASE_POW2, KVM_STATS_TYPE_INSTANT};
    use proptest::prelude::*;

    use super::*;

    /// From a guest that executed three `out`, an MMIO write and a one-second halt, on Linux 6.18 with a
    /// software KVM.
    const VCPU: &[u8] = include_bytes!("../tests/fixtures/statistics-vcpu.bin");
    const VM: &[u8] = include_bytes!("../tests/fixtures/statistics-vm.bin");

    #[test]
    fn statistics_of_a_vcpu_are_a_table_of_what_happened() {
        let expected = "\
halt_wakeup                                       1
halt_wait_ns                             1001735246 ns
halt_wait_hist from 536870912 ns                  1
exits                                             5
mmio_exits                                        1
signal_exits                                      1
halt_exits                                        1
fpu_reload                                        5
insn_emulation                                    5
req_event                                         1
preemption_other                                  1
";
        assert_eq!(Statistics::parse(VCPU).unwrap().to_string(), expected);
    }

    #[test]
    fn statistics_have_all_names_with_or_without_a_value() {
        let vm = Statistics::parse(VM).unwrap();
        assert_eq!(
            (vm.iter().count(), vm.value("mmu_cache_miss"), vm.value("pages_4k")),
            (16, Some(4), Some(0))
        );
        let vcpu = Statistics::parse(VCPU).unwrap();
        assert_eq!((vcpu.iter().count(), vcpu.value("halt_wait_hist"), vcpu.value("none")), (47, None, None));
    }

    #[test]
    fn statistics_of_two_vcpus_add_up() {
        let mut both = Statistics::parse(VCPU).unwrap();
        both.merge(&Statistics::parse(VCPU).unwrap());
        both.merge(&Statistics::parse(VM).unwrap());
        assert_eq!((both.value("exits"), both.value("mmu_cache_miss")), (Some(10), Some(4)));
        assert!(both.to_string().contains("halt_wait_hist from 536870912 ns                  2\n"), "{both}");
    }

    fn statistic(flags: u32, exponent: i16, values: &[u64]) -> Statistic {
        Statistic { name: "it".into(), values: values.to_vec(), flags, exponent, bucket_size: 10 }
    }

    #[test]
    fn peak_of_two_vcpus_is_the_higher() {
        let mut peak = Statistics(vec![statistic(KVM_STATS_TYPE_PEAK, 0, &[7])]);
        peak.merge(&Statistics(vec![statistic(KVM_STATS_TYPE_PEAK, 0, &[5])]));
        assert_eq!(peak.value("it"), Some(7));
    }

    #[test]
    fn units_are_named_by_base_and_exponent() {
        let unit = |flags, exponent| statistic(KVM_STATS_TYPE_INSTANT | flags, exponent, &[1]).unit();
        assert_eq!(unit(0, 0), "");
        assert_eq!(unit(KVM_STATS_UNIT_BYTES | KVM_STATS_BASE_POW2, 10), "KiB");
        assert_eq!(unit(KVM_STATS_UNIT_SECONDS, -6), "us");
        assert_eq!(unit(KVM_STATS_UNIT_SECONDS, 0), "s");
        assert_eq!(unit(KVM_STATS_UNIT_CYCLES, 3), "x 10^3 cycles");
    }

    #[test]
    fn buckets_of_histograms_start_where_api_rst_says() {
        let linear = statistic(KVM_STATS_TYPE_LINEAR_HIST, 0, &[1, 0, 3]);
        assert_eq!([0, 2].map(|bucket| linear.bucket(bucket)), [Some(0), Some(20)]);
        let log = statistic(KVM_STATS_TYPE_LOG_HIST, 0, &[1, 0, 3]);
        assert_eq!([0, 1, 2, 5].map(|bucket| log.bucket(bucket)), [Some(0), Some(1), Some(2), Some(16)]);
    }

    #[track_caller]
    fn assert_refused(at: usize, value: u32, reason: &str) {
        let mut bytes = VCPU.to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        assert_eq!(Statistics::parse(&bytes).unwrap_err().to_string(), format!("KVM's statistics: {reason}"));
    }

    #[test]
    fn header_that_points_outside_is_refused() {
        assert_refused(8, u32::MAX, "more descriptors than fit");
        assert_refused(4, u32::MAX, "more descriptors than fit");
        assert_refused(16, 5000, "no descriptors");
        assert_refused(20, 5000, "no values");
    }

    #[test]
    fn descriptor_that_points_outside_is_refused() {
        // The first descriptor is at 72: flags, exponent and size, offset.
        assert_refused(72 + 8, 4200, "values outside of the file");
        // At most 140 values fit.
        assert_refused(72 + 4, 140 << 16, "overlapping values");
        assert_refused(72 + 4, 141 << 16, "values outside of the file");
    }

    #[test]
    fn cut_off_file_is_refused() {
        assert!(Statistics::parse(&[]).is_err());
        assert!(Statistics::parse(&VCPU[..VCPU.len() - 1]).is_err());
    }

    #[test]
    fn name_keeps_only_what_can_be_printed() {
        let mut bytes = VCPU.to_vec();
        bytes[72 + 16..72 + 20].copy_from_slice(b"\x1b[2J");
        let first = Statistics::parse(&bytes).unwrap().0.remove(0);
        assert_eq!(first.name, "[2J_successful_poll");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Statistics::parse(&bytes).map(|statistics| statistics.to_string());
        }

        #[test]
        fn damaged_file_is_parsed_or_refused(at in 0..VCPU.len(), damage: [u8; 4], end in 0..=VCPU.len()) {
            let mut bytes = VCPU.to_vec();
            bytes.iter_mut().skip(at).zip(damage).for_each(|(byte, damage)| *byte = damage);
            let _ = Statistics::parse(&bytes[..end]).map(|mut statistics| {
                let other = statistics.clone();
                statistics.merge(&other);
                statistics.to_string()
            });
        }
    }
}
