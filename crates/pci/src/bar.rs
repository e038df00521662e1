//! Base address registers (BARs): the guest-chosen addresses of a function's registers.

use std::ops::Range;

/// BAR registers of a type 0 header.
pub const BAR_REGISTERS: usize = 6;
/// Type of a 64-bit memory BAR, not prefetchable.
const MEMORY_64: u64 = 0b0100;

/// The size of a 64-bit memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    len: u64,
}

impl Bar {
    /// A 64-bit memory BAR of `len` bytes.
    ///
    /// # Panics
    /// `len` isn't a power of two of at least 16.
    pub const fn new(len: u64) -> Self {
        assert!(len.is_power_of_two() && len >= 16, "the length of a BAR is a power of two, at least 16");
        Self { len }
    }

    /// Whether it can be decoded at `address`: that is aligned, and all of it is inside `window`.
    pub fn can_be_at(self, address: u64, window: &Range<u64>) -> bool {
        address.is_multiple_of(self.len) && is_inside(address, self.len, window)
    }

    pub(crate) fn flags(self) -> u64 {
        MEMORY_64
    }

    /// The bits of the two registers that the guest can write.
    pub(crate) fn address_mask(self) -> u64 {
        !(self.len - 1)
    }
}

/// The address at which each of a function's BARs is decoded. The BAR registers may contain another one while the guest is writing
/// them, or if the bus has refused it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded([Option<u64>; BAR_REGISTERS]);

/// A change of the address at which a BAR is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarMove {
    /// The BAR's first register.
    pub bar: usize,
    /// Its current address, if it is decoded.
    pub from: Option<u64>,
    /// Its new address; `None` to stop decoding it.
    pub to: Option<u64>,
}

impl Decoded {
    /// The address at which the BAR is decoded.
    pub fn at(&self, bar: usize) -> Option<u64> {
        self.0.get(bar).copied().flatten()
    }

    /// The move that makes the BAR match its registers and COMMAND: without memory accesses it isn't decoded at all.
    /// An address outside `window` is ignored, as a half-written one may be.
    pub fn wanted(
        &self,
        bar: usize,
        len: u64,
        address: u64,
        memory: bool,
        window: &Range<u64>,
    ) -> Option<BarMove> {
        let from = self.at(bar);
        let to = match memory {
            true if is_inside(address, len, window) => Some(address),
            true => from,
            false => None,
        };
        (from != to).then_some(BarMove { bar, from, to })
    }

    /// Records a move.
    pub fn set(&mut self, made: BarMove) {
        if let Some(at) = self.0.get_mut(made.bar) {
            *at = made.to;
        }
    }
}

fn is_inside(address: u64, len: u64, window: &Range<u64>) -> bool {
    address >= window.start && address.checked_add(len).is_some_and(|end| end <= window.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Range<u64> = 0xc000_0000..0xd000_0000;

    fn wanted(decoded: &Decoded, address: u64, memory: bool) -> Option<Option<u64>> {
        decoded.wanted(0, 0x8_0000, address, memory, &WINDOW).map(|wanted| wanted.to)
    }

    #[test]
    fn bar_is_decoded_while_memory_is_on() {
        let mut decoded = Decoded::default();
        assert_eq!(wanted(&decoded, 0xc010_0000, false), None);
        let on = decoded.wanted(0, 0x8_0000, 0xc010_0000, true, &WINDOW).unwrap();
        assert_eq!(on, BarMove { bar: 0, from: None, to: Some(0xc010_0000) });
        decoded.set(on);
        assert_eq!(wanted(&decoded, 0xc010_0000, true), None, "it is there");
        assert_eq!(wanted(&decoded, 0xc020_0000, true), Some(Some(0xc020_0000)));
        assert_eq!(wanted(&decoded, 0xc020_0000, false), Some(None));
    }

    #[test]
    fn bar_can_be_where_all_of_it_is_aligned_and_in_the_window() {
        let bar = Bar::new(0x8_0000);
        let can_be = |address| bar.can_be_at(address, &WINDOW);
        assert!(can_be(0xc000_0000) && can_be(0xcff8_0000));
        assert!(!can_be(0xc000_1000) && !can_be(0xbff8_0000) && !can_be(0xd000_0000) && !can_be(!0x7_ffff));
    }

    #[test]
    fn address_outside_the_window_is_ignored() {
        let mut decoded = Decoded::default();
        for address in [0, 0xbfff_fff0, 0xcff8_0010, 0xfff8_0000, !0xf] {
            assert_eq!(wanted(&decoded, address, true), None, "{address:#x}");
        }
        decoded.set(BarMove { bar: 0, from: None, to: Some(0xc010_0000) });
        assert_eq!(wanted(&decoded, 0xfff8_0000, true), None, "it stays where it is");
        assert_eq!(wanted(&decoded, 0xfff8_0000, false), Some(None));
    }
}
