//! The fields of a section, one after the other in little-endian.
//!
//! There are no names, tags or padding: a section's version determines which fields it has. Lengths are 32 bits wide.

use crate::StateError;

/// Writes a section's fields in order.
#[derive(Clone, Debug, Default)]
pub struct FieldWriter(Vec<u8>);

impl FieldWriter {
    /// A section without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Writes two bytes.
    pub fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    /// Writes four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    /// Writes eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    /// Writes a byte that is 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.0.push(value.into());
    }

    /// Writes a length and that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.0.extend(bytes);
    }

    /// Writes `N` bytes, without a length.
    pub fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.0.extend(bytes);
    }

    /// Writes the length of a text in bytes, and its UTF-8.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes whether there is a value, and the value by `write`.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Writes the number of items, and each by `write`.
    pub fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.len(items.len());
        for item in items {
            write(self, item);
        }
    }

    /// The section's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn len(&mut self, len: usize) {
        // A section of more than 4 GiB is refused as too long when it is added to a state file.
        self.u32(u32::try_from(len).unwrap_or(u32::MAX));
    }
}

/// Reads a section's fields in order. The name that each method takes is for its error only.
///
/// A field that is read is exactly what [`FieldWriter`] would write: no value has two encodings.
#[derive(Clone, Debug)]
pub struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// The fields in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// The section has ended.
    pub fn u8(&mut self, name: &str) -> Result<u8, StateError> {
        self.array(name).map(u8::from_le_bytes)
    }

    /// Reads two bytes.
    ///
    /// # Errors
    /// The section has ended.
    pub fn u16(&mut self, name: &str) -> Result<u16, StateError> {
        self.array(name).map(u16::from_le_bytes)
    }

    /// Reads four bytes.
    ///
    /// # Errors
    /// The section has ended.
    pub fn u32(&mut self, name: &str) -> Result<u32, StateError> {
        self.array(name).map(u32::from_le_bytes)
    }

    /// Reads eight bytes.
    ///
    /// # Errors
    /// The section has ended.
    pub fn u64(&mut self, name: &str) -> Result<u64, StateError> {
        self.array(name).map(u64::from_le_bytes)
    }

    /// Reads a byte that is 0 or 1.
    ///
    /// # Errors
    /// The section has ended, or the byte has another value.
    pub fn bool(&mut self, name: &str) -> Result<bool, StateError> {
        match self.u8(name)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(StateError::new(name, format!("{other} is neither 0 nor 1"))),
        }
    }

    /// Reads a length of at most `max`, and that many bytes.
    ///
    /// # Errors
    /// The section has ended, or there are more than `max` bytes.
    pub fn bytes(&mut self, name: &str, max: usize) -> Result<&'a [u8], StateError> {
        let len = self.len(name, max, "bytes")?;
        self.take(name, len)
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// The section has ended.
    pub fn array<const N: usize>(&mut self, name: &str) -> Result<[u8; N], StateError> {
        let bytes = self.take(name, N)?;
        Ok(bytes.try_into().expect("N bytes were taken"))
    }

    /// Reads a text of at most `max` bytes.
    ///
    /// # Errors
    /// The section has ended, the text is longer, or it isn't UTF-8.
    pub fn text(&mut self, name: &str, max: usize) -> Result<&'a str, StateError> {
        let bytes = self.bytes(name, max)?;
        str::from_utf8(bytes).map_err(|error| StateError::new(name, error.to_string()))
    }

    /// Reads whether there is a value, and the value by `read`.
    ///
    /// # Errors
    /// As [`bool`](Self::bool), or `read`'s within this field.
    pub fn option<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<T, StateError>,
    ) -> Result<Option<T>, StateError> {
        if !self.bool(name)? {
            return Ok(None);
        }
        read(self).map(Some).map_err(|error| error.within(name))
    }

    /// Reads the number of items, at most `max`, and each by `read`.
    ///
    /// # Errors
    /// The section has ended, there are more than `max` items, or `read`'s, within this field and with the item's index.
    pub fn list<T>(
        &mut self,
        name: &str,
        max: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let len = self.len(name, max, "items")?;
        // Without a capacity: the file hasn't proven yet that it has that many.
        let mut items = Vec::new();
        for index in 0..len {
            items.push(read(self).map_err(|error| error.within(format!("{name}[{index}]")))?);
        }
        Ok(items)
    }

    /// Ends the section.
    ///
    /// # Errors
    /// There are bytes that nothing has read.
    pub fn finish(self) -> Result<(), StateError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(StateError::new("end", format!("{left} bytes follow the last field"))),
        }
    }

    fn len(&mut self, name: &str, max: usize, unit: &str) -> Result<usize, StateError> {
        let len = self.u32(name)? as usize;
        if len > max {
            return Err(StateError::new(name, format!("has {len} {unit}, at most {max} are possible")));
        }
        Ok(len)
    }

    fn take(&mut self, name: &str, len: usize) -> Result<&'a [u8], StateError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            let left = self.rest.len();
            return Err(StateError::new(name, format!("has {len} bytes, but the section ends after {left}")));
        };
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_little_endian_without_padding() {
        let mut fields = FieldWriter::new();
        fields.u8(0x11);
        fields.u16(0x2233);
        fields.u32(0x4455_6677);
        fields.u64(0x8899_aabb_ccdd_eeff);
        fields.bool(true);
        fields.bytes(b"abc");
        fields.array(b"de");
        fields.text("ü");
        fields.option(Some(7), FieldWriter::u8);
        fields.option(None, FieldWriter::u8);
        fields.list(&[1, 2], |fields, item| fields.u16(*item));
        assert_eq!(
            fields.into_bytes(),
            [
                &[0x11, 0x33, 0x22, 0x77, 0x66, 0x55, 0x44][..],
                &[0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 1],
                &[3, 0, 0, 0, b'a', b'b', b'c', b'd', b'e', 2, 0, 0, 0, 0xc3, 0xbc],
                &[1, 7, 0, 2, 0, 0, 0, 1, 0, 2, 0],
            ]
            .concat()
        );
    }

    #[test]
    fn field_beyond_the_end_is_refused_by_name() {
        let error = FieldReader::new(&[1]).u16("queue_size").unwrap_err();
        assert_eq!(error.to_string(), "queue_size: has 2 bytes, but the section ends after 1");
    }

    #[test]
    fn bool_of_two_is_refused() {
        let error = FieldReader::new(&[2]).bool("ready").unwrap_err();
        assert_eq!(error.to_string(), "ready: 2 is neither 0 nor 1");
    }

    #[test]
    fn bytes_beyond_the_maximum_are_refused_before_they_are_read() {
        let error = FieldReader::new(&[0xff; 4]).bytes("fifo", 64).unwrap_err();
        assert_eq!(error.to_string(), "fifo: has 4294967295 bytes, at most 64 are possible");
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused() {
        let error = FieldReader::new(&[1, 0, 0, 0, 0xff]).text("id", 64).unwrap_err();
        assert_eq!(error.to_string(), "id: invalid utf-8 sequence of 1 bytes from index 0");
    }

    #[test]
    fn list_names_the_item_that_is_refused() {
        let bytes = [2, 0, 0, 0, 1, 2];
        let error = FieldReader::new(&bytes).list("queues", 4, |fields| fields.bool("ready")).unwrap_err();
        assert_eq!(error.to_string(), "queues[1]: ready: 2 is neither 0 nor 1");
    }

    #[test]
    fn list_of_nothing_with_a_great_count_takes_no_memory() {
        let error =
            FieldReader::new(&[0xff; 4]).list("queues", usize::MAX, |fields| fields.u8("ready")).unwrap_err();
        assert_eq!(error.to_string(), "queues[0]: ready: has 1 bytes, but the section ends after 0");
    }

    #[test]
    fn bytes_after_the_last_field_are_refused() {
        let mut fields = FieldReader::new(&[1, 2, 3]);
        assert_eq!(fields.u8("index"), Ok(1));
        assert_eq!(fields.finish().unwrap_err().to_string(), "end: 2 bytes follow the last field");
    }

    type Values = (u8, u16, u32, u64, bool, Vec<u8>, String, Option<u32>, Vec<(u16, bool)>);

    fn write((a, b, c, d, e, f, g, h, i): &Values) -> Vec<u8> {
        let mut fields = FieldWriter::new();
        fields.u8(*a);
        fields.u16(*b);
        fields.u32(*c);
        fields.u64(*d);
        fields.bool(*e);
        fields.bytes(f);
        fields.text(g);
        fields.option(*h, FieldWriter::u32);
        fields.list(i, |fields, item| {
            fields.u16(item.0);
            fields.bool(item.1);
        });
        fields.into_bytes()
    }

    fn read(bytes: &[u8]) -> Result<Values, StateError> {
        let mut fields = FieldReader::new(bytes);
        let values = (
            fields.u8("a")?,
            fields.u16("b")?,
            fields.u32("c")?,
            fields.u64("d")?,
            fields.bool("e")?,
            fields.bytes("f", 200)?.to_vec(),
            fields.text("g", 1000)?.to_owned(),
            fields.option("h", |fields| fields.u32("value"))?,
            fields.list("i", 100, |fields| Ok((fields.u16("first")?, fields.bool("second")?)))?,
        );
        fields.finish()?;
        Ok(values)
    }

    proptest! {
        #[test]
        fn values_are_read_as_written(values: Values) {
            prop_assert_eq!(read(&write(&values)), Ok(values));
        }

        #[test]
        fn shorter_section_is_refused(values: Values, cut in 1_usize..40) {
            let bytes = write(&values);
            let len = bytes.len().saturating_sub(cut);
            prop_assert!(read(&bytes[..len]).is_err());
        }

        #[test]
        fn what_is_read_is_written_as_it_was(bytes: Vec<u8>) {
            if let Ok(values) = read(&bytes) {
                prop_assert_eq!(write(&values), bytes);
            }
        }
    }
}
