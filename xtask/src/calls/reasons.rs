//! The list of reasons for permissions that no test needs.

use std::collections::BTreeMap;

use super::roles::Role;
use crate::failure::Failure;

/// Instead of a permission: those that another role has too, which needs them or has a reason.
const OTHERS: &str = "others";

/// A line such as `vq-block,io-block fsync: the file system doesn't support fdatasync`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason {
    roles: Vec<String>,
    permission: String,
    text: String,
}

/// Parses the list: a reason a line; empty lines and those that begin with `#` are comments.
pub(super) fn parse(text: &str) -> Result<Vec<Reason>, Failure> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|line| reason(line).ok_or_else(|| format!("no reason: {line}").into())).collect()
}

fn reason(line: &str) -> Option<Reason> {
    let (what, text) = line.split_once(": ")?;
    let (roles, permission) = what.split_once(' ')?;
    let has_text = !text.trim().is_empty();
    has_text.then(|| Reason {
        roles: roles.split(',').map(str::to_owned).collect(),
        permission: permission.to_owned(),
        text: text.trim().to_owned(),
    })
}

impl Reason {
    fn names(&self, role: &str) -> bool {
        self.roles.iter().any(|name| name == role)
    }

    fn explains(&self, role: &str, permission: &str, roles: &BTreeMap<&str, Role>) -> bool {
        if !self.names(role) {
            return false;
        }
        let is_of_another = || {
            let mut others = roles.iter().filter(|(name, _)| !self.names(name));
            others.any(|(_, other)| other.contains_key(permission))
        };
        self.permission == permission || self.permission == OTHERS && is_of_another()
    }
}

/// The outcome of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Permissions that no thread needed and that have no reason.
    pub(super) unexplained: Vec<String>,
    /// Reasons for what was needed, or isn't permitted.
    pub(super) stale: Vec<String>,
    /// For each role: how many permissions it has, and how many of them have only a reason.
    pub(super) counts: Vec<(String, usize, usize)>,
}

/// Looks for the reasons of what wasn't needed.
pub(super) fn compare(roles: &BTreeMap<&str, Role>, reasons: &[Reason]) -> Comparison {
    let mut comparison = Comparison::default();
    let mut is_used = vec![false; reasons.len()];
    for (name, role) in roles {
        let unneeded: Vec<_> =
            role.iter().filter(|(_, is_needed)| !**is_needed).map(|(one, _)| one).collect();
        comparison.counts.push(((*name).to_owned(), role.len(), unneeded.len()));
        for permission in unneeded {
            let mut is_explained = false;
            for (reason, is_used) in reasons.iter().zip(&mut is_used) {
                let explains = reason.explains(name, permission, roles);
                is_explained |= explains;
                *is_used |= explains;
            }
            if !is_explained {
                comparison.unexplained.push(format!("{name} {permission}"));
            }
        }
    }
    let stale = reasons.iter().zip(is_used).filter(|(_, is_used)| !is_used);
    comparison.stale.extend(
        stale.map(|(reason, _)| format!("{} {}: {}", reason.roles.join(","), reason.permission, reason.text)),
    );
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(permissions: &[(&str, bool)]) -> Role {
        permissions.iter().map(|(name, is_needed)| ((*name).to_owned(), *is_needed)).collect()
    }

    fn compared(reasons: &str) -> Comparison {
        let roles = BTreeMap::from([
            ("main", role(&[("read", true), ("fsync", false), ("brk", false), ("ioctl 1=0x1277", false)])),
            ("vq-block", role(&[("read", true), ("fsync", false)])),
        ]);
        compare(&roles, &parse(reasons).unwrap())
    }

    #[test]
    fn unneeded_permission_without_a_reason_is_unexplained() {
        let found = compared("main brk: it may grow\nmain,vq-block fsync: old kernels\n");
        assert_eq!(found.unexplained, ["main ioctl 1=0x1277"]);
        assert_eq!(found.counts, [("main".to_owned(), 4, 3), ("vq-block".to_owned(), 2, 1)]);
    }

    #[test]
    fn reason_holds_for_its_roles_and_for_the_whole_permission_only() {
        let found =
            compared("vq-block,io-block fsync: old kernels\nmain ioctl: devices\nmain brk: it may grow\n");
        assert_eq!(found.unexplained, ["main fsync", "main ioctl 1=0x1277"]);
    }

    #[test]
    fn reason_for_others_holds_for_what_another_role_has() {
        let found = compared("main others: it has the lists of all\nvq-block fsync: old kernels\n");
        assert_eq!(found.unexplained, ["main brk", "main ioctl 1=0x1277"]);
        let found = compared("main,vq-block others: all\n");
        assert_eq!(found.unexplained.len(), 4);
    }

    #[test]
    fn reason_for_what_is_needed_or_not_permitted_is_stale() {
        let found = compared("main read: files\nmain brk: it may grow\nvq-net brk: it may grow\n");
        assert_eq!(found.stale, ["main read: files", "vq-net brk: it may grow"]);
    }

    #[test]
    fn comments_are_no_reasons_and_a_line_without_text_is_an_error() {
        assert_eq!(parse("# of all\n\n* brk: it may grow").unwrap().len(), 1);
        assert!(parse("* brk: ").is_err() && parse("* brk").is_err() && parse("brk: it may grow").is_err());
    }
}
