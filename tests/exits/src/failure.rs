//! Errors of the benchmark.

/// An error that ends the benchmark. `main` prints it.
pub(crate) type Failure = Box<dyn std::error::Error>;
