//! Files of a crate don't use each other in circles: a reader can take any of them with what lies below it, and no more.
//!
//! A file uses another where its code, outside tests, names what the other defines. A re-export is looked through: it is
//! neither a use by the file that has it nor a definition there. To declare a module isn't to use it, but a parent that names
//! what a child defines, while the child names what the parent defines, is a circle like any other. The cure is mostly to
//! put what both need into a file below both.

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
        format!("no files of {} crates use each other{}", packages.len() - left_out.len(), left_out.concat())
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

/// The lines about a circle: its uses, with the names.
fn shown(package: &Package, circle: &[Edge]) -> Vec<String> {
    let mut lines = vec![format!("{}: files use each other; put what they share below them:", package.name)];
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
