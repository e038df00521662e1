//! What a filter allows, as constants beside the code that needs it.

/// A system call that a thread may make, perhaps only with certain arguments.
///
/// Arguments are numbered from 0. Only their lower 32 bits are compared, since the kernel ignores the upper ones of ioctl's request,
/// of socket's family, of protections, flags and identifiers; don't declare a condition on an address or a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow {
    pub(crate) call: libc::c_long,
    pub(crate) condition: Condition,
}

/// When a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    /// The argument is one of the values.
    OneOf {
        argument: u8,
        values: &'static [u32],
    },
    /// (argument & mask) == value
    Masked {
        argument: u8,
        mask: u32,
        value: u32,
    },
    /// Each of the arguments is one of its values.
    All(&'static [(u8, &'static [u32])]),
    /// The argument is the number of this process.
    OwnProcess {
        argument: u8,
    },
}

impl Allow {
    /// `call`, with any arguments.
    #[must_use]
    pub const fn call(call: libc::c_long) -> Self {
        Self { call, condition: Condition::Always }
    }

    /// `call`, if `argument` equals one of `values`. They are compared in their order: put the most frequent one first.
    ///
    /// # Panics
    /// There is no such argument. In a constant that is an error of the compiler.
    #[must_use]
    pub const fn when(call: libc::c_long, argument: u8, values: &'static [u32]) -> Self {
        assert!(argument < 6, "a system call has six arguments");
        Self { call, condition: Condition::OneOf { argument, values } }
    }

    /// `call`, if each of these arguments equals one of its values.
    ///
    /// # Panics
    /// There is no such argument. In a constant that is an error of the compiler.
    #[must_use]
    pub const fn all(call: libc::c_long, arguments: &'static [(u8, &'static [u32])]) -> Self {
        let mut at = 0;
        while at < arguments.len() {
            assert!(arguments[at].0 < 6, "a system call has six arguments");
            at += 1;
        }
        Self { call, condition: Condition::All(arguments) }
    }

    /// `call`, if the bits of `mask` in `argument` are those of `value`.
    ///
    /// # Panics
    /// There is no such argument, or `value` has bits outside `mask`. In a constant that is an error of the compiler.
    #[must_use]
    pub const fn masked(call: libc::c_long, argument: u8, mask: u32, value: u32) -> Self {
        assert!(argument < 6, "a system call has six arguments");
        assert!(value & !mask == 0, "no argument can equal this value");
        Self { call, condition: Condition::Masked { argument, mask, value } }
    }

    /// `call`, if `argument` is the number of the process that the thread belongs to.
    ///
    /// # Panics
    /// There is no such argument. In a constant that is an error of the compiler.
    #[must_use]
    pub const fn own_process(call: libc::c_long, argument: u8) -> Self {
        assert!(argument < 6, "a system call has six arguments");
        Self { call, condition: Condition::OwnProcess { argument } }
    }
}
