//! The variables that say where this process runs and what it may leave out.

use std::env;

/// Set to 1 for everything that runs inside the rig.
pub const IN_RIG: &str = "VMM_IN_RIG";

/// Set to 1 to make it a failure that a guest test can't run. `cargo xtask test` sets it in CI.
pub const REQUIRE_GUESTS: &str = "VMM_REQUIRE_GUESTS";

/// Whether this process runs inside the rig.
pub fn in_rig() -> bool {
    is_set(IN_RIG)
}

/// Whether a guest test that can't run must fail instead of being reported as ignored.
pub fn guests_required() -> bool {
    is_set(REQUIRE_GUESTS)
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value == "1")
}
