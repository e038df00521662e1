use rustix::process::{DumpableBehavior, dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities, no_new_privs};
use vmm_sandbox::keep_file_access;

use crate::child::{As, passes};
use crate::jail::has_an_empty_bounding_set;

#[test]
fn process_that_keeps_access_to_files_keeps_nothing_else() {
    for user in [As::Tester, As::Ordinary] {
        passes("privileges::process_that_keeps_access_to_files_keeps_nothing_else", user, || {
            let before = capabilities(None).unwrap().permitted;
            let access = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER;

            keep_file_access().unwrap();

            let sets = capabilities(None).unwrap();
            let kept = before & access;
            assert_eq!(
                (sets.effective, sets.permitted, sets.inheritable),
                (kept, kept, CapabilitySet::empty())
            );
            assert!(no_new_privs().unwrap());
            assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
            if before.contains(CapabilitySet::SETPCAP) {
                has_an_empty_bounding_set();
            }
        });
    }
}
