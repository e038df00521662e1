//! Files with another path and separate locks through a mount.

use std::fs::{File, create_dir};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Trial};
use serde_json::json;
use tempfile::TempDir;

use crate::disk::*;

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name: &'static str, test: fn(&Overlay) -> Result<(), String>| {
        Trial::ignorable_test(name, move || match Overlay::mount().and_then(|overlay| test(&overlay)) {
            Ok(()) => Ok(Completion::Completed),
            Err(why) => Ok(Completion::ignored_with(why)),
        })
    };
    vec![
        trial("file_of_an_overlay_is_written_by_one_of_its_names_alone", |overlay| {
            one_name(overlay);
            Ok(())
        }),
        trial("file_of_an_overlay_is_not_written_by_a_loop_device", by_loop_device),
    ]
}

/// A name that overlayfs escapes.
const UPPER: &str = "up,per";

/// An overlay file system with `disk.img` in its upper directory, mounted at `merged a`. Few hosts permit
/// that to ordinary users.
struct Overlay(TempDir);

impl Overlay {
    fn mount() -> Result<Self, String> {
        let overlay = Self(TempDir::new().unwrap());
        let directories = ["lower", UPPER, "work", "merged a"].map(|name| overlay.path(name));
        directories.iter().for_each(|directory| create_dir(directory).unwrap());
        File::create(overlay.path(UPPER).join("disk.img")).unwrap().set_len(1 << 20).unwrap();
        File::create(overlay.path("beside.img")).unwrap().set_len(1 << 20).unwrap();
        let [lower, upper, work, merged] = directories;
        let upper = upper.display().to_string().replace(',', "\\,");
        let options = format!("lowerdir={},upperdir={upper},workdir={}", lower.display(), work.display());
        let output =
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(merged).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        match output.status.success() {
            true => Ok(overlay),
            false => Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn unmount(&self) {
        // After the unmount, umount reports exactly this.
        let _ = Command::new("umount").arg(self.path("merged a")).output();
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn open(path: &Path, read_only: bool) -> Result<(), String> {
    let opened = try_open(json!({"path": path, "format": "raw", "read_only": read_only}));
    opened.map(drop).map_err(|error| error.to_string())
}

fn one_name(overlay: &Overlay) {
    let (upper, merged) = (overlay.path(UPPER).join("disk.img"), overlay.path("merged a/disk.img"));
    let link = overlay.path("link");
    std::os::unix::fs::symlink(&upper, &link).unwrap();
    let refusal = |path: &Path| {
        Err(format!(
            ".path: {} lies in the upper directory of the overlay file system at {}, where its locks aren't seen: name it by its \
             path there, or unmount that",
            path.display(),
            overlay.path("merged a").display()
        ))
    };
    assert_eq!(open(&upper, false), refusal(&upper));
    assert_eq!(open(&link, false), refusal(&link));
    assert_eq!(
        [open(&upper, true), open(&merged, false), open(&overlay.path("beside.img"), false)],
        [const { Ok(()) }; 3]
    );
    overlay.unmount();
    assert_eq!(open(&upper, false), Ok(()));
}

fn by_loop_device(overlay: &Overlay) -> Result<(), String> {
    let output =
        Command::new("losetup").args(["--show", "--find"]).arg(overlay.path(UPPER).join("disk.img")).output();
    let output = output.map_err(|error| format!("losetup: {error}"))?;
    if !output.status.success() {
        return Err(format!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let refused = open(&device, false);
    overlay.unmount();
    let opened = open(&device, false);
    let _ = Command::new("losetup").arg("--detach").arg(&device).output();
    let refused = refused.unwrap_err();
    let problem = format!(
        "lies in the upper directory of the overlay file system at {}",
        overlay.path("merged a").display()
    );
    assert!(refused.contains(&problem), "{refused}");
    assert_eq!(opened, Ok(()));
    Ok(())
}
