//! Each crate of the product can be published: its manifest has what the registry shows, and its package the README and both
//! licences. Nothing is built, and nothing is fetched.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::rules::{CATEGORIES, TOOL_LAYER, rule_of};
use super::sources::{Package, packages};
use super::verdict::Verdict;
use crate::failure::Failure;
use crate::workspace::{cargo, root, target_dir};

/// What every package holds: the file, and where the text comes from, the crate or the workspace.
const FILES: [(&str, Origin); 3] =
    [("README.md", Origin::Crate), ("LICENSE-APACHE", Origin::Workspace), ("LICENSE-MIT", Origin::Workspace)];

/// Limits of the registry.
const KEYWORDS_MAX: usize = 5;
const KEYWORD_LEN_MAX: usize = 20;

#[derive(Clone, Copy)]
enum Origin {
    Crate,
    Workspace,
}

pub(super) fn check() -> Result<Verdict, Failure> {
    let packages = packages()?;
    let products: Vec<&Package> = packages.iter().filter(|package| is_product(&package.name)).collect();
    let mut problems: Vec<String> = products.iter().flat_map(|package| problems_of(package)).collect();
    problems.extend(packages.iter().filter(|package| !is_product(&package.name)).filter_map(published));
    if !problems.is_empty() {
        return Ok(Verdict::Fail(problems));
    }
    if let Some(refusal) = pack(&products)? {
        return Ok(Verdict::Fail(refusal));
    }
    for package in &products {
        problems.extend(missing(package)?);
    }
    Ok(Verdict::from_problems(problems, || {
        format!("{} crates can be published, with README and licences", products.len())
    }))
}

/// Whether users depend on it, as opposed to tests and tools.
fn is_product(name: &str) -> bool {
    rule_of(name).is_some_and(|rule| rule.layer < TOOL_LAYER)
}

fn published(package: &Package) -> Option<String> {
    let is_private = package.publish.as_ref().is_some_and(Vec::is_empty);
    (!is_private).then(|| format!("{}: add publish.workspace = true", package.shown("Cargo.toml")))
}

/// What is missing in the manifest.
fn problems_of(package: &Package) -> Vec<String> {
    let (keywords, categories) = (&package.keywords, &package.categories);
    let is_keyword = |keyword: &String| keyword.len() <= KEYWORD_LEN_MAX;
    let wanted = [
        (package.publish.is_none(), "remove publish"),
        (package.description.is_some(), "add a description"),
        (package.license.is_some(), "add license.workspace = true"),
        (package.readme.as_deref() == Some(Path::new("README.md")), "add readme = \"README.md\""),
        (
            (1..=KEYWORDS_MAX).contains(&keywords.len()) && keywords.iter().all(is_keyword),
            "have 1 to 5 keywords, of 20 letters at most",
        ),
        (
            !categories.is_empty() && categories.iter().all(|slug| CATEGORIES.contains(&&**slug)),
            "have categories, of those in xtask/src/lint/rules.rs",
        ),
        (package.metadata["docs"]["rs"].is_object(), "add [package.metadata.docs.rs]"),
    ];
    let place = package.shown("Cargo.toml");
    wanted.iter().filter(|(is_so, _)| !is_so).map(|(_, advice)| format!("{place}: {advice}")).collect()
}

/// Makes the packages; what cargo said if it refuses. Changes that aren't committed are packed too.
fn pack(products: &[&Package]) -> Result<Option<Vec<String>>, Failure> {
    let mut command = cargo(&["package", "--quiet", "--offline", "--no-verify", "--allow-dirty"]);
    for package in products {
        command.args(["--package", &package.name]);
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()))
}

/// The files that its package lacks, or has with another text.
fn missing(package: &Package) -> Result<Vec<String>, Failure> {
    let stem = format!("{}-{}", package.name, package.version);
    let archive = target_dir().join("package").join(format!("{stem}.crate"));
    let mut problems = Vec::new();
    for (file, origin) in FILES {
        let source = match origin {
            Origin::Crate => package.dir().join(file),
            Origin::Workspace => root().join(file),
        };
        if packed(&archive, &format!("{stem}/{file}"))? != fs::read(source).ok() {
            problems.push(format!("{}: isn't in the package of {}", package.shown(file), package.name));
        }
    }
    Ok(problems)
}

/// The bytes of a file in an archive, if it has the file.
fn packed(archive: &Path, file: &str) -> Result<Option<Vec<u8>>, Failure> {
    let mut tar = Command::new("tar");
    let output =
        tar.args(["--extract", "--gzip", "--to-stdout", "--file"]).arg(archive).arg(file).output()?;
    Ok(output.status.success().then_some(output.stdout))
}
