//! A bus with functions whose BARs a guest moves, saved and loaded into a new one.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::select;
use vmm_bus::BusDevice;
use vmm_pci::{
    Bar, BarMove, BarMover, BusState, COMMAND, COMMAND_MEMORY, CONFIG_LEN, Decoded, Effect, Function,
    HostBridge, Identity, PciConfigSpace, RootBus, touches,
};
use vmm_snapshot::{FieldReader, FieldWriter, State};

const LEN: u64 = 0x1000;
const WINDOW: Range<u64> = 0xc000_0000..0xc001_0000;
const SLOTS: [usize; 2] = [3, 9];
/// A BAR of 64 bits, and its registers.
const BAR: usize = 2;
const BAR_REGISTERS: Range<usize> = 0x18..0x20;

/// A function with a BAR.
struct OneBar(Mutex<(PciConfigSpace, Decoded)>);

impl OneBar {
    fn new() -> Self {
        let mut space = PciConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x01_80_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        space.add_bar(BAR, Bar::new(LEN));
        Self(Mutex::new((space, Decoded::default())))
    }

    fn registers(&self) -> [u8; CONFIG_LEN] {
        self.0.lock().unwrap().0.array(0)
    }
}

impl Function for OneBar {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.0.lock().unwrap().0.read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Effect {
        let (space, decoded) = &mut *self.0.lock().unwrap();
        space.write(offset, data);
        if !touches(offset, data.len(), COMMAND) && !touches(offset, data.len(), BAR_REGISTERS) {
            return Effect::Done;
        }
        let is_on = space.command() & COMMAND_MEMORY != 0;
        let wanted = decoded.wanted(BAR, LEN, space.bar_address(BAR), is_on, &WINDOW);
        wanted.map_or(Effect::Done, Effect::Move)
    }

    fn moved(&self, made: BarMove) {
        self.0.lock().unwrap().1.set(made);
    }

    fn can_decode(&self, bar: usize, address: u64) -> bool {
        bar == BAR && Bar::new(LEN).can_be_at(address, &WINDOW)
    }
}

/// The addresses that are decoded, each once.
type Places = Arc<Mutex<Vec<(u64, usize)>>>;

struct Mover(Places);

impl BarMover for Mover {
    fn move_bar(&self, slot: usize, wanted: BarMove) -> bool {
        assert_eq!(wanted.bar, BAR);
        let mut places = self.0.lock().unwrap();
        if places.iter().any(|(address, ..)| Some(*address) == wanted.to) {
            return false;
        }
        if let Some(from) = wanted.from {
            let at = places.iter().position(|place| *place == (from, slot));
            places.remove(at.expect("it was decoded there"));
        }
        places.extend(wanted.to.map(|to| (to, slot)));
        places.sort_unstable();
        true
    }
}

struct Machine {
    bus: Arc<RootBus>,
    functions: [Arc<OneBar>; 2],
    places: Places,
}

impl Machine {
    fn new() -> Self {
        let places = Places::default();
        let mut bus = RootBus::new(Box::new(Mover(Arc::clone(&places))));
        bus.insert(0, Arc::new(HostBridge::new()));
        let functions = SLOTS.map(|slot| {
            let function = Arc::new(OneBar::new());
            bus.insert(slot, Arc::clone(&function) as _);
            function
        });
        Self { bus: Arc::new(bus), functions, places }
    }

    fn places(&self) -> Vec<(u64, usize)> {
        self.places.lock().unwrap().clone()
    }

    /// A new machine whose functions have these registers, and which decodes nothing.
    fn fresh(&self) -> Self {
        let new = Self::new();
        for (into, from) in new.functions.iter().zip(&self.functions) {
            into.0.lock().unwrap().0.write(0, &from.registers());
        }
        new
    }

    fn bytes(&self) -> Vec<u8> {
        let mut fields = FieldWriter::new();
        self.bus.save().save(&mut fields);
        fields.into_bytes()
    }

    /// Loads a section.
    fn load(&self, bytes: &[u8]) -> Result<(), String> {
        let mut fields = FieldReader::new(bytes);
        let state = BusState::load(1, &mut fields).map_err(|error| error.to_string())?;
        fields.finish().map_err(|error| error.to_string())?;
        self.bus.load(&state).map_err(|error| error.to_string())
    }

    fn write(&self, slot: usize, offset: usize, data: &[u8]) {
        let _ = self.bus.ecam().write((slot << 15 | offset) as u64, data);
    }

    fn place(&self, slot: usize, address: u64) {
        self.write(slot, BAR_REGISTERS.start, &(address as u32).to_le_bytes());
        self.write(slot, COMMAND.start, &COMMAND_MEMORY.to_le_bytes());
    }
}

#[test]
fn bus_loaded_decodes_bars_where_they_were() {
    let machine = Machine::new();
    machine.place(3, 0xc000_1000);
    machine.place(9, 0xc000_0000);
    // In use: the registers say so, but the BAR stays.
    machine.place(3, 0xc000_0000);
    let fresh = machine.fresh();
    fresh.load(&machine.bytes()).unwrap();
    assert_eq!(fresh.places(), [(0xc000_0000, 9), (0xc000_1000, 3)]);
    assert_eq!(fresh.places(), machine.places());
    // And they move on from there.
    fresh.place(3, 0xc000_2000);
    assert_eq!(fresh.places(), [(0xc000_0000, 9), (0xc000_2000, 3)]);
}

#[test]
fn bus_loaded_has_config_address() {
    let machine = Machine::new();
    let _ = machine.bus.cam().write(0, &0x8000_1840_u32.to_le_bytes());
    let fresh = machine.fresh();
    fresh.load(&machine.bytes()).unwrap();
    let mut address = [0; 4];
    fresh.bus.cam().read(0, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x8000_1840);
}

/// CONFIG_ADDRESS, and BARs by slot, register and address.
fn section(address: u32, bars: &[(u8, u8, u64)]) -> Vec<u8> {
    let mut fields = FieldWriter::new();
    fields.u32(address);
    fields.list(bars, |fields, (slot, bar, address)| {
        fields.u8(*slot);
        fields.u8(*bar);
        fields.u64(*address);
    });
    fields.into_bytes()
}

#[test]
fn bus_state_that_no_guest_can_cause_is_refused_and_nothing_is_decoded() {
    let machine = Machine::new();
    machine.place(3, 0xc000_1000);
    let refusal = |bytes: &[u8]| {
        let fresh = machine.fresh();
        let error = fresh.load(bytes).unwrap_err();
        assert_eq!(fresh.places(), []);
        error
    };
    assert_eq!(refusal(&section(1, &[])), "config_address: 0x1 has reserved bits");
    let bars = |bars: &[(u8, u8, u64)]| refusal(&section(0, bars));
    assert_eq!(bars(&[(40, 2, 0xc000_1000)]), "bars: BAR 2 of slot 40 at 0xc0001000 has no function");
    assert_eq!(bars(&[(3, 7, 0xc000_1000)]), "bars: BAR 7 of slot 3 at 0xc0001000 can't be decoded there");
    assert_eq!(bars(&[(3, 2, 0x1000)]), "bars: BAR 2 of slot 3 at 0x1000 can't be decoded there");
    assert_eq!(bars(&[(0, 0, 0xc000_1000)]), "bars: BAR 0 of slot 0 at 0xc0001000 can't be decoded there");
    assert_eq!(bars(&[(9, 2, 0xc000_1000)]), "bars: BAR 2 of slot 9 at 0xc0001000 has no memory accesses");
    assert_eq!(
        bars(&[(3, 2, 0xc000_2000), (3, 2, 0xc000_1000)]),
        "bars: BAR 2 of slot 3 at 0xc0001000 is out of order"
    );
    machine.place(9, 0xc000_2000);
    assert_eq!(
        bars(&[(3, 2, 0xc000_1000), (9, 2, 0xc000_1000)]),
        "bars: BAR 2 of slot 9 at 0xc0001000 is in the way of another"
    );
    let twice = machine.load(&section(0, &[(3, 2, 0xc000_3000)])).unwrap_err();
    assert_eq!(twice, "bars: BAR 2 of slot 3 at 0xc0003000 is decoded already");
}

/// Writes to the two functions' headers: BARs in the window and beside it, COMMAND on and off.
fn writes() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    let address = prop_oneof![
        6 => (0_u32..20).prop_map(|page| 0xc000_0000 + page * LEN as u32),
        1 => any::<u32>(),
    ];
    let write = prop_oneof![
        (select(vec![0x18_usize, 0x18, 0x18, 0x1c]), prop_oneof![4 => address, 1 => Just(0_u32)])
            .prop_map(|(offset, value)| (offset, value.to_le_bytes().to_vec())),
        select(vec![2_u16, 2, 6, 0]).prop_map(|value| (COMMAND.start, value.to_le_bytes().to_vec())),
    ];
    prop::collection::vec((select(SLOTS.to_vec()), write), 0..60)
        .prop_map(|writes| writes.into_iter().map(|(slot, (offset, data))| (slot, offset, data)).collect())
}

proptest! {
    #[test]
    fn bus_after_any_writes_is_loaded_as_it_was_and_goes_on_so(before in writes(), after in writes()) {
        let machine = Machine::new();
        before.iter().for_each(|(slot, offset, data)| machine.write(*slot, *offset, data));
        let fresh = machine.fresh();
        fresh.load(&machine.bytes()).unwrap();
        prop_assert_eq!(fresh.bytes(), machine.bytes());
        for (slot, offset, data) in after {
            prop_assert_eq!(fresh.places(), machine.places());
            machine.write(slot, offset, &data);
            fresh.write(slot, offset, &data);
        }
        let registers = |machine: &Machine| machine.functions.each_ref().map(|function| function.registers());
        prop_assert_eq!(registers(&fresh), registers(&machine));
    }

    #[test]
    fn bus_of_any_bars_is_refused_or_loaded(
        bars in prop::collection::vec((select(vec![0_u8, 3, 9, 31, 200]), select(vec![2_u8, 2, 2, 0, 7]), 0_u64..20), 0..4),
        cut in 0_usize..4,
    ) {
        let machine = Machine::new();
        SLOTS.iter().for_each(|slot| machine.write(*slot, COMMAND.start, &COMMAND_MEMORY.to_le_bytes()));
        let bars: Vec<_> = bars.iter().map(|(slot, bar, page)| (*slot, *bar, WINDOW.start + page * LEN)).collect();
        let mut bytes = section(0, &bars);
        bytes.truncate(bytes.len() - cut);
        let fresh = machine.fresh();
        match fresh.load(&bytes) {
            Ok(()) => prop_assert_eq!(fresh.bytes(), bytes),
            Err(_) => prop_assert_eq!((fresh.places(), fresh.bytes()), (vec![], section(0, &[]))),
        }
    }
}
