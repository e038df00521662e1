//! What the threads of each role may call, and what they called.

use std::collections::{BTreeMap, BTreeSet};

use vmm_sandbox::call_name;

use super::filter::{Permission, Test};
use super::trace::Applied;

/// The names of threads, without a number at their end. A device's thread is named after its ID, by default its type and a number; one
/// with another ID has the role of a thread with the same filter.
const ROLES: [&str; 15] = [
    MAIN,
    "control",
    "control-close",
    "writer",
    "reader",
    "vcpu",
    "path-keeper",
    "vq-block",
    "io-block",
    "vq-net",
    "vq-vsock",
    "vq-rng",
    "vq-balloon",
    "vq-pmem",
    "vq-console",
];
const MAIN: &str = "main";
/// Other names of threads, with their roles: one that has the list of the main thread, and those of devices with an ID in the tests.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("jobs", MAIN),
    ("vq-agent", "vq-vsock"),
    ("vq-data", "vq-block"),
    ("vq-lan", "vq-net"),
    ("vq-mem", "vq-pmem"),
    ("vq-v", "vq-vsock"),
];

/// A permission by name: `futex`, `ioctl 1=0xae80`, `mmap 2&0x4=0x0`, `tgkill 0=own` for the number of the thread's process.
pub(super) type Name = String;

/// Instead of a role's name: that of the permissions that all roles have.
pub(super) const ALL: &str = "*";

/// What a role's filters permit, and whether any of its threads needed it.
pub(super) type Role = BTreeMap<Name, bool>;

/// The filters of many runs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By thread name and permissions: those that were needed.
    filters: BTreeMap<(String, BTreeSet<Name>), BTreeSet<Name>>,
    /// Calls outside filters, with the thread's name.
    pub(super) violations: BTreeSet<String>,
}

impl Seen {
    pub(super) fn add(&mut self, applied: &Applied) {
        let thread = applied.thread.trim_end_matches(|last: char| last.is_ascii_digit()).to_owned();
        let name = |permission: &Permission| name_of(permission, applied.process);
        let lines = applied.violations().into_iter().map(|call| format!("{thread}: {call}"));
        self.violations.extend(lines);
        let permitted = applied.permissions.iter().map(name).collect();
        self.filters.entry((thread, permitted)).or_default().extend(applied.met().iter().map(name));
    }

    /// The roles, with what they share as that of [`ALL`], and what is wrong with the threads: one whose role isn't known, and a role
    /// without a thread.
    pub(super) fn roles(&self) -> (BTreeMap<&str, Role>, Vec<String>) {
        let mut roles: BTreeMap<&str, Role> = BTreeMap::new();
        let mut problems = Vec::new();
        let named = |thread: &str| {
            let other = OTHER_NAMES.into_iter().find(|(name, _)| *name == thread);
            let name = other.map_or(thread, |(_, role)| role);
            ROLES.into_iter().find(|role| *role == name)
        };
        let alike: BTreeMap<_, _> =
            self.filters.keys().filter_map(|(thread, permitted)| Some((permitted, named(thread)?))).collect();
        for ((thread, permitted), needed) in &self.filters {
            let Some(name) = named(thread).or_else(|| alike.get(permitted).copied()) else {
                problems.push(format!("the thread {thread} has no known role and no known role's filter"));
                continue;
            };
            let role = roles.entry(name).or_default();
            for one in permitted {
                *role.entry(one.clone()).or_default() |= needed.contains(one);
            }
        }
        let unseen = ROLES.into_iter().filter(|role| !roles.contains_key(role));
        problems.extend(unseen.map(|role| format!("no thread has the role {role}")));
        let shared = take_shared(&mut roles);
        roles.insert(ALL, shared);
        (roles, problems)
    }
}

/// Removes the permissions that all roles have: they are of a list that is part of each filter, and one role that needs them is enough.
fn take_shared(roles: &mut BTreeMap<&str, Role>) -> Role {
    let Some(first) = roles.values().next().cloned() else { return Role::new() };
    let is_shared = |name: &Name| roles.values().all(|role| role.contains_key(name));
    let names: Vec<Name> = first.into_keys().filter(is_shared).collect();
    let mut needed = |name: Name| {
        let needed: Vec<bool> = roles.values_mut().filter_map(|role| role.remove(&name)).collect();
        (name, needed.contains(&true))
    };
    names.into_iter().map(&mut needed).collect()
}

fn name_of(permission: &Permission, process: u32) -> Name {
    let call = call_name(permission.call).map_or_else(|| permission.call.to_string(), str::to_owned);
    match permission.test {
        None => call,
        // Other calls have arguments that may happen to be the same.
        Some(Test { argument, mask: u32::MAX, value }) if value == process && call == "tgkill" => {
            format!("{call} {argument}=own")
        }
        Some(Test { argument, mask: u32::MAX, value }) => format!("{call} {argument}={value:#x}"),
        Some(Test { argument, mask, value }) => format!("{call} {argument}&{mask:#x}={value:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(filters: &[(&str, &[&str], &[&str])]) -> Seen {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<Name>>();
        let filter = |(thread, permitted, needed): &(&str, &[&str], &[&str])| {
            (((*thread).to_owned(), names(permitted)), names(needed))
        };
        Seen { filters: filters.iter().map(filter).collect(), violations: BTreeSet::new() }
    }

    #[test]
    fn thread_with_another_id_has_the_role_of_the_same_filter() {
        let seen = seen(&[
            ("main", &["read"], &[]),
            ("vq-block", &["read", "fsync"], &[]),
            ("vq-my disk", &["read", "fsync"], &["fsync"]),
            ("vq-x", &["read", "flock"], &[]),
        ]);
        let (roles, problems) = seen.roles();
        assert_eq!(roles["vq-block"], Role::from([("fsync".to_owned(), true)]));
        assert_eq!(problems[0], "the thread vq-x has no known role and no known role's filter");
        assert!(problems.contains(&"no thread has the role vcpu".to_owned()), "{problems:?}");
    }

    #[test]
    fn filters_of_a_role_are_one_whatever_they_permit() {
        let seen = seen(&[("vq-net", &["read"], &["read"]), ("vq-net", &["sendto"], &[])]);
        let (roles, _) = seen.roles();
        assert_eq!(roles["vq-net"].len() + roles[ALL].len(), 2);
    }

    #[test]
    fn permission_of_all_roles_is_needed_if_one_needs_it() {
        let seen =
            seen(&[("main", &["read", "brk", "kill"], &["read", "kill"]), ("vcpu", &["read", "brk"], &[])]);
        let (roles, _) = seen.roles();
        assert_eq!(roles[ALL], Role::from([("brk".to_owned(), false), ("read".to_owned(), true)]));
        assert_eq!(roles["main"], Role::from([("kill".to_owned(), true)]));
        assert!(roles["vcpu"].is_empty());
    }

    #[test]
    fn permissions_are_named_by_call_and_condition() {
        let name = |argument, mask, value| {
            name_of(&Permission { call: 16, test: Some(Test { argument, mask, value }) }, 4711)
        };
        let to_process =
            Permission { call: 234, test: Some(Test { argument: 0, mask: u32::MAX, value: 4711 }) };
        assert_eq!(name_of(&Permission { call: 0, test: None }, 4711), "read");
        assert_eq!(name(1, u32::MAX, 0xae80), "ioctl 1=0xae80");
        assert_eq!(name(2, 4, 0), "ioctl 2&0x4=0x0");
        assert_eq!(name_of(&to_process, 4711), "tgkill 0=own");
        assert_eq!(name(1, u32::MAX, 4711), "ioctl 1=0x1267", "by chance");
    }
}
