//! What a monitor's own network costs in memory for each connection that is open and idle.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::super::super::spec::{FlowsSample, NetSpec};
use super::super::smaps::private_kib;

/// The port is as resources/bench/net-flows has it.
pub(super) const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 5200);
/// A connection over which nothing has gone for so long is idle: a monitor may need a little time to see that.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// What every guest connects to.
#[derive(Debug)]
pub(super) struct Listener {
    streams: Receiver<TcpStream>,
}

impl Listener {
    /// Accepts from now on, as long as this process lives.
    pub(super) fn start(listener: TcpListener) -> Self {
        let (sender, streams) = channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if sender.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { streams }
    }

    /// Forgets what a guest that failed has left. To be done before the next one starts.
    pub(super) fn clear(&self) {
        while self.streams.try_recv().is_ok() {}
    }

    /// The memory of the monitor `pid` without and with the connections of the guest. The guest makes one to talk on, waits for
    /// a line, makes the others, says how many they are, and keeps them until another line comes. They're idle after `quiet`.
    pub(super) fn measure(
        &self,
        pid: u32,
        spec: &NetSpec,
        quiet: Duration,
        deadline: Instant,
    ) -> Result<FlowsSample, String> {
        let own_kib = || {
            let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"));
            smaps
                .map(|smaps| private_kib(&smaps, spec.mem_mib))
                .map_err(|error| format!("can't read the monitor's smaps: {error}"))
        };
        let next = || {
            let left = deadline.saturating_duration_since(Instant::now());
            self.streams.recv_timeout(left).map_err(|_| "the guest opens no connections in time".to_owned())
        };
        let lost = |error| format!("the guest's first connection: {error}");
        let talk = next()?;
        let left = deadline.saturating_duration_since(Instant::now());
        talk.set_read_timeout(Some(left)).map_err(lost)?;
        let before_kib = own_kib()?;
        (&talk).write_all(b"\n").map_err(lost)?;
        let mut line = String::new();
        BufReader::new(&talk).read_line(&mut line).map_err(lost)?;
        if line.trim_end() != spec.flows.to_string() {
            return Err(format!("of {} connections the guest has {:?}:", spec.flows, line.trim_end()));
        }
        let flows = (0..spec.flows).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
        let opened_kib = own_kib()?;
        thread::sleep(quiet);
        let idle_kib = own_kib()?;
        drop(flows);
        (&talk).write_all(b"\n").map_err(lost)?;
        Ok(FlowsSample { before_kib, opened_kib, idle_kib })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// What resources/bench/net-flows does.
    fn guest(server: SocketAddr, count: u32) {
        let talk = TcpStream::connect(server).unwrap();
        let mut lines = BufReader::new(&talk).lines();
        lines.next().unwrap().unwrap();
        let _flows: Vec<_> = (0..count).map(|_| TcpStream::connect(server).unwrap()).collect();
        writeln!(&talk, "{count}").unwrap();
        // No line comes where the count is wrong.
        let _ = lines.next();
    }

    fn measured(asked_for: u32, opened: u32) -> Result<FlowsSample, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::start(listener);
        let spec = NetSpec {
            rounds: 1,
            seconds: 1,
            timeout_s: 60,
            // More than any mapping of a test's has: nothing is taken for guest RAM.
            mem_mib: 1 << 20,
            flows: asked_for,
            warm: Vec::new(),
            iperf3: Vec::new(),
            contenders: Vec::new(),
        };
        thread::scope(|scope| {
            scope.spawn(|| guest(address, opened));
            let deadline = Instant::now() + Duration::from_secs(60);
            listener.measure(std::process::id(), &spec, Duration::ZERO, deadline)
        })
    }

    #[test]
    fn measure_all_connections_gives_memory_before_and_after() {
        let flows = measured(3, 3).unwrap();
        assert!(flows.before_kib > 0 && flows.opened_kib > 0 && flows.idle_kib > 0, "{flows:?}");
    }

    #[test]
    fn measure_too_few_connections_is_an_error() {
        assert_eq!(measured(3, 2), Err("of 3 connections the guest has \"2\":".to_owned()));
    }
}
