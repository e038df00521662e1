//! How the benchmark fails.

/// A failure that ends the benchmark; it's printed once, by main.
pub(crate) type Failure = Box<dyn std::error::Error>;
