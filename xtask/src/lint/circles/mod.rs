//! Files of a crate don't use each other in circles, so that each can be understood with only the files below it.
//!
//! A file uses another if its code, outside tests, names an item that the other defines. Re-exports are resolved: a re-export is
//! neither a use by its file nor a definition there. Declaring a module isn't a use, but a parent that names an item of its child,
//! which in turn names an item of the parent, is a circle like any other. The usual fix is to move what both need into a third file.

mod graph;
mod module;
mod tokens;
pub(super) mod tree;

use std::collections::BTreeMap;

use graph::Edge;
use tree::Tree;

use super::rules::WITH_CIRCLES;
use super::sources::{Package, packages};
use super::verdict::Verdict;
use crate::failure::Failure;

pub(super) const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];

pub(super) fn check() -> Result<Verdict, Failure> {
    let packages = packages()?;
    let mut problems = Vec::new();
    let mut left_out = Vec::new();
    for package in &packages {
        let found = circles_of(package)?;
        match WITH_CIRCLES.iter().find(|(name, _)| *name == package.name) {
            Some((name, reason)) => left_out.push(format!("; {name} has {}: {reason}", found.len())),
            None => problems.extend(found.iter().flat_map(|circle| shown(package, circle))),
        }
    }
    Ok(Verdict::from_problems(problems, || {
        format!("no circles in {} crates{}", packages.len() - left_out.len(), left_out.concat())
    }))
}

fn circles_of(package: &Package) -> Result<Vec<Vec<Edge>>, Failure> {
    let sources = package.sources()?;
    let files = sources.iter().map(|source| (source.path.as_str(), source.text.as_str())).collect();
    circles_in(&files).map_err(|problem| format!("{}: {problem}", package.name).into())
}

fn circles_in(files: &BTreeMap<&str, &str>) -> Result<Vec<Vec<Edge>>, String> {
    let mut circles = Vec::new();
    for root in ROOTS.iter().filter(|root| files.contains_key(**root)) {
        circles.extend(Tree::read(files, root)?.graph().circles());
    }
    Ok(circles)
}

/// The lines of a message about a circle: its uses, with the names.
fn shown(package: &Package, circle: &[Edge]) -> Vec<String> {
    let mut lines =
        vec![format!("{}: files use each other; move what they share to another file:", package.name)];
    lines.extend(circle.iter().map(|edge| {
        format!(
            "  {} uses {} of {}",
            package.shown(&edge.user),
            edge.names.join(", "),
            package.shown(&edge.used)
        )
    }));
    lines
}

#[cfg(test)]
mod tests;
