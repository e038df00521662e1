//! Addresses of cloud services for the cloud's own machines: metadata, credentials and agents.
//!
//! Whoever reaches one of these from a machine in the cloud may get that machine's name, user data and
//! credentials. Most are in a private or link-local network; some have a public address, which only the
//! cloud's own network routes to the service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A service's address and the document that lists it.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) address: IpAddr,
    #[allow(dead_code, reason = "for readers of the table; a test checks that each entry has one")]
    pub(crate) source: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, source: &'static str) -> Metadata {
    Metadata { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), source }
}

const fn v6(segments: [u16; 8], source: &'static str) -> Metadata {
    let [a, b, c, d, e, f, g, h] = segments;
    Metadata { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), source }
}

/// The addresses that clouds document. The special-purpose networks in `addresses.rs` cover many of them;
/// they are repeated so that this table is complete.
pub(crate) const METADATA: &[Metadata] = &[
    // Shared by AWS, Azure, Google, Oracle, DigitalOcean, Hetzner, OpenStack, Vultr, Akamai, IBM and more.
    v4(169, 254, 169, 254, "Amazon EC2 User Guide, Use instance metadata; Azure Instance Metadata Service"),
    v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254], "Amazon EC2 User Guide, Use instance metadata (IPv6)"),
    v4(169, 254, 170, 2, "Amazon ECS Developer Guide, Task metadata endpoint and task IAM role credentials"),
    v4(169, 254, 170, 23, "Amazon EKS User Guide, EKS Pod Identity Agent"),
    v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x23], "Amazon EKS User Guide, EKS Pod Identity Agent (IPv6)"),
    v4(168, 63, 129, 16, "Azure Virtual Network, What is IP address 168.63.129.16? (WireServer)"),
    v6(
        [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254],
        "Google Compute Engine, About VM metadata (IPv6-only instances)",
    ),
    v6([0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], "Oracle Cloud Infrastructure, Instance metadata (IPv6)"),
    v4(192, 0, 0, 192, "Oracle Cloud at Customer and Compute Classic, Instance metadata"),
    v4(100, 100, 100, 200, "Alibaba Cloud ECS, Instance metadata"),
    v6([0xfd00, 0x0100, 0, 0, 0, 0, 0x0100, 0x0200], "Alibaba Cloud ECS, Instance metadata (IPv6)"),
    v4(192, 80, 8, 124, "Equinix Metal (Packet), Metadata: the address of metadata.packet.net"),
    v4(169, 254, 0, 23, "Tencent Cloud CVM, Instance metadata: metadata.tencentyun.com"),
    v4(169, 254, 42, 42, "Scaleway, Instance metadata; cloud-init, Datasources, Scaleway"),
    v6([0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x42], "cloud-init, Datasources, Scaleway (IPv6)"),
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], "Akamai (Linode), Metadata service (IPv6)"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], "OpenStack Nova, Metadata service (IPv6)"),
];

/// Whether this is the address of a cloud's metadata or agent service.
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    METADATA.iter().any(|entry| entry.address == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wireserver_and_its_like_with_public_numbers_are_metadata() {
        assert!(is_metadata("168.63.129.16".parse().unwrap()));
        assert!(is_metadata("192.80.8.124".parse().unwrap()));
        assert!(!is_metadata("168.63.129.15".parse().unwrap()));
        assert!(!is_metadata("168.63.129.17".parse().unwrap()));
    }

    #[test]
    fn addresses_of_the_table_are_each_there_once_and_have_a_source() {
        let mut addresses: Vec<_> = METADATA.iter().map(|entry| entry.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), METADATA.len());
        assert!(METADATA.iter().all(|entry| !entry.source.is_empty()));
    }
}
