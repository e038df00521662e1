//! KVM capabilities.

/// A KVM capability (KVM api.rst, KVM_CHECK_EXTENSION).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Name in api.rst.
    pub name: &'static str,
    /// Number for KVM_CHECK_EXTENSION.
    pub number: u32,
}

/// Makes a [`Capability`](crate::Capability) from the name of its constant.
macro_rules! capability {
    ($name:ident) => {
        $crate::Capability { name: stringify!($name), number: $name }
    };
}
pub(crate) use capability;
