//! Without features there are no warnings either, and none of the dependencies that features bring.

use super::cargo_checks::passes;
use super::rules::{OPTIONAL, WITH_FEATURES};
use super::verdict::Verdict;
use crate::failure::Failure;
use crate::workspace::{cargo, packages_arguments, succeed};

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut tree = cargo(&["tree", "--no-default-features", "--edges=normal", "--prefix=none"]);
    let output = tree.args(packages_arguments(&WITH_FEATURES)).output()?;
    succeed(output.status, "cargo tree --no-default-features")?;
    let problems = brought_in(&String::from_utf8_lossy(&output.stdout));
    if !problems.is_empty() {
        return Ok(Verdict::Fail(problems));
    }
    let mut clippy = cargo(&["clippy", "--quiet", "--no-default-features", "--all-targets"]);
    clippy.args(packages_arguments(&WITH_FEATURES)).args(["--", "-D", "warnings"]);
    passes(&mut clippy, &format!("no warnings without them, and no {}", OPTIONAL.join(", ")))
}

fn brought_in(tree: &str) -> Vec<String> {
    let has = |name: &&str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    let found = OPTIONAL.into_iter().filter(has);
    found.map(|name| format!("{name}: a build without features has it too (cargo tree -i {name})")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_that_is_off_but_whose_dependency_stays_is_a_problem() {
        let found = brought_in("vmm-bin v0.1.0 (/vmm/vmm-bin)\nimago v0.2.6\nlibc v0.2.180\n");
        assert_eq!(found, ["imago: a build without features has it too (cargo tree -i imago)"]);
        assert!(brought_in("vmm-hostio v0.1.0\nimago-like v1.0.0\n").is_empty());
    }
}
