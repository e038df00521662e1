//! A crate depends only on crates of lower layers, and of those only on the ones that its rule names.

use super::rules::{CrateRule, TOOL_LAYER, Uses, rule_of, unknown};
use super::sources::{Dependency, Package, packages};
use super::verdict::Verdict;
use crate::failure::Failure;

pub(super) fn check() -> Result<Verdict, Failure> {
    let packages = packages()?;
    let problems = packages.iter().flat_map(problems_of).collect();
    Ok(Verdict::from_problems(problems, || format!("{} crates use only lower layers", packages.len())))
}

fn problems_of(package: &Package) -> Vec<String> {
    let Some(rule) = rule_of(&package.name) else { return vec![unknown(&package.name)] };
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    ours.filter_map(|dependency| problem(rule, dependency)).collect()
}

fn problem(user: &CrateRule, dependency: &Dependency) -> Option<String> {
    let Some(used) = rule_of(&dependency.name) else { return Some(unknown(&dependency.name)) };
    let is_for_tests = dependency.kind.as_deref() == Some("dev");
    if is_for_tests && used.layer == TOOL_LAYER {
        return None;
    }
    if used.layer >= user.layer {
        return Some(format!(
            "{} (layer {}) uses {} (layer {}): only lower layers may be used",
            user.name, user.layer, used.name, used.layer
        ));
    }
    match user.may_use {
        Uses::Only(names) if !is_for_tests && !names.contains(&used.name) => Some(format!(
            "{} uses {}, which its rule in xtask/src/lint/rules.rs doesn't list",
            user.name, used.name
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependency(name: &str, kind: Option<&str>) -> Dependency {
        Dependency { name: name.to_owned(), kind: kind.map(str::to_owned), path: Some("crates/x".into()) }
    }

    #[test]
    fn layer_upward_use_is_a_problem() {
        let found = problem(rule_of("vmm-bus").unwrap(), &dependency("vmm-kvm", None)).unwrap();
        assert_eq!(found, "vmm-bus (layer 0) uses vmm-kvm (layer 2): only lower layers may be used");
    }

    #[test]
    fn layer_lower_but_unlisted_use_is_a_problem() {
        assert!(problem(rule_of("vmm-kvm").unwrap(), &dependency("vmm-config", None)).is_some());
    }

    #[test]
    fn layer_listed_use_is_fine() {
        assert!(problem(rule_of("vmm-kvm").unwrap(), &dependency("vmm-memory", None)).is_none());
    }

    #[test]
    fn layer_rig_in_tests_is_fine() {
        assert!(problem(rule_of("vmm-kvm").unwrap(), &dependency("rig", Some("dev"))).is_none());
    }

    #[test]
    fn layer_unknown_crate_names_the_table() {
        let found = problem(rule_of("vmm-bin").unwrap(), &dependency("vmm-new", None)).unwrap();
        assert!(found.contains("CRATES in xtask/src/lint/rules.rs"), "{found}");
    }
}
