//! The iperf3 server. There is one per contender, so that an unfinished job of one doesn't affect the next.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// The server prints this when clients can connect.
const READY: &str = "Server listening";
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server, killed when this is dropped.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Server {
    /// Starts a server and waits until it listens.
    pub(super) fn start(iperf3: &[String]) -> Result<Self, String> {
        let mut child = Command::new(&iperf3[0])
            .args(&iperf3[1..])
            .args(["-4", "-s", "-i", "0", "--forceflush"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("can't start {}: {error}", iperf3[0]))?;
        let stdout = child.stdout.take().expect("it is a pipe");
        let server = Self(child);
        let (sender, ready) = channel();
        // Reads to the end, so that the pipe never fills up.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains(READY) {
                    // After each client it prints this again, when nobody waits for it any more.
                    let _ = sender.send(());
                }
            }
        });
        ready.recv_timeout(READY_TIMEOUT).map_err(|_| "iperf3 doesn't listen on port 5201".to_owned())?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
