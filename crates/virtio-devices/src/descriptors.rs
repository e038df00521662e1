//! How many descriptors of the monitor's a guest may take through one device.

use rustix::process::{Resource, getrlimit};

/// What a device holds for its guest at one time where the host gives enough: connections, and the like.
pub(crate) const MOST: u64 = 4096;
/// Descriptors that are left to the rest of the monitor: each device has some ten, each vCPU a few.
const OTHERS: u64 = 256;

/// How many descriptors one device may hold for its guest, under the limit of open files as it is now.
pub(crate) fn share() -> usize {
    share_of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Half of what there is: a card and a vsock together leave the console its own, and a thousand connections fit under 4,096, the
/// hard limit that a kernel starts with.
fn share_of(descriptors: u64) -> usize {
    // Never none: a device without is of no use, and what the host refuses later is refused to the guest.
    (descriptors.saturating_sub(OTHERS) / 2).clamp(16, MOST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_leaves_descriptors_to_others() {
        // What processes start with, what a kernel allows at most unless told otherwise, and what distributions do.
        assert_eq!(share_of(1024), 384);
        assert_eq!(share_of(4096), 1920);
        assert_eq!(share_of(1 << 20), 4096);
        assert_eq!(share_of(u64::MAX), 4096);
        assert_eq!(share_of(128), 16);
    }
}
