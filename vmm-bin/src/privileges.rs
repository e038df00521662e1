//! Privileges of the process.

/// Sets no_new_privs, so that a set-user-ID program started from here gains no privileges (Linux,
/// Documentation/userspace-api/no_new_privs.rst). The monitor starts no program, but an attacker who has taken it over might.
pub(crate) fn set_no_new_privileges() {
    // Can't fail since Linux 3.5.
    let _ = nix::sys::prctl::set_no_new_privs();
}
