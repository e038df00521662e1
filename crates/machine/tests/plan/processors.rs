//! Plans with sockets, cores and affinities.

use vmm_machine::{Error, Kinds};

use crate::{assert_golden, bzimage, plan, try_plan};

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

/// The limits that docs/config.md gives for `cpus.count`.
#[test]
fn plan_has_room_for_the_tables_of_1265_processors_in_one_socket_and_of_1254_in_sockets_of_three() {
    let planned = |count: u32, more: &str| {
        let json = format!(r#"{{"boot": {{"kernel": "kernel"}}, "cpus": {{"count": {count}{more}}}}}"#);
        try_plan(&bzimage(), &json, &Kinds::default())
    };
    planned(1265, "").unwrap();
    let error = planned(1266, "").unwrap_err();
    assert!(matches!(error, Error::Acpi(_)), "{error}");
    assert!(error.to_string().starts_with("cpus.count: too many processors"), "{error}");
    planned(1254, r#", "cores_per_socket": 3"#).unwrap();
    planned(1257, r#", "cores_per_socket": 3"#).unwrap_err();
}
