use super::*;

/// The uses in the circles of these files, each as "USER uses NAMES of USED".
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let found = circles_in(&files.iter().copied().collect()).unwrap();
    let line = |edge: &Edge| format!("{} uses {} of {}", edge.user, edge.names.join(", "), edge.used);
    found.iter().flatten().map(line).collect()
}

#[test]
fn circles_files_that_import_each_other_are_one() {
    let found = circles(&[
        ("src/lib.rs", "mod image;\nmod elf;\n"),
        ("src/image.rs", "use crate::elf::Elf;\npub(crate) struct ImageError;\n"),
        ("src/elf.rs", "use crate::image::ImageError;\npub(crate) struct Elf;\n"),
    ]);
    assert_eq!(found, ["src/elf.rs uses ImageError of src/image.rs", "src/image.rs uses Elf of src/elf.rs"]);
}

#[test]
fn circles_error_below_both_is_none() {
    let found = circles(&[
        ("src/lib.rs", "mod image;\nmod elf;\nmod error;\n"),
        ("src/image.rs", "use crate::{elf::Elf, error::ImageError};\n"),
        ("src/elf.rs", "use crate::error::ImageError;\npub(crate) struct Elf;\n"),
        ("src/error.rs", "pub(crate) struct ImageError;\n"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn circles_reexport_hides_none() {
    let found = circles(&[
        ("src/lib.rs", "mod image;\nmod elf;\npub use image::ImageError;\npub use elf::*;\n"),
        ("src/image.rs", "use crate::Elf;\npub struct ImageError;\n"),
        ("src/elf.rs", "use crate::ImageError;\npub struct Elf;\n"),
    ]);
    assert_eq!(found, ["src/elf.rs uses ImageError of src/image.rs", "src/image.rs uses Elf of src/elf.rs"]);
}

#[test]
fn circles_reexport_alone_makes_none() {
    let found = circles(&[
        ("src/lib.rs", "mod flat;\npub use flat::Image;\npub struct Role;\n"),
        ("src/flat/mod.rs", "mod image;\npub use image::Image;\n"),
        ("src/flat/image.rs", "use crate::Role;\npub struct Image;\n"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn circles_reexport_that_is_used_too_makes_one() {
    let found = circles(&[
        ("src/lib.rs", "mod flat;\npub use flat::Image;\npub struct Role;\nfn f(image: Image) {}\n"),
        ("src/flat.rs", "use super::Role;\npub struct Image;\n"),
    ]);
    assert_eq!(found, ["src/flat.rs uses Role of src/lib.rs", "src/lib.rs uses Image of src/flat.rs"]);
}

#[test]
fn circles_parent_that_calls_its_child_is_one() {
    let found = circles(&[
        ("src/main.rs", "mod test;\ntype Failure = String;\nfn main() { test::run() }\n"),
        ("src/test.rs", "pub(crate) fn run() -> super::Failure { todo!() }\n"),
    ]);
    assert_eq!(found, ["src/main.rs uses run of src/test.rs", "src/test.rs uses Failure of src/main.rs"]);
}

#[test]
fn circles_declared_child_that_uses_its_parent_is_none() {
    let found = circles(&[
        ("src/lib.rs", "mod child;\npub struct Parent;\n"),
        ("src/child.rs", "impl super::Parent { fn f(&self) {} }\n"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn circles_names_in_macros_attributes_and_through_modules_count() {
    let found = circles(&[
        ("src/lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("src/a.rs", "#[serde(with = \"crate::b::word\")]\npub struct A;\n"),
        ("src/b.rs", "use super::c;\npub fn word() { assert!(x, \"{}\", c::three()) }\n"),
        ("src/c.rs", "pub fn three() { fn inner() { use crate::a::A; } }\n"),
    ]);
    assert_eq!(
        found,
        ["src/a.rs uses word of src/b.rs", "src/b.rs uses three of src/c.rs", "src/c.rs uses A of src/a.rs"]
    );
}

#[test]
fn circles_of_parents_glob_count() {
    let found = circles(&[
        ("src/lib.rs", "mod a;\npub enum Kind { One }\nfn f() { a::g() }\n"),
        ("src/a.rs", "use super::*;\npub fn g(kind: Kind) {}\n"),
    ]);
    assert_eq!(found, ["src/a.rs uses Kind of src/lib.rs", "src/lib.rs uses g of src/a.rs"]);
}

#[test]
fn circles_through_what_a_macro_defines_count() {
    let found = circles(&[
        ("src/lib.rs", "mod a;\nmod b;\n"),
        ("src/a.rs", "number!(Port);\nfn f() { crate::b::g() }\n"),
        ("src/b.rs", "use crate::a::Port;\npub fn g() {}\n"),
    ]);
    assert_eq!(found, ["src/a.rs uses g of src/b.rs", "src/b.rs uses Port of src/a.rs"]);
}

#[test]
fn circles_in_tests_do_not_count() {
    let found = circles(&[
        ("src/lib.rs", "mod a;\n#[cfg(test)]\nmod testing;\n"),
        (
            "src/a.rs",
            "pub struct A;\n#[cfg(test)]\nuse crate::testing::f;\n#[cfg(test)]\nmod tests { use crate::testing::f; }\n\
             impl A { #[cfg(test)] fn g() { crate::testing::f() } }\n",
        ),
        ("src/testing.rs", "use crate::a::A;\npub fn f() {}\n"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn circles_modules_in_one_file_are_one_file() {
    let found = circles(&[(
        "src/lib.rs",
        "pub struct Outer;\nmod inner { use super::Outer; pub struct Inner; }\nfn f(inner: inner::Inner) {}\n",
    )]);
    assert_eq!(found, [""; 0]);
}
