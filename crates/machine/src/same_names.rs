//! Whether the devices of a config are those of a snapshot.

use std::collections::BTreeSet;

use vmm_config::hint;

use crate::Error;

/// The error for devices of a config that aren't those of the snapshot.
pub(crate) fn check_names<'a>(
    field: &'static str,
    saved: impl Iterator<Item = &'a str>,
    listed: impl Iterator<Item = &'a str>,
) -> Result<(), Error> {
    let (saved, listed): (Vec<_>, Vec<_>) = (saved.collect(), listed.collect());
    let names = BTreeSet::from_iter(&saved);
    if names.len() != saved.len() {
        return Err(Error::RestorePlan(format!("it has two {field} of a name")));
    }
    if let Some(missing) = saved.iter().find(|name| !listed.contains(name)) {
        let problem = format!("the snapshot has \"{missing}\", and the config doesn't");
        return Err(Error::RestoreDevices { field, problem });
    }
    match listed.iter().find(|name| !saved.contains(name)) {
        Some(extra) => {
            let problem =
                format!("the config has \"{extra}\", which the snapshot lacks; {}", hint(extra, &saved));
            Err(Error::RestoreDevices { field, problem })
        }
        None => Ok(()),
    }
}
