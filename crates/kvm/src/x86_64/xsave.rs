//! The XSAVE area, whose length depends on the host's features.

use kvm_bindings::Xsave;

use super::state_lens::XSAVE_WORDS;
use crate::error::Named;
use crate::{Error, KvmVcpu, ioctls};

impl KvmVcpu {
    pub(super) fn xsave(&self) -> Result<Vec<u32>, Error> {
        let max = self.lens.xsave_words;
        if max == XSAVE_WORDS {
            return Ok(self.fd.get_xsave().named("KVM_GET_XSAVE")?.region.to_vec());
        }
        let mut area = area(max)?;
        ioctls::xsave(&self.fd, &mut area, max).named("KVM_GET_XSAVE2")?;
        Ok([&area.as_fam_struct_ref().xsave.region, area.as_slice()].concat())
    }

    pub(super) fn set_xsave(&self, words: &[u32]) -> Result<(), Error> {
        let (region, extra) = split(words, self.lens.xsave_words)?;
        let mut area = area(self.lens.xsave_words)?;
        area.as_mut_slice()[..extra.len()].copy_from_slice(extra);
        ioctls::set_xsave(&self.fd, &mut area, region).named("KVM_SET_XSAVE")
    }
}

/// Splits an area into the part that every KVM supports and the rest. An area longer than `max`, this host's
/// length, is from a processor with features that this one lacks.
fn split(words: &[u32], max: usize) -> Result<(&[u32], &[u32]), Error> {
    let parts = words.split_at_checked(XSAVE_WORDS).filter(|_| words.len() <= max);
    parts.ok_or(Error::XsaveLen { len: words.len() * 4, max: max * 4 })
}

/// Allocates a zeroed area of `words` 32-bit words.
fn area(words: usize) -> Result<Xsave, Error> {
    let no_room = |_| Error::Ioctl { name: "KVM_GET_XSAVE2", source: std::io::ErrorKind::OutOfMemory.into() };
    Xsave::new(words - XSAVE_WORDS).map_err(no_room)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With AMX: XTILEDATA occupies 8 KiB from byte 2816 on.
    const AMX_WORDS: usize = (2816 + 8192) / 4;

    #[test]
    fn area_with_amx_is_set_whole_where_there_is_amx() {
        let words: Vec<u32> = (0..AMX_WORDS as u32).collect();
        let (region, extra) = split(&words, AMX_WORDS).unwrap();
        assert_eq!((region.len(), extra.len()), (1024, 1728));
        assert_eq!((region[1023], extra[0], extra[1727]), (1023, 1024, 2751));
        assert_eq!(area(AMX_WORDS).unwrap().as_slice().len(), 1728);
    }

    #[test]
    fn area_of_a_host_without_amx_is_set_where_there_is_amx() {
        let (region, extra) = split(&[7; 1024], AMX_WORDS).unwrap();
        assert_eq!((region, extra), (&[7; 1024][..], &[][..]));
    }

    #[test]
    fn area_with_amx_is_refused_without_amx() {
        let refused = split(&[0; AMX_WORDS], XSAVE_WORDS).unwrap_err().to_string();
        assert!(
            refused.starts_with("the XSAVE area has 11008 bytes, this host's KVM takes 4096 to 4096"),
            "{refused}"
        );
    }

    #[test]
    fn area_that_is_cut_short_is_refused() {
        let refused = split(&[0; XSAVE_WORDS - 1], AMX_WORDS).unwrap_err().to_string();
        assert!(
            refused.starts_with("the XSAVE area has 4092 bytes, this host's KVM takes 4096 to 11008"),
            "{refused}"
        );
    }
}
