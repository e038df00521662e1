//! What of the devices goes into the log, and how much of it.

use std::collections::HashMap;

use tracing::warn;
use vmm_virtio::{Fault, Notices};

/// Faults of a device's driver that are told; a guest could make them without end.
const FAULTS: u32 = 5;
/// Lines that a device may say itself. A network card names up to 256 destinations that it refused.
const NOTICES: u32 = 512;

/// How much each device has had in the log so far. It outlives the machines, so that a guest that restarts for ever
/// doesn't fill the log either.
#[derive(Debug, Default)]
pub(crate) struct DeviceLog(HashMap<String, Had>);

#[derive(Debug, Default)]
struct Had {
    faults: u32,
    notices: u32,
}

impl DeviceLog {
    pub(crate) fn tell(&mut self, id: &str, fault: Option<Fault>, notices: Notices) {
        for line in self.lines(id, fault, notices) {
            warn!("{line}");
        }
    }

    /// Those that may still go into the log.
    fn lines(&mut self, id: &str, fault: Option<Fault>, notices: Notices) -> Vec<String> {
        let Notices { mut texts, lost } = notices;
        if fault.is_none() && texts.is_empty() {
            return Vec::new();
        }
        let had = self.0.entry(id.to_owned()).or_default();
        let mut lines = Vec::new();
        if let Some(fault) = fault.filter(|_| had.faults < FAULTS) {
            had.faults += 1;
            lines.push(format!("device \"{id}\" needs a reset: its driver broke the rules: {fault}"));
        }
        if lost > 0 {
            texts.push(format!("{lost} more lines came too fast and are lost"));
        }
        for text in texts {
            if had.notices == NOTICES {
                had.notices += 1;
                lines.push(format!("device \"{id}\": it has said {NOTICES} lines; no more are told"));
            }
            if had.notices < NOTICES {
                had.notices += 1;
                lines.push(format!("device \"{id}\": {text}"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices(count: usize, lost: u64) -> Notices {
        Notices { texts: vec!["something".to_owned(); count], lost }
    }

    #[test]
    fn faults_are_told_five_times_for_each_device() {
        let mut log = DeviceLog::default();
        let fault = Some(Fault::AvailableIndex);
        let first = log.lines("rng", fault, Notices::default());
        let expected = "device \"rng\" needs a reset: its driver broke the rules: the available ring's index jumped by more \
            than the queue's size";
        assert_eq!(first, [expected]);
        let told: usize = (0..9).map(|_| log.lines("rng", fault, Notices::default()).len()).sum();
        assert_eq!(told, 4);
        assert_eq!(log.lines("lan", fault, Notices::default()).len(), 1);
    }

    #[test]
    fn notices_are_told_until_there_were_too_many() {
        let mut log = DeviceLog::default();
        assert_eq!(log.lines("lan", None, notices(511, 0)).len(), 511);
        let last = ["device \"lan\": something", "device \"lan\": it has said 512 lines; no more are told"];
        assert_eq!(log.lines("lan", None, notices(3, 0)), last);
        assert_eq!(log.lines("lan", None, notices(64, 0)), [""; 0]);
    }

    #[test]
    fn notices_that_were_lost_are_counted() {
        let lines = DeviceLog::default().lines("lan", None, notices(1, 7));
        let expected =
            ["device \"lan\": something", "device \"lan\": 7 more lines came too fast and are lost"];
        assert_eq!(lines, expected);
    }
}
