//! Prints the tables of network throughput, and which goals are met.

use super::super::spec::{Costs, FlowsSample, NetFigure, NetKind, NetResults, NetSample, NetSpec};
use super::super::stats::{median, ratio, shown};
use super::iperf3::JOBS;

/// Goal for the memory of 100 idle connections: 1 MiB.
const FLOWS_GOAL_KIB: f64 = 1024.0;
/// Goal for the throughput in user mode, as a share of a TAP's.
const USER_GOAL: f64 = 0.5;

/// Goal for the throughput in the sandbox, as a share of that without it: within what rounds differ by.
const CONFINED_GOAL: f64 = 0.95;

pub(super) fn print(spec: &NetSpec, results: &NetResults) {
    print!("{}", table(spec, results));
}

/// Tables of medians: throughput in Mbit/s, its share of the veth pair's and its ratio to the first other monitor's in the same round,
/// and lost datagrams; then goals and remarks.
fn table(spec: &NetSpec, results: &NetResults) -> String {
    let rounds = Rounds { spec, results };
    let everybody: Vec<Option<usize>> =
        [None].into_iter().chain((0..spec.contenders.len()).map(Some)).collect();
    let first_peer = spec.contenders.iter().position(|contender| !contender.kind.is_ours());
    let mut lines = vec![String::new()];
    let mut section = |title: &str, decimals: usize, value: &dyn Fn(Option<usize>, &str) -> Option<f64>| {
        let titles: Vec<_> = JOBS.iter().map(|job| format!(" {:>10}", job.title)).collect();
        lines.push(format!("{title:<32}{}", titles.concat()));
        for who in &everybody {
            let cells = JOBS.iter().map(|job| format!(" {:>10}", shown(value(*who, job.name), decimals)));
            let cells = if rounds.is_left_out(*who) { "   left out".to_owned() } else { cells.collect() };
            lines.push(format!("  {:<30}{cells}", rounds.name(*who)));
        }
    };
    section("Mbit/s", 0, &|who, job| median(rounds.of(who, job, |figure| Some(figure.mbit_per_s)).collect()));
    section("share of veth's", 2, &|who, job| rounds.ratio(who, None, job));
    if first_peer.is_some() {
        let title = format!("ratio to {}", rounds.name(first_peer));
        section(&title, 2, &|who, job| rounds.ratio(who, first_peer, job));
    }
    let per_packet = |who, job: &str, count: fn(&Costs) -> Option<f64>| {
        let each = |figure: &NetFigure| {
            let costs = figure.costs.filter(|costs| costs.packets > 0)?;
            Some(count(&costs)? / costs.packets as f64)
        };
        median(rounds.of(who, job, each).collect())
    };
    section("returns of KVM_RUN per packet", 3, &|who, job| per_packet(who, job, Costs::returns));
    section("interrupts per packet", 3, &|who, job| per_packet(who, job, Costs::interrupts));
    section("processor time per packet, us", 0, &|who, job| per_packet(who, job, Costs::cpu_us));
    section("lost, %", 1, &|who, job| median(rounds.of(who, job, |figure| figure.lost_percent).collect()));
    lines.extend(rounds.goals());
    lines.extend(rounds.remarks());
    lines.join("\n") + "\n"
}

struct Rounds<'a> {
    spec: &'a NetSpec,
    results: &'a NetResults,
}

impl Rounds<'_> {
    fn name(&self, who: Option<usize>) -> &str {
        who.map_or("veth", |index| &self.spec.contenders[index].name)
    }

    fn is_left_out(&self, who: Option<usize>) -> bool {
        self.results.left_out.iter().any(|(index, _)| Some(*index) == who)
    }

    fn sample(&self, who: Option<usize>, round: u32) -> Option<&NetSample> {
        self.results.samples.iter().find(|sample| sample.contender == who && sample.round == round)
    }

    fn figure(&self, who: Option<usize>, round: u32, job: &str) -> Option<&NetFigure> {
        self.sample(who, round)?.figures.iter().find(|figure| figure.job == job)
    }

    fn of(
        &self,
        who: Option<usize>,
        job: &str,
        value: impl Fn(&NetFigure) -> Option<f64>,
    ) -> impl Iterator<Item = f64> {
        (0..self.spec.rounds).filter_map(move |round| value(self.figure(who, round, job)?))
    }

    /// The median of the ratios of `who` to `other` in the same round.
    fn ratio(&self, who: Option<usize>, other: Option<usize>, job: &str) -> Option<f64> {
        let mbit_per_s = |who, round| self.figure(who, round, job).map(|figure| figure.mbit_per_s);
        let each = |round| ratio(mbit_per_s(who, round), mbit_per_s(other, round));
        median((0..self.spec.rounds).filter_map(each).collect())
    }

    fn find(&self, kind: NetKind) -> Option<usize> {
        self.spec.contenders.iter().position(|contender| contender.kind == kind)
    }

    /// A line for each goal that was measured.
    fn goals(&self) -> Vec<String> {
        let mut pairs = vec![(NetKind::Tap, self.find(NetKind::Qemu), 1.0)];
        pairs.push((NetKind::Tap, self.find(NetKind::TapMmio), 1.0));
        pairs.push((NetKind::Vhost, self.find(NetKind::VhostMmio), 1.0));
        pairs.push((NetKind::Tap4, self.find(NetKind::Qemu4), 1.0));
        pairs.push((NetKind::Vhost, self.find(NetKind::QemuVhost), 1.0));
        let given = self.spec.contenders.iter().enumerate();
        let given = given.filter(|(_, contender)| contender.kind == NetKind::Peer);
        pairs.extend(given.map(|(index, _)| (NetKind::Tap, Some(index), 1.0)));
        pairs.push((NetKind::User, self.find(NetKind::Tap), USER_GOAL));
        pairs.push((NetKind::Tap, self.find(NetKind::TapOff), CONFINED_GOAL));
        pairs.push((NetKind::User, self.find(NetKind::UserOff), CONFINED_GOAL));
        let throughput =
            pairs.into_iter().filter_map(|(kind, other, goal)| self.goal(self.find(kind)?, other?, goal));
        throughput.chain(self.flows_goal()).collect()
    }

    /// Whether `who` reaches at least `goal` times the throughput of `other` in every job; `None` if nothing was measured.
    fn goal(&self, who: usize, other: usize, goal: f64) -> Option<String> {
        let ratios: Vec<_> = JOBS
            .iter()
            .filter_map(|job| Some((job.title, self.ratio(Some(who), Some(other), job.name)?)))
            .collect();
        let missed: Vec<_> = ratios
            .iter()
            .filter(|(_, ratio)| *ratio < goal)
            .map(|(title, ratio)| format!("{title} {ratio:.2}"))
            .collect();
        let result = match (ratios.len(), missed.len()) {
            (0, _) => return None,
            (_, 0) => "met".to_owned(),
            (all, _) => {
                format!("met in {} of {all}, missed: {}", all - missed.len(), missed.join(", "))
            }
        };
        let (who, other) = (self.name(Some(who)), self.name(Some(other)));
        Some(format!("goal: {who} at least {goal:?} of {other}: {result}"))
    }

    fn flows_goal(&self) -> Option<String> {
        let user = self.find(NetKind::User);
        user?;
        let kib = |round| self.sample(user, round)?.flows;
        let per_100 = |of: fn(&FlowsSample) -> u64| {
            let more = |flows: FlowsSample| of(&flows) as f64 - flows.before_kib as f64;
            let each = |flows| more(flows) * 100.0 / f64::from(self.spec.flows);
            median((0..self.spec.rounds).filter_map(kib).map(each).collect())
        };
        let (idle, opened) = (per_100(|flows| flows.idle_kib)?, per_100(|flows| flows.opened_kib)?);
        let result = if idle <= FLOWS_GOAL_KIB { "met" } else { "missed" };
        Some(format!(
            "goal: at most {FLOWS_GOAL_KIB:.0} KiB of the monitor's memory for 100 idle connections in user mode: {idle:.0} KiB ({} \
             connections; {opened:.0} KiB immediately after opening them): {result}",
            self.spec.flows
        ))
    }

    /// Notes on the conditions of the measurement, contenders left out, and errors.
    fn remarks(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "medians of {} rounds of {} s each, measured by the receiver; out: from the guest to the host; 4 TCP: four simultaneous \
             connections; UDP: as fast as the sender can",
            self.spec.rounds, self.spec.seconds
        )];
        if self.results.cpus < 5 {
            lines.push(format!(
                "measured on {} processor(s), which guest, monitor and server share: four queues can't be faster than one",
                self.results.cpus
            ));
        }
        lines.extend(
            self.results
                .left_out
                .iter()
                .map(|(index, why)| format!("left out: {}: {why}", self.name(Some(*index)))),
        );
        for sample in &self.results.samples {
            let said =
                |error| format!("round {}: {}: {error}", sample.round + 1, self.name(sample.contender));
            lines.extend(sample.errors.iter().map(said));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::NetContender;
    use super::*;

    fn contender(kind: NetKind, name: &str) -> NetContender {
        NetContender { kind, name: name.to_owned(), argv: Vec::new(), check: None }
    }

    fn spec(contenders: Vec<NetContender>) -> NetSpec {
        NetSpec {
            rounds: 3,
            seconds: 2,
            timeout_s: 1,
            mem_mib: 256,
            flows: 1000,
            warm: Vec::new(),
            iperf3: Vec::new(),
            contenders,
        }
    }

    fn sample(round: u32, contender: Option<usize>, mbit_per_s: f64) -> NetSample {
        let figures = vec![NetFigure {
            job: "tcp-out".to_owned(),
            mbit_per_s,
            lost_percent: None,
            retransmits: None,
            costs: None,
        }];
        NetSample { round, contender, figures, flows: None, errors: Vec::new() }
    }

    fn results(samples: Vec<NetSample>) -> NetResults {
        NetResults { cpus: 1, left_out: Vec::new(), samples }
    }

    #[test]
    fn ratio_is_the_median_of_those_in_the_same_round() {
        // The machine gets slower from round to round; the ratio stays.
        let spec = spec(vec![contender(NetKind::Tap, "ours")]);
        let pair = |round, veth| [sample(round, None, veth), sample(round, Some(0), veth * 0.4)];
        let results =
            results([pair(0, 1000.0), pair(1, 100.0), pair(2, 10.0)].into_iter().flatten().collect());
        let ratio = Rounds { spec: &spec, results: &results }.ratio(Some(0), None, "tcp-out").unwrap();
        assert_eq!((ratio * 100.0).round(), 40.0);
    }

    #[test]
    fn goal_missed_names_the_job_and_its_ratio() {
        let spec = spec(vec![contender(NetKind::Tap, "ours"), contender(NetKind::Peer, "other")]);
        let results = results(vec![sample(0, Some(0), 90.0), sample(0, Some(1), 100.0)]);
        assert_eq!(
            Rounds { spec: &spec, results: &results }.goals(),
            ["goal: ours at least 1.0 of other: met in 0 of 1, missed: TCP out 0.90"]
        );
    }

    #[test]
    fn goal_of_one_who_was_left_out_is_not_judged() {
        let spec = spec(vec![contender(NetKind::Tap, "ours"), contender(NetKind::User, "user")]);
        let mut results = results(vec![sample(0, Some(0), 90.0)]);
        results.left_out.push((1, "devices[0].backend: no such word".to_owned()));
        let rounds = Rounds { spec: &spec, results: &results };
        assert!(rounds.goals().is_empty());
        assert!(table(&spec, &results).contains("\n  user                             left out\n"));
        assert!(rounds.remarks().contains(&"left out: user: devices[0].backend: no such word".to_owned()));
    }

    #[test]
    fn goal_of_idle_connections_counts_those_of_the_spec() {
        let spec = spec(vec![contender(NetKind::User, "user")]);
        // 9000 KiB more for 1000 connections: 900 KiB for each hundred.
        let flows = FlowsSample { before_kib: 5000, opened_kib: 35_000, idle_kib: 14_000 };
        let results = results(vec![NetSample { flows: Some(flows), ..sample(0, Some(0), 1.0) }]);
        let goals = Rounds { spec: &spec, results: &results }.goals();
        let figures =
            "in user mode: 900 KiB (1000 connections; 3000 KiB immediately after opening them): met";
        assert!(goals[0].ends_with(figures), "{goals:?}");
    }

    #[test]
    fn table_has_a_dash_for_what_failed() {
        let spec = spec(vec![contender(NetKind::Tap, "ours")]);
        let mut failed = sample(0, Some(0), 1.0);
        failed.figures.clear();
        failed.errors.push("tcp-out: unable to connect".to_owned());
        let table = table(&spec, &results(vec![sample(0, None, 4321.0), failed]));
        let row = |name: &str| table.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        assert!(row("veth").contains("4321"), "{table}");
        assert!(row("ours").split_whitespace().skip(1).all(|cell| cell == "-"), "{table}");
        assert!(table.contains("round 1: ours: tcp-out: unable to connect\n"), "{table}");
    }
}
