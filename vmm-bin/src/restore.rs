//! The config of a machine that is restored: that of the snapshot, with changes.

use std::path::Path;

use serde_json::{Map, Value};
use vmm_config::ConfigFile;
use vmm_machine::Restore;
use vmm_snapshot::Snapshot;

use crate::finish::Failure;
use crate::json_fields::set_field;
use crate::restore_args::{Place, RestoreArgs};

/// What `--set` may change: how the machine is connected to the host, and what follows its guest's reset. The rest is what the guest
/// has seen.
const CHANGEABLE: &[&str] = &[
    "boot.kernel",
    "boot.initrd",
    "boot.cmdline",
    "cpus.affinity",
    "devices",
    "on_reboot",
    "sandbox",
    "serial",
    "user",
];
/// What it may not change of a device.
const FIXED: &[&str] = &["type", "id", "slot"];

/// Opens the snapshot, and reads the config in it.
pub(crate) fn open(args: &RestoreArgs) -> Result<(ConfigFile, Restore), Failure> {
    let (snapshot, memory, directory) = match args.place().map_err(Failure::SnapshotPlace)? {
        Place::Directory(directory) => {
            (Snapshot::open(directory)?, directory.join("memory"), Some(directory))
        }
        // Without a directory there are no contents of disks: the guest goes on with its own.
        Place::Files { state, memory } => (Snapshot::open_files(state, memory)?, memory.to_owned(), None),
    };
    let restore = Restore::new(snapshot, memory.display().to_string(), args.loading(), args.clock())?;
    let mut fields = restore.config().clone();
    // The machine that was saved may still use it.
    fields.remove("control");
    let disks = directory.map(|directory| restore.saved_disks(directory)).unwrap_or_default();
    for (id, path) in disks.iter().filter(|(id, _)| !sets(&args.set, &format!("devices.{id}.path"))) {
        take_from_snapshot(&mut fields, id, path);
    }
    for change in &args.set {
        set(&mut fields, change).map_err(Failure::Set)?;
    }
    let text = format!("{:#}", Value::Object(fields));
    let mut file = ConfigFile::parse(&text, &args.config_file())?;
    // Only its directory matters from here on.
    file.origin = Some(restore.directory().join("snapshot"));
    Ok((file, restore))
}

/// Whether one of the changes is that of `field`.
fn sets(changes: &[String], field: &str) -> bool {
    changes.iter().any(|change| change.split_once('=').is_some_and(|(name, _)| name == field))
}

/// Connects a disk to its contents in the snapshot, which any number of machines may use: what the guest writes goes to a temporary overlay.
fn take_from_snapshot(fields: &mut Map<String, Value>, id: &str, path: &Path) {
    let Some(disk) = device(fields, id) else { return };
    disk.insert("path".to_owned(), path.to_string_lossy().into());
    disk.insert("overlay".to_owned(), "temp".into());
    // An overlay has neither.
    disk.remove("direct");
    disk.remove("io");
}

/// The fields of the device called `id`.
fn device<'a>(fields: &'a mut Map<String, Value>, id: &str) -> Option<&'a mut Map<String, Value>> {
    let devices = fields.get_mut("devices").and_then(Value::as_array_mut);
    let mut devices = devices.into_iter().flatten().filter_map(Value::as_object_mut);
    // A device without an id has that of its type.
    devices.find(|device| device.get("id").or(device.get("type")).is_some_and(|name| name == id))
}

/// Carries out a change, FIELD=VALUE.
fn set(fields: &mut Map<String, Value>, change: &str) -> Result<(), String> {
    let (field, text) = change.split_once('=').ok_or(format!("{change:?} isn't FIELD=VALUE"))?;
    let is_in =
        |name: &str| field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if !CHANGEABLE.iter().any(|name| is_in(name)) {
        let all = CHANGEABLE.join(", ");
        return Err(format!("{field}: a restore can't change it, only {all}"));
    }
    let Some(path) = field.strip_prefix("devices") else {
        return set_field(fields, field, text);
    };
    let (id, path) = path
        .strip_prefix('.')
        .and_then(|path| path.split_once('.'))
        .ok_or(format!("{field}: name a device and a field of it, such as devices.disk0.path"))?;
    if FIXED.contains(&path) {
        return Err(format!("{field}: a restore can't change it"));
    }
    match device(fields, id) {
        Some(device) => set_field(device, path, text),
        None => Err(format!("{field}: the machine has no device {id:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(changes: &[&str]) -> Result<Value, String> {
        let config = json!({
            "serial": "stdio", "memory": {"size": "512M"},
            "devices": [{"type": "block", "id": "disk0", "path": "a"}, {"type": "net", "tap": "t0"}]
        });
        let Value::Object(mut fields) = config else { unreachable!() };
        changes.iter().try_for_each(|change| set(&mut fields, change))?;
        Ok(Value::Object(fields))
    }

    #[test]
    fn host_side_is_changed() {
        let found =
            changed(&["serial=pty", "user.uid=7", "devices.disk0.path=/b", "devices.net.tap=t1"]).unwrap();
        let devices = json!([
            {"type": "block", "id": "disk0", "path": "/b"},
            {"type": "net", "tap": "t1"}
        ]);
        assert_eq!(found["devices"], devices);
        assert_eq!((&found["serial"], &found["user"]), (&json!("pty"), &json!({"uid": 7})));
    }

    #[test]
    fn saved_disk_is_the_base_of_an_overlay() {
        let disk =
            json!({"type": "block", "path": "a", "direct": true, "io": "threads", "cache": "writethrough"});
        let mut fields = Map::from_iter([("devices".to_owned(), json!([{"type": "rng"}, disk]))]);
        take_from_snapshot(&mut fields, "block", Path::new("/vm.snap/disks/block"));
        let expected = json!({"type": "block", "path": "/vm.snap/disks/block", "overlay": "temp", "cache": "writethrough"});
        assert_eq!(fields["devices"], json!([{"type": "rng"}, expected]));
    }

    #[test]
    fn disk_whose_path_is_set_is_not_taken_from_the_snapshot() {
        let changes = ["devices.a.path=b.img".to_owned(), "devices.b.overlay=temp".to_owned()];
        assert!(sets(&changes, "devices.a.path"));
        assert!(!sets(&changes, "devices.b.path"));
    }

    #[test]
    fn what_the_guest_has_seen_stays() {
        let refusal = |change| changed(&[change]).unwrap_err();
        assert!(
            refusal("memory.size=1G").starts_with("memory.size: a restore can't change it, only boot.kernel")
        );
        assert!(refusal("serials=pty").starts_with("serials: a restore can't change it"));
        assert_eq!(refusal("devices.disk0.type=net"), "devices.disk0.type: a restore can't change it");
        assert_eq!(
            refusal("devices.disk1.path=b"),
            "devices.disk1.path: the machine has no device \"disk1\""
        );
        assert_eq!(
            refusal("devices=[]"),
            "devices: name a device and a field of it, such as devices.disk0.path"
        );
        assert_eq!(refusal("serial"), "\"serial\" isn't FIELD=VALUE");
        assert_eq!(refusal("serial.x=1"), "serial is both a value and an object");
    }
}
