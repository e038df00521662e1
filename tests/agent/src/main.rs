//! `guest-agent COMMAND ARGUMENTS`: operations that tests run in the guest, most of them on the network. Each command prints its result as a line.

#![forbid(unsafe_code)]

mod clock;
mod endpoint;

use std::env;
use std::io::{self, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::endpoint::{Listener, Stream, connect};

const USAGE: &str = "guest-agent COMMAND
  echo LISTEN            accept connections and send everything back, for ever
  send PEER SEED LEN     connect, send LEN bytes of the sequence, and wait until the peer closes the connection
  take LISTEN SEED       accept one connection, and check the bytes received
  fetch PEER SEED        connect, and check the bytes received
  connect PEER           connect and close; print the time and the result
  ask ADDRESS            send a datagram and wait for a reply; print the time and the result
  many PEER COUNT        open COUNT simultaneous connections to an echo server, and use each
  hold PEER COUNT        keep COUNT connections open until standard input ends
  flood ADDRESS SECONDS  send datagrams as fast as possible
  clock ROUNDS           read the time on each processor in turn, and check that it never goes back
LISTEN is tcp:PORT or vsock:PORT, PEER tcp:ADDRESS:PORT or vsock:CID:PORT";

/// Timeout for a reply.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<String> {
    match words {
        ["echo", listen] => echo(&Listener::bind(listen)?),
        ["send", end, seed, len] => {
            let mut stream = connect(end)?;
            guest_agent::send(&mut stream, number(seed)?, number(len)?)?;
            stream.shutdown(Shutdown::Write)?;
            let left = io::copy(&mut stream, &mut io::sink())?;
            Ok(format!("sent {len}, then {left} came"))
        }
        ["take", listen, seed] => take(Listener::bind(listen)?.accept()?, number(seed)?),
        ["fetch", end, seed] => take(connect(end)?, number(seed)?),
        ["connect", end] => timed(|| connect(end).map(drop)),
        ["ask", address] => timed(|| ask(address)),
        ["many", end, count] => many(end, number(count)?),
        ["hold", end, count] => hold(end, number(count)?),
        ["clock", rounds] => clock::compare(number(rounds)?),
        ["flood", address, seconds] => flood(address, Duration::from_secs(number(seconds)?)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} isn't a number")))
}

fn echo(listener: &Listener) -> io::Result<String> {
    println!("listening");
    loop {
        let stream = listener.accept()?;
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let _ = io::copy(&mut &stream, &mut &stream);
            let _ = stream.shutdown(Shutdown::Write);
        })?;
    }
}

fn take(mut stream: Stream, seed: u64) -> io::Result<String> {
    Ok(format!("took {}", guest_agent::take(&mut stream, seed)?))
}

/// The time that `act` took in milliseconds, and its result.
fn timed(act: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    let begin = Instant::now();
    let outcome = act().map_or_else(|error| error.to_string(), |()| "done".to_owned());
    Ok(format!("{} ms: {outcome}", begin.elapsed().as_millis()))
}

fn ask(address: &str) -> io::Result<()> {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 16]).map(drop)
}

/// Writes to all connections before reading from any, so that all are open at the same time.
fn many(end: &str, count: usize) -> io::Result<String> {
    let mut streams = (0..count).map(|_| connect(end)).collect::<io::Result<Vec<_>>>()?;
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&index.to_le_bytes())?;
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; size_of::<usize>()];
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut back)?;
        if back != index.to_le_bytes() {
            return Err(io::Error::other(format!("connection {index} received bytes of another")));
        }
    }
    Ok(format!("{count} at once"))
}

fn hold(end: &str, count: usize) -> io::Result<String> {
    let streams = (0..count).map(|_| connect(end)).collect::<io::Result<Vec<_>>>()?;
    println!("{} held", streams.len());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok("let go".to_owned())
}

fn flood(address: &str, time: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let (until, mut sent) = (Instant::now() + time, 0_u64);
    while Instant::now() < until {
        // Errors are expected: the kernel may have no buffer, or nobody may listen at that port.
        sent += u64::from(socket.send_to(&[0; 1400], address).is_ok());
    }
    Ok(format!("sent {sent} datagrams"))
}
