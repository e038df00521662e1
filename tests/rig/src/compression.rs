//! Decompresses the contents of kernel packages: bzImage payloads and modules.

use std::io::Read;

use crate::error::{Error, Result};

/// Much larger than any kernel or module; a header with a larger size is damaged.
const MAX_LEN: u64 = 1 << 30;
/// Uncompressed size of every block except the last (Linux, lib/decompress_unlz4.c:
/// LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE).
const LZ4_LEGACY_BLOCK_LEN: usize = 8 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const LZ4_LEGACY: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
const ELF: &[u8] = b"\x7fELF";

/// Decompresses `bytes` according to their magic number; an ELF is returned unchanged. Data after the
/// compressed stream is ignored: the kernel's build appends the uncompressed size.
pub(crate) fn unpack(bytes: &[u8], what: &str) -> Result<Vec<u8>> {
    if bytes.starts_with(ELF) {
        Ok(bytes.to_vec())
    } else if bytes.starts_with(LZ4_LEGACY) {
        unpack_lz4_legacy(&bytes[LZ4_LEGACY.len()..], what)
    } else if bytes.starts_with(ZSTD) {
        let decoder =
            ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|error| damaged(what, "zstd", error))?;
        read_all(decoder, what, "zstd")
    } else if bytes.starts_with(XZ) {
        read_all(lzma_rust2::XzReader::new(bytes, false), what, "xz")
    } else if bytes.starts_with(GZIP) {
        read_all(flate2::bufread::GzDecoder::new(bytes), what, "gzip")
    } else {
        let magic = bytes.iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
        Err(Error::format(
            what,
            format!("neither ELF nor lz4, zstd, xz or gzip data (it starts with 0x{magic})"),
        ))
    }
}

/// A magic number, then blocks with a little-endian length. A length that exceeds the remaining data is the
/// appended size and ends the stream.
fn unpack_lz4_legacy(mut rest: &[u8], what: &str) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 || len > after.len() {
            break;
        }
        let block = lz4_flex::block::decompress(&after[..len], LZ4_LEGACY_BLOCK_LEN)
            .map_err(|error| damaged(what, "lz4", error))?;
        unpacked.extend_from_slice(&block);
        rest = &after[len..];
    }
    Ok(unpacked)
}

fn read_all(decoder: impl Read, what: &str, format: &str) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    decoder.take(MAX_LEN).read_to_end(&mut unpacked).map_err(|error| damaged(what, format, error))?;
    Ok(unpacked)
}

fn damaged(what: &str, format: &str, error: impl std::fmt::Display) -> Error {
    Error::format(what, format!("damaged {format} data: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lz4_legacy_appended_size_is_ignored() {
        // One block: token 0x50 (five literals, no match), "\x7fELF!", then the uncompressed size 5.
        let packed = b"\x02\x21\x4c\x18\x06\0\0\0\x50\x7fELF!\x05\0\0\0";
        assert_eq!(unpack(packed, "test").unwrap(), b"\x7fELF!");
    }

    #[test]
    fn gzip_reads_back() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"kernel").unwrap();
        assert_eq!(unpack(&encoder.finish().unwrap(), "test").unwrap(), b"kernel");
    }

    #[test]
    fn unknown_magic_is_named() {
        let error = unpack(b"PK\x03\x04rest", "kernel.zip").unwrap_err().to_string();
        assert_eq!(
            error,
            "kernel.zip: neither ELF nor lz4, zstd, xz or gzip data (it starts with 0x504b03047265)"
        );
    }
}
