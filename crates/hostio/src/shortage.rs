//! The limit to raise when the host is out of descriptors.

use std::io;

/// What to raise, to be appended to a message that ends with `error`; empty if that isn't a lack of descriptors.
pub fn descriptor_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; raise the limit of open files (ulimit -n)",
        Some(libc::ENFILE) => "; raise the host's limit of open files (sysctl fs.file-max)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_is_of_the_limit_that_is_reached() {
        let remedy = |code| descriptor_remedy(&io::Error::from_raw_os_error(code));
        assert!(remedy(libc::EMFILE).contains("ulimit -n"));
        assert!(remedy(libc::ENFILE).contains("fs.file-max"));
        assert_eq!(remedy(libc::ENOMEM), "");
    }
}
