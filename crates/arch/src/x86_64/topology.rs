//! CPU topology, and the APIC ids that follow from it.

use std::fmt;

/// The first APIC id that requires x2APIC mode: with 8 bits, 255 means all processors (Intel SDM volume 3
/// §11.6.2.1).
pub const FIRST_X2APIC_ID: u32 = 255;

/// Threads per core, cores per socket, and sockets. Each thread is a processor. No count is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    threads_per_core: u16,
    cores_per_socket: u16,
    sockets: u16,
}

impl Topology {
    /// A topology with these counts. `None` if one of them is 0, or if APIC ids wouldn't fit 31 bits.
    pub fn new(threads_per_core: u16, cores_per_socket: u16, sockets: u16) -> Option<Self> {
        let counts = [threads_per_core, cores_per_socket, sockets];
        let product =
            counts.into_iter().try_fold(1_u32, |product, count| product.checked_mul(count.into()))?;
        let bits: u32 = counts.into_iter().map(bits).sum();
        (product > 0 && bits <= 31).then_some(Self { threads_per_core, cores_per_socket, sockets })
    }

    /// One socket of `cores` single-threaded cores, at least 1.
    pub fn one_socket(cores: u16) -> Self {
        Self { threads_per_core: 1, cores_per_socket: cores.max(1), sockets: 1 }
    }

    /// Number of processors.
    pub fn count(&self) -> u32 {
        self.per_socket() * u32::from(self.sockets)
    }

    /// Number of sockets.
    pub fn sockets(&self) -> u32 {
        self.sockets.into()
    }

    /// Processors per core.
    pub fn per_core(&self) -> u32 {
        self.threads_per_core.into()
    }

    /// Processors per socket.
    pub fn per_socket(&self) -> u32 {
        self.per_core() * u32::from(self.cores_per_socket)
    }

    /// The APIC id of vCPU `index`. Bit fields hold, from the lowest bit on, the thread in the core, the core
    /// in the socket, and the socket (Intel SDM volume 3 §9.9.1; AMD64 APM volume 3 appendix E.4.7).
    ///
    /// If the numbers of threads and cores are powers of two, it equals `index`.
    pub fn apic_id(&self, index: u32) -> u32 {
        let (core, thread) = (index / self.per_core(), index % self.per_core());
        let cores = u32::from(self.cores_per_socket);
        let (socket, core) = (core / cores, core % cores);
        thread | core << self.thread_bits() | socket << self.socket_shift()
    }

    /// The highest APIC id of any vCPU.
    pub fn last_apic_id(&self) -> u32 {
        self.apic_id(self.count() - 1)
    }

    /// Whether any processor is only reachable in x2APIC mode.
    pub fn needs_x2apic(&self) -> bool {
        self.last_apic_id() >= FIRST_X2APIC_ID
    }

    /// Number of APIC id bits for the thread in a core.
    pub(super) fn thread_bits(&self) -> u32 {
        bits(self.threads_per_core)
    }

    /// Number of APIC id bits for the core in a socket.
    pub(super) fn core_bits(&self) -> u32 {
        bits(self.cores_per_socket)
    }

    /// Number of APIC id bits below the socket.
    pub(super) fn socket_shift(&self) -> u32 {
        self.thread_bits() + self.core_bits()
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: u16, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let (sockets, cores) = (counted(self.sockets, "socket"), counted(self.cores_per_socket, "core"));
        write!(f, "{sockets} of {cores} of {}", counted(self.threads_per_core, "thread"))
    }
}

/// Number of bits needed to number `count` things.
fn bits(count: u16) -> u32 {
    u32::from(count).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(topology: Topology) -> Vec<u32> {
        (0..topology.count()).map(|index| topology.apic_id(index)).collect()
    }

    #[test]
    fn apic_ids_of_powers_of_two_are_the_numbers() {
        assert_eq!(ids(Topology::new(2, 2, 2).unwrap()), Vec::from_iter(0..8));
        assert_eq!(ids(Topology::one_socket(6)), Vec::from_iter(0..6));
    }

    #[test]
    fn apic_ids_of_three_cores_skip_the_fourth() {
        let topology = Topology::new(2, 3, 2).unwrap();
        assert_eq!(ids(topology), [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
        assert_eq!(topology.last_apic_id(), 13);
    }

    #[test]
    fn x2apic_is_needed_from_id_255_on() {
        assert!(!Topology::one_socket(255).needs_x2apic());
        assert!(Topology::one_socket(256).needs_x2apic());
        // 129 cores take 8 bits, so the second socket's first id is 256.
        assert!(Topology::new(1, 129, 2).unwrap().needs_x2apic());
    }

    #[test]
    fn topology_without_processors_or_with_too_many_is_none() {
        assert_eq!(Topology::new(0, 1, 1), None);
        assert_eq!(Topology::new(u16::MAX, u16::MAX, 2), None);
        // 2^31 processors would have ids up to 2^31 - 1, which fit; one more field bit is refused.
        assert_eq!(Topology::new(0x8001, 0x8001, 1), None);
    }

    #[test]
    fn topology_is_told_in_words() {
        assert_eq!(Topology::new(2, 1, 3).unwrap().to_string(), "3 sockets of 1 core of 2 threads");
    }

    proptest! {
        #[test]
        fn apic_ids_ascend_and_name_the_socket(threads in 1_u16..9, cores in 1_u16..20, sockets in 1_u16..9) {
            let topology = Topology::new(threads, cores, sockets).unwrap();
            let ids = ids(topology);
            prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
            let socket = |index: u32| topology.apic_id(index) >> topology.socket_shift();
            prop_assert!((0..topology.count()).all(|index| socket(index) == index / topology.per_socket()));
        }
    }
}
