//! What a process may give up for good, whatever its namespaces.

use std::io;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, getpid, getppid, kill_process, parent_process_death_signal,
    set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

/// Capabilities are numbered up to here at most, as the kernel keeps them in 64 bits.
const CAPABILITIES: u32 = 64;

/// Makes this process unable to get privileges again. Without CAP_SETPCAP the bounding set and the secure bits stay as they are, and
/// no_new_privs alone keeps a program with file capabilities from using them.
///
/// It comes before [`become_user`], which loses CAP_SETPCAP.
pub(crate) fn lock_out() -> io::Result<()> {
    for number in 0..CAPABILITIES {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The first that this kernel doesn't have, or no CAP_SETPCAP.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    match set_capabilities_secure_bits(bits) {
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives up everything but root's access to files of others: for a helper process that outlives the jail's beginning outside of it.
///
/// # Errors
/// The kernel refuses what it refuses to none.
pub fn keep_file_access() -> io::Result<()> {
    lock_out()?;
    clear_ambient_capability_set()?;
    let access = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER;
    let kept = capabilities(None)?.permitted & access;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Makes a process of root one of another user, without groups besides `gid`.
pub(crate) fn become_user(uid: u32, gid: u32) -> nix::Result<()> {
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// The signal that this process gets when its parent ends (PR_SET_PDEATHSIG). The kernel forgets it when credentials change.
pub(crate) struct ParentDeath {
    signal: Option<Signal>,
    parent: Option<Pid>,
}

impl ParentDeath {
    pub(crate) fn take() -> Self {
        // Fails only for a bad address.
        Self { signal: parent_process_death_signal().unwrap_or(None), parent: getppid() }
    }

    /// Sets it again, and raises it if the parent has ended meanwhile.
    pub(crate) fn restore(self) -> io::Result<()> {
        let Self { signal: Some(signal), parent } = self else { return Ok(()) };
        set_parent_process_death_signal(Some(signal))?;
        if getppid() != parent {
            kill_process(getpid(), signal)?;
        }
        Ok(())
    }
}

/// Gives up all capabilities, new privileges by execve, and being traced or dumped by processes of the same user.
pub(crate) fn give_up() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
