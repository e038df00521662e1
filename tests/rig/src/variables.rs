//! Environment variables: where this process runs, and what it may skip.

use std::env;

/// Set to 1 for everything that runs in the rig.
pub const IN_RIG: &str = "VMM_IN_RIG";

/// Set to 1 to make guest tests fail if they can't run. `cargo xtask test` sets it in CI.
pub const REQUIRE_GUESTS: &str = "VMM_REQUIRE_GUESTS";

/// Whether this process runs in the rig.
pub fn in_rig() -> bool {
    is_set(IN_RIG)
}

/// Whether a guest test that can't run must fail rather than be reported as ignored.
pub fn guests_required() -> bool {
    is_set(REQUIRE_GUESTS)
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value == "1")
}
