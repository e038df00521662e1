//! What the monitor may become.

/// Lets nothing that the process starts have more rights than it has: a set-user-ID program gives none (Linux,
/// Documentation/userspace-api/no_new_privs.rst). The monitor starts no program; whoever takes it over may.
pub(crate) fn give_up() {
    // It can't fail since Linux 3.5.
    let _ = nix::sys::prctl::set_no_new_privs();
}
