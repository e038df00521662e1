//! What KVM can have or lack.

/// Something that KVM has or lacks (KVM api.rst, KVM_CHECK_EXTENSION).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name in api.rst.
    pub name: &'static str,
    /// Its number.
    pub number: u32,
}

/// Names a capability by its constant.
macro_rules! capability {
    ($name:ident) => {
        $crate::Capability { name: stringify!($name), number: $name }
    };
}
pub(crate) use capability;
