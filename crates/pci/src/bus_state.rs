//! The bus's state: CONFIG_ADDRESS, and where the functions' BARs are decoded.

use std::sync::atomic::Ordering;

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use crate::bar::{BAR_REGISTERS, BarMove, Decoded};
use crate::config_space::{COMMAND, COMMAND_MEMORY};
use crate::root::{ADDRESS_BITS, Function, RootBus, SLOTS};

/// The state of a [`RootBus`], without its functions' registers.
///
/// Where a BAR is decoded isn't always where its registers say: a guest may have written half of an address, or one that the bus
/// refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusState {
    /// CONFIG_ADDRESS.
    address: u32,
    /// The BARs that are decoded, by slot and register.
    bars: Vec<DecodedBar>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DecodedBar {
    slot: u8,
    bar: u8,
    address: u64,
}

impl State for BusState {
    const KIND: &'static str = "pci.bus";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u32(self.address);
        fields.list(&self.bars, |fields, decoded| {
            fields.u8(decoded.slot);
            fields.u8(decoded.bar);
            fields.u64(decoded.address);
        });
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let address = fields.u32("config_address")?;
        if address & !ADDRESS_BITS != 0 {
            return Err(StateError::new("config_address", format!("{address:#x} has reserved bits")));
        }
        let bars: Vec<_> = fields.list("bars", SLOTS * BAR_REGISTERS, |fields| {
            Ok(DecodedBar {
                slot: fields.u8("slot")?,
                bar: fields.u8("bar")?,
                address: fields.u64("address")?,
            })
        })?;
        let place = |decoded: &DecodedBar| (decoded.slot, decoded.bar);
        match bars.iter().zip(&bars[1.min(bars.len())..]).find(|(one, next)| place(one) >= place(next)) {
            None => Ok(Self { address, bars }),
            Some((_, next)) => Err(next.refuse("is out of order")),
        }
    }
}

impl DecodedBar {
    fn refuse(&self, why: &str) -> StateError {
        let Self { slot, bar, address } = self;
        StateError::new("bars", format!("BAR {bar} of slot {slot} at {address:#x} {why}"))
    }

    /// The move of a BAR that isn't decoded.
    fn made(&self) -> BarMove {
        BarMove { bar: self.bar.into(), from: None, to: Some(self.address) }
    }

    /// Checks that a guest can have put it there.
    fn check(&self, function: Option<&dyn Function>, decoded: &Decoded) -> Result<(), StateError> {
        let function = function.ok_or_else(|| self.refuse("has no function"))?;
        let mut command = [0; 2];
        function.read_config(COMMAND.start, &mut command);
        match usize::from(self.bar) {
            bar if !function.can_decode(bar, self.address) => Err(self.refuse("can't be decoded there")),
            _ if u16::from_le_bytes(command) & COMMAND_MEMORY == 0 => {
                Err(self.refuse("has no memory accesses"))
            }
            bar if decoded.at(bar).is_some() => Err(self.refuse("is decoded already")),
            _ => Ok(()),
        }
    }
}

impl RootBus {
    /// The bus's state. No vCPU accesses the bus meanwhile.
    pub fn save(&self) -> BusState {
        let decoded = self.access();
        let of_slot = |(slot, decoded): (usize, &Decoded)| {
            let bar = |bar| Some(DecodedBar { slot: slot as u8, bar: bar as u8, address: decoded.at(bar)? });
            (0..BAR_REGISTERS).filter_map(bar).collect::<Vec<_>>()
        };
        let bars = decoded.iter().enumerate().flat_map(of_slot).collect();
        BusState { address: self.address.load(Ordering::SeqCst), bars }
    }

    /// Sets the state of a new bus, whose functions have the registers that they had when it was saved, but decode no BAR. The BARs
    /// are moved as if the guest had written their registers.
    ///
    /// # Errors
    /// A function can't decode a BAR there, or the mover refuses. Nothing is decoded then.
    pub fn load(&self, state: &BusState) -> Result<(), StateError> {
        let mut decoded = self.access();
        for bar in &state.bars {
            let slot = usize::from(bar.slot);
            let function = self.functions.get(slot).and_then(Option::as_deref);
            bar.check(function, decoded.get(slot).unwrap_or(&Decoded::default()))?;
        }
        for (done, bar) in state.bars.iter().enumerate() {
            if !self.carry_out(&mut decoded, bar.slot.into(), bar.made()) {
                for made in &state.bars[..done] {
                    let undone = BarMove { from: Some(made.address), to: None, ..made.made() };
                    self.carry_out(&mut decoded, made.slot.into(), undone);
                }
                return Err(bar.refuse("is in the way of another"));
            }
        }
        self.address.store(state.address, Ordering::SeqCst);
        Ok(())
    }
}
