//! The plan of a machine in a snapshot: a restore plans nothing anew, whatever a later version would place where.

use std::ops::Range;
use std::path::PathBuf;

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use crate::{Plan, TransportPlan, VirtioPlan};

/// The most ranges of RAM: two, and as many again for layouts to come.
const MAX_RANGES: usize = 64;
/// The most legacy devices.
const MAX_LEGACY: usize = 1024;
/// The end of the ports that they share.
const PORTS_END: u64 = 1 << 16;
/// The most virtio devices: more than interrupts or slots.
const MAX_VIRTIO: usize = 1024;
/// The most queues of a device (virtio 1.2 §2.6: an index has 16 bits).
const MAX_QUEUES: usize = 65_536;
const MAX_NAME_LEN: usize = 4096;

/// The places of everything that a guest has seen, and the directory of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlanState {
    /// Where relative paths in the config of the manifest start.
    pub(crate) directory: PathBuf,
    /// [`Plan::ram`].
    pub(crate) ram: Vec<Range<u64>>,
    /// RAM that is mapped a second time, and where.
    pub(crate) alias: Option<(Range<u64>, u64)>,
    /// Threads per core, cores per socket and sockets.
    pub(crate) topology: [u16; 3],
    /// [`Plan::irqchip`].
    pub(crate) irqchip: bool,
    /// The legacy devices, in the order of their sections.
    pub(crate) legacy: Vec<LegacyPlace>,
    /// The virtio devices, in the order of their sections.
    pub(crate) virtio: Vec<VirtioPlace>,
}

/// The registers and the interrupt of a legacy device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegacyPlace {
    /// Its name in the plan.
    pub(crate) name: String,
    pub(crate) registers: Range<u64>,
    pub(crate) gsi: Option<u32>,
}

/// The registers, interrupts and queues of a virtio device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VirtioPlace {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) transport: TransportPlan,
    pub(crate) queues: Vec<u16>,
    pub(crate) memory: Option<Range<u64>>,
}

impl PlanState {
    /// The state of `plan`, whose config has relative paths that start at `directory`.
    pub(crate) fn of(plan: &Plan, directory: PathBuf) -> Self {
        let legacy = plan.devices.iter().map(|device| LegacyPlace {
            name: device.name.clone(),
            registers: device.registers.clone(),
            gsi: device.gsi,
        });
        let virtio = plan.virtio.iter().map(|device| {
            let VirtioPlan { id, kind, transport, queues, memory, console: _ } = device;
            VirtioPlace {
                id: id.clone(),
                kind: (*kind).to_owned(),
                transport: transport.clone(),
                queues: queues.clone(),
                memory: memory.clone(),
            }
        });
        let topology = plan.topology;
        let of = |number: u32| number as u16;
        Self {
            directory,
            ram: plan.ram.clone(),
            alias: plan.boot.alias().map(|alias| (alias.source, alias.gpa)),
            topology: [
                of(topology.per_core()),
                of(topology.per_socket() / topology.per_core()),
                of(topology.sockets()),
            ],
            irqchip: plan.irqchip,
            legacy: legacy.collect(),
            virtio: virtio.collect(),
        }
    }
}

impl State for PlanState {
    const KIND: &'static str = "machine.plan";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        let Self { directory, ram, alias, topology, irqchip, legacy, virtio } = self;
        fields.text(&directory.to_string_lossy());
        fields.list(ram, put_range);
        fields.option(alias.as_ref(), |fields, (source, gpa)| {
            put_range(fields, source);
            fields.u64(*gpa);
        });
        topology.iter().for_each(|count| fields.u16(*count));
        fields.bool(*irqchip);
        fields.list(legacy, |fields, LegacyPlace { name, registers, gsi }| {
            fields.text(name);
            put_range(fields, registers);
            fields.option(*gsi, FieldWriter::u32);
        });
        fields.list(virtio, |fields, VirtioPlace { id, kind, transport, queues, memory }| {
            fields.text(id);
            fields.text(kind);
            match transport {
                TransportPlan::Mmio { registers, gsi } => {
                    fields.bool(false);
                    put_range(fields, registers);
                    fields.u32(*gsi);
                }
                TransportPlan::Pci { slot, bar } => {
                    fields.bool(true);
                    fields.u8(*slot);
                    put_range(fields, bar);
                }
            }
            fields.list(queues, |fields, size| fields.u16(*size));
            fields.option(memory.as_ref(), put_range);
        });
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            directory: fields.text("directory", MAX_NAME_LEN)?.into(),
            ram: fields.list("ram", MAX_RANGES, |fields| take_range(fields, "range"))?,
            alias: fields
                .option("alias", |fields| Ok((take_range(fields, "source")?, fields.u64("address")?)))?,
            topology: [
                fields.u16("threads_per_core")?,
                fields.u16("cores_per_socket")?,
                fields.u16("sockets")?,
            ],
            irqchip: fields.bool("irqchip")?,
            legacy: fields.list("legacy", MAX_LEGACY, |fields| {
                Ok(LegacyPlace {
                    name: fields.text("name", MAX_NAME_LEN)?.to_owned(),
                    registers: take_ports(fields, "registers")?,
                    gsi: fields.option("gsi", |fields| fields.u32("value"))?,
                })
            })?,
            virtio: fields.list("virtio", MAX_VIRTIO, |fields| {
                Ok(VirtioPlace {
                    id: fields.text("id", MAX_NAME_LEN)?.to_owned(),
                    kind: fields.text("kind", MAX_NAME_LEN)?.to_owned(),
                    transport: take_transport(fields)?,
                    queues: fields.list("queues", MAX_QUEUES, |fields| fields.u16("size"))?,
                    memory: fields.option("memory", |fields| take_range(fields, "range"))?,
                })
            })?,
        })
    }
}

fn take_transport(fields: &mut FieldReader<'_>) -> Result<TransportPlan, StateError> {
    Ok(match fields.bool("is_pci")? {
        false => TransportPlan::Mmio { registers: take_range(fields, "registers")?, gsi: fields.u32("gsi")? },
        true => TransportPlan::Pci { slot: fields.u8("slot")?, bar: take_range(fields, "bar")? },
    })
}

fn put_range(fields: &mut FieldWriter, range: &Range<u64>) {
    fields.u64(range.start);
    fields.u64(range.end);
}

fn take_range(fields: &mut FieldReader<'_>, name: &str) -> Result<Range<u64>, StateError> {
    let range = fields.u64(name)?..fields.u64(name)?;
    if range.is_empty() {
        return Err(StateError::new(name, format!("{:#x}..{:#x} is empty", range.start, range.end)));
    }
    Ok(range)
}

/// A range of the space that legacy devices share.
fn take_ports(fields: &mut FieldReader<'_>, name: &str) -> Result<Range<u64>, StateError> {
    let range = take_range(fields, name)?;
    if range.end > PORTS_END {
        let problem = format!("{:#x}..{:#x} is beyond the last port", range.start, range.end);
        return Err(StateError::new(name, problem));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> PlanState {
        let place = |id: &str, transport| VirtioPlace {
            id: id.to_owned(),
            kind: "block".to_owned(),
            transport,
            queues: vec![256, 64],
            memory: None,
        };
        let mmio = TransportPlan::Mmio { registers: 0xd000_0000..0xd000_1000, gsi: 5 };
        let pci = TransportPlan::Pci { slot: 3, bar: 0xe000_0000..0xe008_0000 };
        PlanState {
            directory: "/srv".into(),
            ram: vec![0..0xc000_0000, 0x1_0000_0000..0x1_8000_0000],
            alias: Some((0xf_0000..0x10_0000, 0xffff_0000)),
            topology: [2, 3, 1],
            irqchip: true,
            legacy: vec![
                LegacyPlace { name: "uart".to_owned(), registers: 0x3f8..0x400, gsi: Some(4) },
                LegacyPlace { name: "i8042".to_owned(), registers: 0x60..0x65, gsi: None },
            ],
            virtio: vec![
                place("one", mmio),
                VirtioPlace { memory: Some(0x40_0000_0000..0x40_4000_0000), ..place("two", pci) },
            ],
        }
    }

    fn bytes(plan: &PlanState) -> Vec<u8> {
        let mut fields = FieldWriter::new();
        plan.save(&mut fields);
        fields.into_bytes()
    }

    fn load(bytes: &[u8]) -> Result<PlanState, StateError> {
        let mut fields = FieldReader::new(bytes);
        let plan = PlanState::load(1, &mut fields)?;
        fields.finish().map(|()| plan)
    }

    #[test]
    fn plan_loaded_is_the_one_that_was_saved() {
        assert_eq!(load(&bytes(&plan())).unwrap(), plan());
    }

    #[test]
    fn plan_cut_anywhere_is_refused() {
        let all = bytes(&plan());
        (0..all.len()).for_each(|len| assert!(load(&all[..len]).is_err(), "{len}"));
    }

    #[test]
    fn plan_with_an_empty_range_is_refused() {
        let empty = PlanState { ram: vec![0x1000..0x1000], ..plan() };
        assert_eq!(load(&bytes(&empty)).unwrap_err().to_string(), "ram[0]: range: 0x1000..0x1000 is empty");
    }

    #[test]
    fn plan_with_a_device_beyond_the_ports_is_refused() {
        let place = |end| LegacyPlace { name: "uart".to_owned(), registers: 0xfff8..end, gsi: None };
        let last = PlanState { legacy: vec![place(0x1_0000)], ..plan() };
        assert_eq!(load(&bytes(&last)).unwrap(), last);
        let beyond = PlanState { legacy: vec![place(0x1_0001)], ..plan() };
        let message = "legacy[0]: registers: 0xfff8..0x10001 is beyond the last port";
        assert_eq!(load(&bytes(&beyond)).unwrap_err().to_string(), message);
    }
}
