//! Changes to a card at run time.

use serde::Deserialize;
use serde_json::Value;
use vmm_config::read_update;
use vmm_virtio::{DeviceError, Session};

use super::Net;
use crate::limits::Limits;

/// Fields that can be changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    link: Option<LinkState>,
    limits: Option<Limits>,
}

/// Simulates plugging or pulling a cable.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum LinkState {
    Up,
    Down,
}

impl Net {
    /// Replaces the limits, and sets the link up or down. Without a session, the driver is notified at its
    /// start.
    pub(super) fn apply(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        let Update { link, limits } = read_update(fields)?;
        let limiter = limits.map(|limits| limits.limiter()).transpose()?;
        if let Some(limiter) = limiter {
            if limiter.is_some() && self.kernel.is_some() {
                let problem = "not supported with \"vhost\", where the host's kernel moves the frames";
                return Err(DeviceError::config("limits", problem));
            }
            self.pace.limit(limiter);
        }
        if let Some(link) = link {
            self.is_unplugged = matches!(link, LinkState::Down);
            if let Some(session) = session {
                self.follow_plug(session);
            }
        }
        Ok(())
    }

    fn follow_plug(&mut self, session: &mut Session) {
        if let Some(kernel) = &mut self.kernel {
            if self.is_unplugged {
                kernel.release(session);
            }
            // The event looks at the queues, or lends them again.
            self.pace.come_again();
        }
        self.settle_link(session);
    }
}
