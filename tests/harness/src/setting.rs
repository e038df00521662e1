//! The settings in which tests run.

use std::path::PathBuf;

use driver::{LIBC_DIR, VMM_BIN, build_dynamic_monitor};
use libtest_mimic::Trial;
use rig::Assets;

/// Variable with the name of the setting in which a process runs tests; set for processes that the harness starts.
pub(crate) const SETTING: &str = "VMM_SETTING";

/// What surrounds a test. A test's kind is its setting's name, so that `-- as-user` selects the tests of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The user who started the tests, root in the rig, and the host's kernel or the rig's usual one.
    Usual,
    /// The monitor is started by an ordinary user, who may open /dev/kvm as a member of its group. If root runs the tests, they
    /// become that user as well, but keep root's capabilities to prepare what the monitor uses.
    AsUser,
    /// In the rig, whose kernel hasn't enabled Landlock.
    NoLandlock,
    /// Programs under test are linked dynamically and run with Debian's newest C library.
    NewestLibc,
}

impl Setting {
    pub(crate) const ALL: [Self; 4] = [Self::Usual, Self::AsUser, Self::NoLandlock, Self::NewestLibc];

    /// Its name, the kind of its tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::AsUser => "as-user",
            Self::NoLandlock => "no-landlock",
            Self::NewestLibc => "newest-libc",
        }
    }

    pub(crate) fn of_this_process() -> Option<Self> {
        let name = std::env::var(SETTING).ok()?;
        Self::ALL.into_iter().find(|setting| setting.name() == name)
    }

    pub(crate) fn has(self, test: &Trial) -> bool {
        test.kind() == self.name()
    }

    /// Fetches and builds what it needs, and returns the variables by which processes find it.
    pub(crate) fn prepare(self) -> Result<Vec<(&'static str, PathBuf)>, String> {
        match self {
            Self::Usual | Self::AsUser | Self::NoLandlock => Ok(Vec::new()),
            Self::NewestLibc => {
                let libc = Assets::here().newest_libc().map_err(|error| error.to_string())?;
                Ok(vec![(LIBC_DIR, libc), (VMM_BIN, build_dynamic_monitor())])
            }
        }
    }

    /// Parameters of the rig's kernel.
    pub(crate) fn kernel_parameters(self) -> &'static str {
        match self {
            Self::Usual | Self::AsUser | Self::NewestLibc => "",
            // Without `landlock`, which is the first of Debian's list.
            Self::NoLandlock => "lsm=lockdown,yama",
        }
    }

    /// Why no other machine than the rig has it.
    pub(crate) fn reason_for_rig(self) -> Option<&'static str> {
        (self == Self::NoLandlock).then_some("these tests need a kernel without Landlock")
    }
}
