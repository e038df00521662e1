//! What iperf3 says, and the jobs that it's given.

use serde::Deserialize;

use super::super::spec::NetFigure;

/// A line for each job: its name and its arguments beside the server, the time and the format.
pub(in super::super) const JOBS_TEXT: &str = include_str!("../../../../resources/bench/net-jobs");

/// The jobs, with what the table calls them.
pub(in super::super) const JOBS: [Job; 6] = [
    Job { name: "tcp-out", title: "TCP out" },
    Job { name: "tcp-in", title: "TCP in" },
    Job { name: "tcp4-out", title: "4 TCP out" },
    Job { name: "tcp4-in", title: "4 TCP in" },
    Job { name: "udp-out", title: "UDP out" },
    Job { name: "udp-in", title: "UDP in" },
];

/// One job.
#[derive(Debug)]
pub(in super::super) struct Job {
    pub(in super::super) name: &'static str,
    pub(super) title: &'static str,
}

/// The arguments of the job called `name`.
pub(in super::super) fn arguments(name: &str) -> impl Iterator<Item = &'static str> {
    let line = JOBS_TEXT.lines().find(|line| line.split(' ').next() == Some(name));
    line.into_iter().flat_map(|line| line.split(' ').skip(1))
}

/// The part of iperf3's JSON that is looked at. An error isn't told by its exit code.
#[derive(Deserialize)]
struct Said {
    end: Totals,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Totals {
    sum_sent: Option<Sent>,
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sent {
    retransmits: Option<u64>,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
    lost_percent: Option<f64>,
}

/// What `job` reached, by what the client said in JSON.
pub(in super::super) fn figure(job: &str, said: &str) -> Result<NetFigure, String> {
    if said.trim().is_empty() {
        return Err(format!("{job}: iperf3 had no answer in time"));
    }
    let said: Said =
        serde_json::from_str(said).map_err(|error| format!("{job}: iperf3's JSON: {error}: {said}"))?;
    let retransmits = said.end.sum_sent.and_then(|sent| sent.retransmits);
    match (said.error, said.end.sum_received) {
        (Some(error), _) => Err(format!("{job}: {error}")),
        (None, None) => Err(format!("{job}: iperf3 says nothing of the receiver")),
        (None, Some(sum)) => Ok(NetFigure {
            job: job.to_owned(),
            mbit_per_s: sum.bits_per_second / 1e6,
            lost_percent: sum.lost_percent,
            retransmits,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As iperf 3.12 says it, with fewer fields, and without white space as the guest prints it.
    const TCP: &str = r#"{"end":{"streams":[{"sender":{"end":1.0,"bits_per_second":9}}],
        "sum_sent":{"bits_per_second":20663330408.731434,"retransmits":7,"sender":true},
        "sum_received":{"start":0,"end":1.0,"bits_per_second":20649113207.07613,"sender":true}}}"#;
    const UDP: &str = r#"{"end":{"sum":{"bits_per_second":1930438865.7,"lost_percent":61.1},
        "sum_received":{"bytes":93727592,"bits_per_second":747338078.9,"lost_packets":101834,"lost_percent":61.1}}}"#;

    #[test]
    fn figure_of_tcp_is_what_was_received() {
        let figure = figure("tcp-out", TCP).unwrap();
        assert_eq!(figure.mbit_per_s.round(), 20649.0);
        assert_eq!((figure.lost_percent, figure.retransmits), (None, Some(7)));
    }

    #[test]
    fn figure_of_udp_has_its_loss() {
        let figure = figure("udp-out", UDP).unwrap();
        assert_eq!(figure.mbit_per_s.round(), 747.0);
        assert_eq!(figure.lost_percent, Some(61.1));
    }

    #[test]
    fn figure_of_a_client_without_a_server_is_its_error() {
        let said =
            r#"{"start":{"connected":[]},"intervals":[],"end":{},"error":"unable to connect to server"}"#;
        assert_eq!(figure("tcp-in", said), Err("tcp-in: unable to connect to server".to_owned()));
    }

    #[test]
    fn figure_of_a_killed_client_is_an_error() {
        assert_eq!(figure("udp-in", "\r\n"), Err("udp-in: iperf3 had no answer in time".to_owned()));
    }

    #[test]
    fn figure_of_json_cut_short_is_an_error() {
        let error = figure("udp-in", r#"{"end":{"sum"#).unwrap_err();
        assert!(error.starts_with("udp-in: iperf3's JSON: "), "{error}");
    }

    #[test]
    fn jobs_are_those_of_the_file() {
        let names: Vec<&str> = JOBS_TEXT.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, JOBS.map(|job| job.name));
    }

    #[test]
    fn arguments_of_a_job_are_those_of_its_line() {
        assert_eq!(arguments("tcp4-in").collect::<Vec<_>>(), ["-P", "4", "-R"]);
        assert_eq!(arguments("tcp-out").count(), 0);
    }
}
