//! The plan of a machine that is restored: the addresses, slots and interrupts of the snapshot, for the devices of a config.

use std::collections::BTreeSet;

use vmm_arch::topology::Topology;
use vmm_boot::Alias;
use vmm_config::{Config, hint};
use vmm_memory::Backing;
use vmm_snapshot::Manifest;

use crate::plan::topology;
use crate::plan_state::PlanState;
use crate::platform::{self, FirmwareTables, GuestPlan};
use crate::{Affinity, Error, Inputs, Plan, Restore, legacy, virtio};

impl Plan {
    /// The plan of the snapshot, for the devices that `config` has opened. Nothing is planned: what the guest has seen stays where it was.
    ///
    /// # Errors
    /// The plan contradicts itself, or the config has other devices, processors or memory.
    pub fn restored(config: &Config, inputs: &Inputs, restore: &Restore) -> Result<Self, Error> {
        let saved = restore.plan().clone();
        saved.check(config, restore.manifest())?;
        let alias = saved.alias.map(|(source, gpa)| Alias { source, gpa });
        Ok(Self {
            ram: saved.ram,
            backing: if config.memory.shared { Backing::Shared } else { Backing::Private },
            topology: topology(&config.cpus)?,
            affinity: config.cpus.affinity.iter().map(Affinity::new).collect(),
            features: platform::feature_policy(&config.cpus.features, topology(&config.cpus)?)?,
            boot: GuestPlan::Restored(alias),
            irqchip: saved.irqchip,
            // They are in the snapshot's memory.
            tables: FirmwareTables::default(),
            devices: legacy::restored(&inputs.legacy, saved.legacy)?,
            virtio: virtio::restored(&inputs.devices, saved.virtio)?,
            serial: config.serial.clone(),
            expect: config.expect.clone(),
        })
    }
}

impl PlanState {
    /// Checks what the config says of the machine itself, and the snapshot's own two descriptions of memory.
    fn check(&self, config: &Config, manifest: &Manifest) -> Result<(), Error> {
        let differs = |field: &'static str, saved: String| Err(Error::RestoreField { field, saved });
        let [threads, cores, sockets] = self.topology;
        let saved = Topology::new(threads, cores, sockets);
        match saved {
            Some(saved) if saved == topology(&config.cpus)? => {}
            Some(saved) => return differs("cpus", saved.to_string()),
            None => return Err(Error::RestorePlan("its processors are none, or too many".to_owned())),
        }
        if self.irqchip != config.irqchip {
            return differs("irqchip", self.irqchip.to_string());
        }
        let len: u64 = self.ram.iter().map(|range| range.end - range.start).sum();
        if len != config.memory.size.bytes() {
            return differs("memory.size", crate::plan::shown_len(len));
        }
        let regions = manifest.memory.regions().iter().map(|region| region.gpa..region.gpa + region.len);
        if !regions.eq(self.ram.iter().cloned()) {
            return Err(Error::RestorePlan("its memory isn't that of the manifest".to_owned()));
        }
        Ok(())
    }
}

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
