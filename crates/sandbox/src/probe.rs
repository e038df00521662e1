//! What would be possible on this host.

use std::io;

use crate::child::in_child;
use crate::filter::{ViolationAction, confine_thread, enable};
use crate::jail::{Jail, JailNetwork};
use crate::landlock::{Access, Ports, restrict};
use crate::report::Wall;
use crate::report::encoding::{decode, encode};

/// Tries all walls in a child process, which ends; this process isn't changed.
///
/// Call it on a thread that isn't confined. Other threads aren't disturbed.
///
/// # Errors
/// There is no child process to be had, or it died.
pub fn probe() -> io::Result<Vec<Wall>> {
    let walls = decode(&in_child(|| encode(&try_all()))?);
    if walls.is_empty() {
        Err(io::Error::other("the process that tried the sandbox died"))
    } else {
        Ok(walls)
    }
}

fn try_all() -> Vec<Wall> {
    let mut walls = match (Jail { network: JailNetwork::None, user: None }).enter() {
        Ok(walls) => walls,
        Err(error) => vec![Wall::missing("jail", error.to_string(), "run it as an ordinary user")],
    };
    walls.extend(restrict(Access {
        tcp_connect: Ports::Only(Vec::new()),
        tcp_bind: Ports::Only(Vec::new()),
        remove_in: Vec::new(),
        connect_in: Vec::new(),
    }));
    enable(ViolationAction::Trap);
    walls.push(match confine_thread("probe", &[]) {
        Ok(()) => Wall::up("system calls", "a filter per thread"),
        Err(error) => Wall::missing(
            "system calls",
            format!("the kernel takes no filter: {error}"),
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    });
    walls
}
