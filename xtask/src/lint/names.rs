//! A name means one type: no two crates export types of the same name at their roots, and each word in [`WORDS_OF_A_RUN`] names one
//! type in the whole workspace. Types in public modules don't count, because they are read together with the module's name.

use std::collections::BTreeMap;

use super::circles::ROOTS;
use super::circles::tree::Tree;
use super::rules::{SHARED_NAMES, TOOL_LAYER, WORDS_OF_A_RUN, rule_of};
use super::sources::packages;
use super::verdict::Verdict;
use crate::failure::Failure;

/// By the name of a type, the files that define one of that name.
type Definitions = BTreeMap<String, Vec<String>>;

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut exported = Definitions::new();
    let mut words = Definitions::new();
    for package in packages()? {
        let sources = package.sources()?;
        let files = sources.iter().map(|source| (source.path.as_str(), source.text.as_str())).collect();
        let is_tool = rule_of(&package.name).is_none_or(|rule| rule.layer >= TOOL_LAYER);
        for root in ROOTS.iter().filter(|root| sources.iter().any(|source| source.path == **root)) {
            let tree = Tree::read(&files, root).map_err(|problem| format!("{}: {problem}", package.name))?;
            let is_word = |(_, name): &(&str, &str)| WORDS_OF_A_RUN.contains(name);
            tree.items().filter(is_word).for_each(|(file, name)| note(&mut words, name, package.shown(file)));
            if !is_tool {
                let types = tree.exports().filter(|(_, name)| is_type(name));
                types.for_each(|(file, name)| note(&mut exported, name, package.shown(file)));
            }
        }
    }
    let mut problems = repeated(&words, &[]);
    problems.extend(repeated(&exported, SHARED_NAMES));
    problems.extend(unneeded(&exported, SHARED_NAMES));
    Ok(Verdict::from_problems(problems, || {
        format!("{} exported types, {} names shared for a reason", exported.len(), SHARED_NAMES.len())
    }))
}

fn note(definitions: &mut Definitions, name: &str, file: String) {
    definitions.entry(name.to_owned()).or_default().push(file);
}

/// Whether a name is that of a type, not of a constant, a function or a macro.
fn is_type(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.contains(|c: char| c.is_ascii_lowercase())
}

/// The problems with names of several types that aren't in `shared`.
fn repeated(definitions: &Definitions, shared: &[(&str, &str)]) -> Vec<String> {
    let is_shared = |name: &str| shared.iter().any(|(other, _)| *other == name);
    let repeated = definitions.iter().filter(|(name, files)| files.len() > 1 && !is_shared(name));
    repeated
        .map(|(name, files)| {
            format!("{name} names {} types, in {}: give them different names", files.len(), files.join(", "))
        })
        .collect()
}

/// The problems with names that needn't be in `shared`.
fn unneeded(definitions: &Definitions, shared: &[(&str, &str)]) -> Vec<String> {
    let is_repeated = |name: &str| definitions.get(name).is_some_and(|files| files.len() > 1);
    let unneeded = shared.iter().filter(|(name, _)| !is_repeated(name));
    unneeded.map(|(name, _)| format!("{name} names one type: remove it from SHARED_NAMES")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(name: &str) -> Definitions {
        let mut definitions = Definitions::new();
        note(&mut definitions, name, "a.rs".to_owned());
        note(&mut definitions, name, "b.rs".to_owned());
        definitions
    }

    #[test]
    fn name_of_two_types_is_a_problem_with_both_files() {
        let problem = "Flow names 2 types, in a.rs, b.rs: give them different names";
        assert_eq!(repeated(&two("Flow"), &[("Error", "")]), [problem]);
    }

    #[test]
    fn name_that_is_shared_for_a_reason_is_none() {
        assert!(repeated(&two("Error"), &[("Error", "of the crate")]).is_empty());
    }

    #[test]
    fn shared_name_of_one_type_is_a_problem() {
        let problem = "Error names one type: remove it from SHARED_NAMES";
        assert_eq!(unneeded(&two("Flow"), &[("Error", "")]), [problem]);
    }

    #[test]
    fn exports_are_what_the_root_publishes_of_its_own_crate() {
        let root =
            "mod a;\npub use a::Own;\npub use vmm_bus::Other;\nuse a::Hidden;\npub(crate) use a::Inner;";
        let text = "pub struct Own;\npub struct Hidden;\npub struct Inner;";
        let files = BTreeMap::from([("src/lib.rs", root), ("src/a.rs", text)]);
        let tree = Tree::read(&files, "src/lib.rs").unwrap();
        assert_eq!(tree.exports().collect::<Vec<_>>(), [("src/a.rs", "Own")]);
    }

    #[test]
    fn items_are_private_ones_too_but_not_those_of_tests() {
        let root = "enum Next {}\n#[cfg(test)]\nmod tests { struct Flow; }";
        let files = BTreeMap::from([("src/lib.rs", root)]);
        let tree = Tree::read(&files, "src/lib.rs").unwrap();
        assert_eq!(tree.items().collect::<Vec<_>>(), [("src/lib.rs", "Next")]);
    }

    #[test]
    fn types_are_told_from_constants_and_functions() {
        assert!(is_type("IoApic") && !is_type("KINDS") && !is_type("run"));
    }
}
