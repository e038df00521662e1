//! Plans of machines whose processors are grouped.

use crate::{assert_golden, bzimage, plan};

/// Three cores take two bits of an APIC id, so that the second socket's begin at 4.
#[test]
fn plan_of_processors_in_two_sockets_is_as_recorded() {
    let json = r#"{"boot": {"kernel": "kernel"}, "memory": {"size": "32M"}, "cpus": {"count": 6, "cores_per_socket": 3,
                   "affinity": [[0], [1], [2, 3], [2, 4], [5], [0, 1, 2]]}}"#;
    assert_golden("bzimage-two-sockets-32m.txt", &plan(&bzimage(), json));
}

/// 150 cores take eight bits of an APIC id.
#[test]
fn plan_of_300_processors_has_room_for_their_tables() {
    let json = r#"{"boot": {"kernel": "kernel"}, "cpus": {"count": 300, "sockets": 2}}"#;
    let text = plan(&bzimage(), json);
    let expected = "vcpus: 300, 2 sockets of 150 cores of 1 thread\n  APIC ids 0-149,256-405\n";
    assert!(text.starts_with(expected), "{text}");
}
