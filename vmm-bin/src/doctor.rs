//! Reports what this host lacks: for machines, and for the sandbox.

use std::io;

use vmm_machine::doctor::{Finding, Host};
use vmm_sandbox::{Wall, WallState, probe};

/// The result of all checks.
pub(crate) struct Report {
    /// What is printed.
    pub(crate) text: String,
    /// Whether machines can run. A wall of the sandbox may be missing: the monitor then runs without it, unless it is required.
    pub(crate) is_healthy: bool,
}

impl Report {
    /// Inspects this host, as far as this user may use it.
    pub(crate) fn of_host() -> Self {
        Self::new(&Host::probe().findings(), probe())
    }

    fn new(findings: &[Finding], walls: io::Result<Vec<Wall>>) -> Self {
        let findings_text = findings.iter().map(|finding| format!("{finding}\n"));
        let walls = match walls {
            Ok(walls) => walls.iter().map(line).collect(),
            Err(error) => format!("WARN  sandbox: can't be tried: {error}\n"),
        };
        Self {
            text: findings_text.chain([walls]).collect(),
            is_healthy: findings.iter().all(|finding| finding.remedy.is_none()),
        }
    }
}

fn line(Wall { name, state }: &Wall) -> String {
    match state {
        WallState::Up { detail } => format!("ok    sandbox: {name}: {detail}\n"),
        WallState::Missing { why, remedy } => {
            format!("WARN  sandbox: {name}: missing: {why}\n      {remedy}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(remedy: Option<&str>) -> Finding {
        Finding { text: "/dev/kvm: x".to_owned(), remedy: remedy.map(str::to_owned) }
    }

    fn wall(state: WallState) -> io::Result<Vec<Wall>> {
        Ok(vec![Wall { name: "namespaces".to_owned(), state }])
    }

    #[test]
    fn wall_that_is_missing_is_a_warning_with_its_remedy_and_machines_can_run() {
        let missing = WallState::Missing { why: "EPERM".to_owned(), remedy: "ask root".to_owned() };
        let report = Report::new(&[finding(None)], wall(missing));
        let expected = "ok    /dev/kvm: x\nWARN  sandbox: namespaces: missing: EPERM\n      ask root\n";
        assert_eq!((report.text.as_str(), report.is_healthy), (expected, true));
    }

    #[test]
    fn wall_that_stands_makes_no_host_healthy() {
        let up = WallState::Up { detail: "an empty root".to_owned() };
        let report = Report::new(&[finding(Some("load it"))], wall(up));
        let expected = "FAIL  /dev/kvm: x\n      load it\nok    sandbox: namespaces: an empty root\n";
        assert_eq!((report.text.as_str(), report.is_healthy), (expected, false));
    }

    #[test]
    fn sandbox_that_cannot_be_tried_is_a_warning() {
        let report = Report::new(&[finding(None)], Err(io::Error::other("no process")));
        assert!(report.text.ends_with("WARN  sandbox: can't be tried: no process\n"), "{}", report.text);
        assert!(report.is_healthy);
    }
}
