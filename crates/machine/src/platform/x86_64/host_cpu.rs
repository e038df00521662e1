//! What the guest is told of the host's processor, besides what KVM reports.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use vmm_arch::cpuid::Brand;

/// The host's processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCpu {
    /// The "model name" of the first one.
    pub(super) brand: Option<Brand>,
}

impl HostCpu {
    /// Reads /proc/cpuinfo.
    pub(crate) fn read() -> Self {
        // The file can be long; reading stops at the first processor's name.
        let name = File::open("/proc/cpuinfo").ok().and_then(name_in);
        Self { brand: name.map(|name| Brand::new(&name)) }
    }
}

fn name_in(cpuinfo: impl Read) -> Option<String> {
    BufReader::new(cpuinfo).lines().map_while(Result::ok).find_map(|line| {
        let (key, name) = line.split_once(':')?;
        (key.trim() == "model name").then(|| name.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_first_processors() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: AMD EPYC: 7763 \n\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(name_in(cpuinfo.as_bytes()).as_deref(), Some("AMD EPYC: 7763"));
    }

    #[test]
    fn name_that_there_is_not_is_none() {
        assert_eq!(name_in("processor\t: 0\nmodel\t: 1\n".as_bytes()), None);
    }
}
