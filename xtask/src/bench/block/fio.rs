//! The fio jobs, and the parser of fio's output.

use super::super::spec::Figure;

/// The name of the baseline in tables.
pub(in super::super) const HOST: &str = "host file";

/// The jobs of resources/rootfs/fio/jobs.
pub(in super::super) const JOBS: [Job; 9] = [
    Job { name: "randread-1", title: "random reads of 4 KiB, depth 1", unit: Unit::Iops, kib: 4 },
    Job { name: "randread-32", title: "random reads of 4 KiB, depth 32", unit: Unit::Iops, kib: 4 },
    Job { name: "randwrite-1", title: "random writes of 4 KiB, depth 1", unit: Unit::Iops, kib: 4 },
    Job { name: "randwrite-32", title: "random writes of 4 KiB, depth 32", unit: Unit::Iops, kib: 4 },
    Job { name: "read-1", title: "reads of 128 KiB in order, depth 1", unit: Unit::MibPerSecond, kib: 128 },
    Job { name: "read-8", title: "reads of 128 KiB in order, depth 8", unit: Unit::MibPerSecond, kib: 128 },
    Job { name: "read-32", title: "reads of 128 KiB in order, depth 32", unit: Unit::MibPerSecond, kib: 128 },
    Job { name: "write-1", title: "writes of 128 KiB in order, depth 1", unit: Unit::MibPerSecond, kib: 128 },
    Job {
        name: "write-32",
        title: "writes of 128 KiB in order, depth 32",
        unit: Unit::MibPerSecond,
        kib: 128,
    },
];

/// One job.
#[derive(Debug)]
pub(in super::super) struct Job {
    pub(in super::super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    /// Length of a request.
    pub(super) kib: u64,
}

/// The metric of a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Iops,
    MibPerSecond,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Iops => "IOPS",
            Self::MibPerSecond => "MiB/s",
        }
    }

    pub(super) fn of(self, figure: &Figure) -> f64 {
        match self {
            Self::Iops => figure.iops as f64,
            Self::MibPerSecond => figure.kib_per_s as f64 / 1024.0,
        }
    }
}

// fio(1), "TERSE OUTPUT", version 3; the first field is 1.
const VERSION: &str = "3;fio-";
const JOB: usize = 3;
const ERROR: usize = 5;
const READ_KIB: usize = 6;
const READ_KIB_PER_S: usize = 7;
const READ_IOPS: usize = 8;
const WRITE_KIB: usize = 47;
const WRITE_KIB_PER_S: usize = 48;
const WRITE_IOPS: usize = 49;

/// The figures of all jobs in fio's terse output, which may contain other lines. A job either reads or writes.
pub(in super::super) fn figures(output: &str) -> Result<Vec<Figure>, String> {
    output.lines().filter(|line| line.starts_with(VERSION)).map(figure).collect()
}

fn figure(line: &str) -> Result<Figure, String> {
    let fields: Vec<&str> = line.trim_end().split(';').collect();
    let text = |number: usize| fields.get(number - 1).copied().unwrap_or_default();
    let number = |index: usize| {
        text(index).parse::<u64>().map_err(|_| format!("fio's field {index} is {:?}", text(index)))
    };
    let job = text(JOB).to_owned();
    match number(ERROR)? {
        0 => Ok(Figure {
            job,
            iops: number(READ_IOPS)? + number(WRITE_IOPS)?,
            kib_per_s: number(READ_KIB_PER_S)? + number(WRITE_KIB_PER_S)?,
            kib: number(READ_KIB)? + number(WRITE_KIB)?,
            costs: None,
        }),
        error => Err(format!("fio's job {job}: error {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of fio 3.33 up to its field 49.
    fn line(error: u32, read: &str, write: &str) -> String {
        let latencies = |count: usize| "0;".repeat(count);
        format!("3;fio-3.33;job;0;{error};{read};1001;{}{write};1001\r\n", latencies(37))
    }

    #[test]
    fn figures_of_a_reader() {
        let output = ["FIO-BEGIN\r\n", &line(0, "1616620;1615004;403751", "0;0;0"), "FIO-END 0\r\n"].concat();
        let figure =
            Figure { job: "job".into(), iops: 403_751, kib_per_s: 1_615_004, kib: 1_616_620, costs: None };
        assert_eq!(figures(&output), Ok(vec![figure]));
    }

    #[test]
    fn figures_of_a_writer() {
        let figure = Figure { job: "job".into(), iops: 50, kib_per_s: 200, kib: 400, costs: None };
        assert_eq!(figures(&line(0, "0;0;0", "400;200;50")), Ok(vec![figure]));
    }

    #[test]
    fn figures_of_a_failed_job_are_its_error() {
        assert_eq!(figures(&line(5, "0;0;0", "0;0;0")), Err("fio's job job: error 5".to_owned()));
    }

    #[test]
    fn figures_of_a_line_cut_short_are_refused() {
        assert_eq!(figures("3;fio-3.33;job;0;0"), Err("fio's field 8 is \"\"".to_owned()));
    }

    #[test]
    fn jobs_are_those_of_the_file() {
        let sections = rig::fio::JOBS.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
        let names: Vec<&str> = sections.filter(|name| *name != "global").collect();
        assert_eq!(names, JOBS.map(|job| job.name));
    }
}
