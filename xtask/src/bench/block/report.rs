//! Prints the tables of disk throughput and of what a request costs.

use super::super::spec::{BlockSample, BlockSpec, Costs, Figure};
use super::super::stats::{median, ratio, shown};
use super::fio::{HOST, JOBS, Job};

/// Goals for the disk by PCI: at least so many times its throughput by MMIO in these jobs.
const PCI_GOALS: [(&str, f64); 3] = [("randread-1", 1.25), ("randread-32", 1.25), ("read-8", 1.15)];
/// The contenders' names that the goals compare.
pub(super) const PCI: &str = "vmm-bin";
pub(super) const MMIO: &str = "vmm-bin, MMIO";

pub(super) fn print(spec: &BlockSpec, samples: &[BlockSample]) {
    print!("{}", table(spec, samples));
}

/// Tables of medians with a line per job: throughput, for a monitor also the median of its share of the file's throughput in the same
/// round; what a request costs each monitor; what the boot has cost; then the goals.
fn table(spec: &BlockSpec, samples: &[BlockSample]) -> String {
    let rounds = Rounds { spec, samples };
    let heads = spec.contenders.iter().map(|contender| format!(" {:>20}", contender.name));
    let heads = heads.collect::<String>();
    let mut lines = vec![String::new(), format!("{:<38} {:<6} {HOST:>10}{heads}", "", "")];
    for job in &JOBS {
        let host = rounds.middle(None, job, |figure| Some(job.unit.of(figure)));
        let cells = (0..spec.contenders.len()).map(|index| {
            let share = rounds.ratio(Some(index), None, job);
            let share = share.map_or(String::new(), |share| format!(" ({:.1} %)", share * 100.0));
            let figure = rounds.middle(Some(index), job, |figure| Some(job.unit.of(figure)));
            format!(" {:>20}", format!("{}{share}", shown(figure, 0)))
        });
        let cells = cells.collect::<String>();
        lines.push(format!("{:<38} {:<6} {:>10}{cells}", job.title, job.unit.name(), shown(host, 0)));
    }
    let mut section = |title: &str, decimals: usize, count: fn(&Costs) -> Option<f64>| {
        lines.push(format!("{title:<56}{heads}"));
        for job in &JOBS {
            let each = |figure: &Figure| {
                let requests = (figure.kib / job.kib) as f64;
                (requests > 0.0).then_some(count(&figure.costs?)? / requests)
            };
            let cell = |index| format!(" {:>20}", shown(rounds.middle(Some(index), job, each), decimals));
            lines.push(format!("{:<56}{}", job.title, contenders(spec, cell)));
        }
    };
    section("returns of KVM_RUN per request", 3, Costs::returns);
    section("interrupts per request", 3, Costs::interrupts);
    section("processor time of the monitor per request, us", 0, Costs::cpu_us);
    lines.push(format!("{:<56}{heads}", "boot"));
    let boot = |title, count| {
        let cell = |index| format!(" {:>20}", shown(rounds.boot(index, count), 0));
        format!("{title:<56}{}", contenders(spec, cell))
    };
    lines.push(boot("returns of KVM_RUN", Costs::returns));
    lines.push(boot("processor time of the monitor, us", Costs::cpu_us));
    lines.extend(rounds.goals());
    let cache = if spec.direct { "bypassing the page cache" } else { "through the host's page cache" };
    lines.push(format!(
        "medians of {} rounds; in brackets the share of fio's throughput on the file itself, {cache}, in the same round; processor time \
         includes the guest's",
        spec.rounds
    ));
    lines.join("\n") + "\n"
}

/// The cells of all contenders.
fn contenders(spec: &BlockSpec, cell: impl Fn(usize) -> String) -> String {
    (0..spec.contenders.len()).map(cell).collect()
}

struct Rounds<'a> {
    spec: &'a BlockSpec,
    samples: &'a [BlockSample],
}

impl Rounds<'_> {
    fn sample(&self, who: Option<usize>, round: u32) -> Option<&BlockSample> {
        self.samples.iter().find(|sample| sample.round == round && sample.contender == who)
    }

    fn figure(&self, who: Option<usize>, round: u32, job: &Job) -> Option<&Figure> {
        self.sample(who, round)?.figures.iter().find(|figure| figure.job == job.name)
    }

    fn middle(&self, who: Option<usize>, job: &Job, value: impl Fn(&Figure) -> Option<f64>) -> Option<f64> {
        median((0..self.spec.rounds).filter_map(|round| value(self.figure(who, round, job)?)).collect())
    }

    /// The median of the ratios of `who` to `other` in the same round.
    fn ratio(&self, who: Option<usize>, other: Option<usize>, job: &Job) -> Option<f64> {
        let of = |who, round| self.figure(who, round, job).map(|figure| job.unit.of(figure));
        let each = |round| ratio(of(who, round), of(other, round)).filter(|ratio| ratio.is_finite());
        median((0..self.spec.rounds).filter_map(each).collect())
    }

    fn boot(&self, who: usize, count: fn(&Costs) -> Option<f64>) -> Option<f64> {
        let of = |round| count(&self.sample(Some(who), round)?.boot?);
        median((0..self.spec.rounds).filter_map(of).collect())
    }

    /// A line for each goal that was measured.
    fn goals(&self) -> Vec<String> {
        let find = |name| self.spec.contenders.iter().position(|contender| contender.name == name);
        let goal = |(name, goal): (&str, f64)| {
            let job = JOBS.iter().find(|job| job.name == name)?;
            let ratio = self.ratio(Some(find(PCI)?), Some(find(MMIO)?), job)?;
            let result = if ratio >= goal { "met" } else { "missed" };
            Some(format!("goal: {PCI} at least {goal:.2} of {MMIO} in {}: {ratio:.2}: {result}", job.title))
        };
        PCI_GOALS.into_iter().filter_map(goal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::Contender;
    use super::*;

    fn spec(names: &[&str]) -> BlockSpec {
        BlockSpec {
            rounds: 2,
            seconds: 2,
            timeout_s: 1,
            warm: Vec::new(),
            disk: "disk".into(),
            disk_mib: 1,
            direct: false,
            fio: Vec::new(),
            contenders: names
                .iter()
                .map(|name| Contender { name: (*name).to_owned(), argv: Vec::new() })
                .collect(),
        }
    }

    fn sample(round: u32, contender: Option<usize>, iops: u64, costs: Option<Costs>) -> BlockSample {
        let figure = |job: &Job| Figure {
            job: job.name.to_owned(),
            iops,
            kib_per_s: iops * job.kib,
            kib: 1000 * job.kib,
            costs,
        };
        BlockSample { round, contender, figures: JOBS.iter().map(figure).collect(), boot: costs, error: None }
    }

    fn row<'a>(table: &'a str, section: &str, title: &str) -> &'a str {
        let section = table.split_once(section).unwrap().1;
        section.lines().find_map(|line| line.strip_prefix(title)).unwrap().trim()
    }

    #[test]
    fn table_has_costs_per_request() {
        // Each job of 1000 requests.
        let costs = Costs { returns: Some(2000), interrupts: 1000, packets: 0, cpu_ms: 50 };
        let samples = [
            sample(0, None, 200, None),
            sample(0, Some(0), 100, Some(costs)),
            sample(1, Some(0), 100, Some(costs)),
        ];
        let table = table(&spec(&["ours"]), &samples);
        assert!(
            row(&table, "host file", "random reads of 4 KiB, depth 1").ends_with(" 100 (50.0 %)"),
            "{table}"
        );
        assert_eq!(row(&table, "returns of KVM_RUN per request", "random reads of 4 KiB, depth 1"), "2.000");
        assert_eq!(row(&table, "interrupts per request", "reads of 128 KiB in order, depth 8"), "1.000");
        assert_eq!(
            row(&table, "processor time of the monitor per request", "writes of 128 KiB in order, depth 32"),
            "50"
        );
        assert_eq!(row(&table, "boot", "returns of KVM_RUN"), "2000");
    }

    #[test]
    fn table_has_a_dash_for_what_was_not_counted() {
        let costs = Costs { returns: None, interrupts: 1000, packets: 0, cpu_ms: 50 };
        let table = table(&spec(&["ours"]), &[sample(0, Some(0), 100, Some(costs))]);
        assert_eq!(row(&table, "returns of KVM_RUN per request", "random reads of 4 KiB, depth 1"), "-");
    }

    #[test]
    fn goal_compares_the_transports_in_the_same_round() {
        // The machine gets slower from round to round; the ratio stays.
        let samples = [
            sample(0, Some(0), 1200, None),
            sample(0, Some(1), 1000, None),
            sample(1, Some(0), 120, None),
            sample(1, Some(1), 100, None),
        ];
        let spec = spec(&[PCI, MMIO]);
        let goals = Rounds { spec: &spec, samples: &samples }.goals();
        assert_eq!(
            goals,
            [
                "goal: vmm-bin at least 1.25 of vmm-bin, MMIO in random reads of 4 KiB, depth 1: 1.20: missed",
                "goal: vmm-bin at least 1.25 of vmm-bin, MMIO in random reads of 4 KiB, depth 32: 1.20: missed",
                "goal: vmm-bin at least 1.15 of vmm-bin, MMIO in reads of 128 KiB in order, depth 8: 1.20: met",
            ]
        );
    }
}
