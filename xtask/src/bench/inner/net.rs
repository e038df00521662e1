//! Network benchmark: the same iperf3 jobs in each monitor's guest and between two namespaces, with the same server.

mod flows;
mod links;
mod server;

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use std::{env, fs};

use self::flows::Listener;
pub(in super::super) use self::links::{GUEST, HOST, TAP};
use self::links::{Tap, Veth, last_line};
use self::server::Server;
use super::super::net::iperf3::{self, JOBS, Job};
use super::super::part::Part;
use super::super::spec::{NetContender, NetFigure, NetKind, NetResults, NetSample, NetSpec};
use super::arguments::Arguments;
use super::costs::Counter;
use super::guest::Guest;
use crate::failure::{Failure, exit_code};

/// The guest prints this when all jobs are done.
const END_LINE: &str = "NET-END";
/// Script that runs its arguments with a higher limit of open files, for a thousand connections and the monitor's sockets, and with a
/// path that contains `ip`, unlike an ordinary user's.
const OWN_NETWORK: &str = r#"PATH=$PATH:/usr/sbin:/sbin; ulimit -n "$(ulimit -Hn)"; exec "$0" "$@""#;

/// Runs this program again with the same arguments, in a network namespace of its own. An unprivileged user needs a user namespace
/// for that.
pub(super) fn in_own_network(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut command = Command::new("unshare");
    command.arg("--net");
    if fs::metadata("/proc/self")?.uid() != 0 {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", OWN_NETWORK]).arg(env::current_exe()?);
    command.args(["bench-inner", Part::Net.name()]).arg(&arguments.spec).arg(&arguments.out);
    let status =
        command.arg("--own-network").status().map_err(|error| format!("can't start unshare: {error}"))?;
    Ok(exit_code(status.code().unwrap_or(1)))
}

/// Runs all rounds: in each, the veth pair first and then each guest.
pub(super) fn all(spec: &NetSpec) -> Result<NetResults, Failure> {
    super::warm::warm(&spec.warm)?;
    let veth = Veth::set_up()?;
    let listener =
        TcpListener::bind(flows::ADDRESS).map_err(|error| format!("can't listen on port 5200: {error}"))?;
    let listener = Listener::start(listener);
    let counter = Counter::start();
    let mut results = NetResults {
        cpus: available_parallelism().map_or(1, usize::from),
        left_out: Vec::new(),
        samples: Vec::new(),
    };
    for (index, contender) in spec.contenders.iter().enumerate() {
        if let Err(why) = check(contender) {
            println!("{} is left out: {why}", contender.name);
            results.left_out.push((index, why));
        }
    }
    for round in 0..spec.rounds {
        let mut sample = Sample::new(round, None);
        sample.run(|sample| between_namespaces(spec, &veth, sample));
        results.samples.push(sample.report(spec, "veth"));
        for (index, contender) in spec.contenders.iter().enumerate() {
            if results.left_out.iter().any(|(left_out, _)| *left_out == index) {
                continue;
            }
            let mut sample = Sample::new(round, Some(index));
            sample.run(|sample| guest(spec, contender, (&listener, &counter), sample));
            results.samples.push(sample.report(spec, &contender.name));
        }
    }
    Ok(results)
}

/// Checks that the monitor accepts its config; the error is its message.
fn check(contender: &NetContender) -> Result<(), String> {
    let Some(check) = &contender.check else { return Ok(()) };
    let _tap = Tap::make(contender.kind)?;
    let output = Command::new(&check[0])
        .args(&check[1..])
        .output()
        .map_err(|error| format!("can't start {}: {error}", check[0]))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(last_line(&output.stderr).trim_start_matches("error: ").to_owned()),
    }
}

/// A sample that is being taken.
struct Sample(NetSample);

impl Sample {
    fn new(round: u32, contender: Option<usize>) -> Self {
        Self(NetSample { round, contender, figures: Vec::new(), flows: None, errors: Vec::new() })
    }

    fn run(&mut self, jobs: impl FnOnce(&mut Self) -> Result<(), String>) {
        if let Err(error) = jobs(self) {
            self.0.errors.push(error);
        }
    }

    fn add(&mut self, figure: Result<NetFigure, String>) {
        match figure {
            Ok(figure) => self.0.figures.push(figure),
            Err(error) => self.0.errors.push(error),
        }
    }

    /// Prints a summary and returns the sample.
    fn report(self, spec: &NetSpec, name: &str) -> NetSample {
        let words = [&[format!("{} jobs", self.0.figures.len())], &self.0.errors[..]].concat().join("; ");
        println!("round {} of {}: {name}: {words}", self.0.round + 1, spec.rounds);
        self.0
    }
}

/// Runs iperf3 through the veth pair.
fn between_namespaces(spec: &NetSpec, veth: &Veth, sample: &mut Sample) -> Result<(), String> {
    let _server = Server::start(&spec.iperf3)?;
    for Job { name, .. } in &JOBS {
        let output = veth
            .command(&spec.iperf3)
            .args(["-c", links::VETH_HOST, "-t", &spec.seconds.to_string(), "-i", "0", "-J"])
            .args(iperf3::arguments(name))
            .output()
            .map_err(|error| format!("can't start nsenter: {error}"))?;
        sample.add(iperf3::figure(name, &String::from_utf8_lossy(&output.stdout)));
    }
    Ok(())
}

/// Runs iperf3 in the guest of a monitor.
fn guest(
    spec: &NetSpec,
    contender: &NetContender,
    (listener, counter): (&Listener, &Counter),
    sample: &mut Sample,
) -> Result<(), String> {
    let _tap = Tap::make(contender.kind)?;
    let _server = Server::start(&spec.iperf3)?;
    listener.clear();
    let mut guest = Guest::start(&contender.argv)?;
    let deadline = Instant::now() + Duration::from_secs(spec.timeout_s);
    if contender.kind == NetKind::User && spec.flows > 0 {
        match listener.measure(guest.pid(), spec, flows::QUIET, deadline) {
            Ok(flows) => sample.0.flows = Some(flows),
            Err(problem) => return Err(guest.end_with(&problem)),
        }
    }
    let mut jobs = || {
        let (_, meter) = counter.after_boot(&mut guest, deadline)?;
        for Job { name, .. } in &JOBS {
            let costs = meter.job(&mut guest, deadline)?;
            let said = guest.next_line(&format!("NET {name} "), deadline)?;
            sample.add(iperf3::figure(name, &said).map(|figure| NetFigure { costs: Some(costs), ..figure }));
        }
        guest.line(END_LINE, deadline).map(drop).map_err(str::to_owned)
    };
    jobs().map_err(|problem: String| guest.end_with(&problem))
}
