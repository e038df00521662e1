//! Every `NAME.json` in `tests/fixtures/bad-configs` is rejected with exactly the message in its `NAME.err`.

use std::{ffi::OsStr, fs, path::Path};

use vmm_config::{ConfigFile, Overrides};

use crate::repository;

/// Number of fixtures when this was written: fewer means that the directory walk misses some.
const FIXTURES_AT_LEAST: usize = 240;

#[test]
fn bad_config_every_fixture_has_its_message() {
    let directory = repository("tests/fixtures/bad-configs");
    let mut entries: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let fixtures: Vec<_> =
        entries.iter().filter(|path| path.extension() == Some(OsStr::new("json"))).collect();

    let wrong: Vec<String> = fixtures.iter().filter_map(|path| difference(&directory, path)).collect();

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fixtures.len() >= FIXTURES_AT_LEAST, "only {} fixtures", fixtures.len());
    assert_eq!(entries.len(), 2 * fixtures.len(), "a .json without its .err, or the other way round");
}

/// How the message for the file `path` differs from the expected one; `None` if it doesn't.
fn difference(directory: &Path, path: &Path) -> Option<String> {
    let expected = fs::read_to_string(path.with_extension("err")).unwrap_or_default();
    let found = match ConfigFile::read(path).and_then(|file| file.merge(Overrides::default())) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    // The message contains the path as given, which for the fixture was relative to its directory.
    let prefix = format!("{}/", directory.display());
    let found = found.strip_prefix(&prefix).unwrap_or(&found);
    (found != expected.trim_end()).then(|| format!("expected: {}\nfound:    {found}", expected.trim_end()))
}
