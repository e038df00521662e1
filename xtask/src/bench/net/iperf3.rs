//! The iperf3 jobs, and the parser of iperf3's output.

use serde::Deserialize;

use super::super::spec::NetFigure;

/// A line per job: its name, and its arguments besides server, duration and format.
pub(in super::super) const JOBS_TEXT: &str = include_str!("../../../../resources/bench/net-jobs");

/// The jobs, with their titles in the table.
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

/// The relevant part of iperf3's JSON report. Errors are in it, because iperf3's exit code doesn't show them.
#[derive(Deserialize)]
struct Report {
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

/// The result of `job`, from the client's JSON report.
///
/// # Errors
/// There is no report, it is incomplete, or it contains an error.
pub(in super::super) fn figure(job: &str, json: &str) -> Result<NetFigure, String> {
    if json.trim().is_empty() {
        return Err(format!("{job}: no report from iperf3 before the timeout"));
    }
    let report: Report =
        serde_json::from_str(json).map_err(|error| format!("{job}: iperf3's JSON: {error}: {json}"))?;
    let retransmits = report.end.sum_sent.and_then(|sent| sent.retransmits);
    match (report.error, report.end.sum_received) {
        (Some(error), _) => Err(format!("{job}: {error}")),
        (None, None) => Err(format!("{job}: iperf3's report lacks the receiver's results")),
        (None, Some(sum)) => Ok(NetFigure {
            job: job.to_owned(),
            mbit_per_s: sum.bits_per_second / 1e6,
            lost_percent: sum.lost_percent,
            retransmits,
            costs: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reports of iperf 3.12 with fewer fields, and without white space, as the guest prints them.
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
        assert_eq!(
            figure("udp-in", "\r\n"),
            Err("udp-in: no report from iperf3 before the timeout".to_owned())
        );
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
