//! Commands on the control queue (virtio 1.2 §5.1.6.5).

use vmm_virtio::{Buffers, Fault, Session, Step};

use super::Net;

/// VIRTIO_NET_CTRL_MQ and its VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (virtio 1.2 §5.1.6.5.5).
const MQ_PAIRS_SET: [u8; 2] = [4, 0];
const OK: u8 = 0;
const ERR: u8 = 1;

impl Net {
    pub(super) fn control(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let most = self.pairs.len();
        let mut wanted = None;
        session.drain(queue, |chain| {
            let Some((_, ack)) = chain.writable().split_end(1) else {
                return Err(Fault::Request("a network card's command has no room for its response"));
            };
            let pairs = pairs(&chain.readable()).filter(|pairs| (1..=most).contains(pairs));
            counters.requests.add(1);
            if pairs.is_none() {
                counters.errors.add(1);
            }
            wanted = pairs.or(wanted);
            ack.write(&[if pairs.is_some() { OK } else { ERR }])?;
            Ok(Step::Used(1))
        })?;
        let Some(wanted) = wanted else { return Ok(()) };
        self.activate(wanted, session);
        // Their chains may have arrived before the command.
        (0..wanted).try_for_each(|pair| self.receive(pair, session))
    }
}

/// The number of queue pairs that a command requests; `None` for any other command.
fn pairs(command: &Buffers<'_>) -> Option<usize> {
    let mut bytes = [0; 4];
    command.read(&mut bytes).ok()?;
    let [class, what, low, high] = bytes;
    ([class, what] == MQ_PAIRS_SET).then(|| u16::from_le_bytes([low, high]).into())
}
