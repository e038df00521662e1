//! Limit on the file descriptors that a guest can make one device use.

use rustix::process::{Resource, getrlimit};

/// Maximum number of objects, such as connections, that a device holds for its guest if the host allows
/// enough descriptors.
pub(crate) const MOST: u64 = 4096;
/// Descriptors reserved for the rest of the monitor: each device needs about ten, each vCPU a few.
const OTHERS: u64 = 256;

/// How many objects with a descriptor each, such as connections, one device may hold for its guest under the
/// current limit of open files.
#[cfg(feature = "usernet")]
pub(crate) fn share() -> usize {
    half().min(MOST) as usize
}

/// How many descriptors one device may have open for others under the current limit of open files.
pub(crate) fn half() -> u64 {
    half_of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Half of the available ones: a network card and a vsock together leave some for consoles, and a thousand
/// connections fit under 4,096, the kernel's initial hard limit.
fn half_of(descriptors: u64) -> u64 {
    // Never zero, which would make the device useless; if the host later refuses, so does the device.
    (descriptors.saturating_sub(OTHERS) / 2).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_leaves_descriptors_to_others() {
        // The usual soft limit, the kernel's default maximum, and what distributions configure.
        assert_eq!(half_of(1024), 384);
        assert_eq!(half_of(4096), 1920);
        assert_eq!(half_of(1 << 20), (1 << 19) - 128);
        assert_eq!(half_of(128), 16);
    }
}
