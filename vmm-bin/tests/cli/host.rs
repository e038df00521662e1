//! Hosts without /dev/kvm, without permission to open it, or without namespaces, simulated by namespaces.

use std::process::Command;

use crate::bench::{Bench, HOST_CANT, RunResult, complaint, finish};

/// A script that hides /dev/kvm and runs its arguments.
const MISSING: &str = r#"mount -t tmpfs none /dev && exec "$0" "$@""#;
/// A script that runs its arguments with a /dev/kvm that nobody may open, and without the capability to override that.
const FORBIDDEN: &str = r#"mount -t tmpfs none /dev && touch /dev/kvm && chmod 0 /dev/kvm && exec setpriv --bounding-set -all "$0" "$@""#;
/// A script that runs its arguments where nobody gets another mount namespace.
const NO_NAMESPACES: &str = r#"echo 0 >/proc/sys/user/max_mnt_namespaces && exec "$0" "$@""#;
/// A script that only runs its arguments.
const UNCHANGED: &str = r#"exec "$0" "$@""#;

/// Runs the program in its own mount namespace, prepared by `script`. `None`, with the reason on standard error, if the host doesn't
/// allow user namespaces.
fn run_on(script: &str, args: &[&str]) -> Option<RunResult> {
    let namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
    let probe = Command::new(namespace[0]).args(&namespace[1..]).args([script, "true"]).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this host gives no user namespace with setpriv: {probe:?}");
        return None;
    }
    Some(finish(Bench::new().launch(args).wrapped(namespace.into_iter().chain([script]))))
}

#[test]
fn kvm_missing_is_told_with_what_to_do() {
    let Some(ran) = run_on(MISSING, &["--kernel", "kernel"]) else { return };
    let message =
        "no /dev/kvm on this host: load kvm_intel or kvm_amd, or switch virtualization on in the firmware";
    assert_eq!(ran, complaint(HOST_CANT, message));
}

#[test]
fn kvm_without_permission_is_told_with_what_to_do() {
    let Some(ran) = run_on(FORBIDDEN, &["--kernel", "kernel"]) else { return };
    let message = "no permission to open /dev/kvm: join its group, if that is kvm (`ls -l /dev/kvm`), or else give it that group: \
         `sudo chgrp kvm /dev/kvm && sudo chmod g+rw /dev/kvm`";
    assert_eq!(ran, complaint(HOST_CANT, message));
}

#[test]
fn doctor_without_kvm_fails_and_says_so() {
    let Some(ran) = run_on(MISSING, &["doctor"]) else { return };
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(HOST_CANT), ""));
    assert!(ran.stdout.contains("FAIL  /dev/kvm: missing\n"), "{}", ran.stdout);
}

#[test]
fn doctor_without_permission_fails_and_says_so() {
    let Some(ran) = run_on(FORBIDDEN, &["doctor"]) else { return };
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(HOST_CANT), ""));
    assert!(ran.stdout.contains("FAIL  /dev/kvm: no permission\n"), "{}", ran.stdout);
}

/// What can't be had is a warning: machines run without it.
#[test]
fn doctor_names_walls_of_the_sandbox_that_are_missing_and_what_to_do() {
    let Some(ran) = run_on(NO_NAMESPACES, &["doctor"]) else { return };
    let missing = "WARN  sandbox: namespaces: missing: new namespaces (unshare): ENOSPC: No space left on device\n      \
                   a limit of namespaces is reached: as root, sysctl -w user.max_user_namespaces=10000";
    assert!(ran.stdout.contains(missing), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
    let Some(other) = run_on(UNCHANGED, &["doctor"]) else { return };
    assert!(other.stdout.contains("\nok    sandbox: namespaces: an empty root; "), "{}", other.stdout);
    assert!(other.stdout.contains("\nok    sandbox: privileges: "), "{}", other.stdout);
    assert_eq!(ran.code, other.code);
}

#[test]
fn check_needs_no_kvm() {
    let Some(ran) = run_on(MISSING, &["--kernel", "kernel", "--check"]) else { return };
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}
