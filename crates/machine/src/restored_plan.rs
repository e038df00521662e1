//! The plan of a machine that is restored: the addresses, slots and interrupts of the snapshot, for the devices of a config.

use vmm_arch::topology::Topology;
use vmm_boot::Alias;
use vmm_config::Config;
use vmm_devices::Presence;
use vmm_memory::Backing;
use vmm_snapshot::Manifest;

use crate::legacy::LegacyCandidate;
use crate::plan::topology;
use crate::plan_state::{LegacyPlace, PlanState};
use crate::platform::{self, FirmwareTables, GuestPlan};
use crate::same_names::check_names;
use crate::{Affinity, Device, Error, Inputs, Plan, Restore, virtio};

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
            devices: legacy_devices(&inputs.legacy, saved.legacy)?,
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
        let regions = manifest.memory.regions().iter().map(|region| region.gpa..region.gpa + region.len);
        if !regions.eq(self.ram.iter().cloned()) {
            return Err(Error::RestorePlan("its memory isn't that of the manifest".to_owned()));
        }
        // No overflow: the manifest's regions are disjoint, below 2^52.
        let len: u64 = self.ram.iter().map(|range| range.end - range.start).sum();
        if len != config.memory.size.bytes() {
            return differs("memory.size", crate::plan::shown_len(len));
        }
        Ok(())
    }
}

/// The candidates that a snapshot has, at its places and in its order.
fn legacy_devices(found: &[LegacyCandidate], saved: Vec<LegacyPlace>) -> Result<Vec<Device>, Error> {
    // A machine without ACPI tables lacks some.
    let listed = found.iter().filter(|candidate| {
        candidate.planned.presence != Presence::WithAcpi
            || saved.iter().any(|place| place.name == candidate.name)
    });
    let listed: Vec<_> = listed.map(|candidate| candidate.name.as_str()).collect();
    check_names("devices", saved.iter().map(|place| place.name.as_str()), listed.into_iter())?;
    let of = |place: LegacyPlace| {
        let candidate = found.iter().find(|candidate| candidate.name == place.name)?;
        let LegacyPlace { name, registers, gsi } = place;
        Some(Device { name, registers, gsi, planned: candidate.planned.clone() })
    };
    Ok(saved.into_iter().filter_map(of).collect())
}
