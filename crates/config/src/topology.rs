//! CPU topology: threads, cores and sockets.

use crate::{
    count::CpuCount,
    error::ConfigError,
    file::{ConfigFile, CpusSection},
    flag::Flag,
    overrides::Overrides,
    value_error::ValueError,
};

/// The virtual processors: their number is the product of the other three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouping {
    pub(crate) count: CpuCount,
    pub(crate) threads_per_core: CpuCount,
    pub(crate) cores_per_socket: CpuCount,
    pub(crate) sockets: CpuCount,
}

impl Grouping {
    /// Merges file and flags. Missing numbers are 1, except that one of them is chosen so that the product is
    /// the count: cores, or sockets if cores are given, or threads if both are given.
    pub(crate) fn new(file: &ConfigFile, flags: &Overrides) -> Result<Grouping, ConfigError> {
        let count = flags.cpus.or(file.cpus.count).unwrap_or_default();
        Grouping::of(count, &file.cpus).map_err(|problem| match flags.cpus {
            Some(_) => ConfigError::Flag { flag: Flag::Cpus, problem },
            None => ConfigError::field(file.origin.as_deref(), "cpus.count", &problem),
        })
    }

    fn of(count: CpuCount, asked: &CpusSection) -> Result<Grouping, ValueError> {
        let given = [asked.threads_per_core, asked.cores_per_socket, asked.sockets];
        let product: u64 = given.iter().flatten().map(|number| u64::from(number.get())).product();
        let refused = || ValueError::NotTheProduct {
            count: count.get(),
            factors: factors(asked),
            product,
            is_whole: given.iter().all(Option::is_some),
        };
        let [threads, cores, sockets] = given;
        let rest = u64::from(count.get()).checked_div(product).unwrap_or(0);
        if rest * product != u64::from(count.get()) || (given.iter().all(Option::is_some) && rest != 1) {
            return Err(refused());
        }
        let rest = CpuCount::try_from(rest).map_err(|_| refused())?;
        let one = CpuCount::MIN;
        let (threads, cores, sockets) = match (threads, cores, sockets) {
            (threads, None, sockets) => (threads.unwrap_or(one), rest, sockets.unwrap_or(one)),
            (threads, Some(cores), None) => (threads.unwrap_or(one), cores, rest),
            (threads, Some(cores), Some(sockets)) => (threads.unwrap_or(rest), cores, sockets),
        };
        Ok(Grouping { count, threads_per_core: threads, cores_per_socket: cores, sockets })
    }
}

/// The given numbers with their names.
fn factors(asked: &CpusSection) -> String {
    let named = [
        ("threads_per_core", asked.threads_per_core),
        ("cores_per_socket", asked.cores_per_socket),
        ("sockets", asked.sockets),
    ];
    let shown = named.iter().filter_map(|(name, number)| Some(format!("{name} {}", (*number)?)));
    shown.collect::<Vec<_>>().join(" * ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads, cores and sockets; 0 in `numbers` means not given.
    fn group(count: u64, numbers: [u64; 3]) -> Result<[u16; 3], ValueError> {
        let [threads_per_core, cores_per_socket, sockets] =
            numbers.map(|number| CpuCount::try_from(number).ok());
        let asked = CpusSection { threads_per_core, cores_per_socket, sockets, ..CpusSection::default() };
        let got = Grouping::of(CpuCount::try_from(count).unwrap(), &asked)?;
        Ok([got.threads_per_core, got.cores_per_socket, got.sockets].map(CpuCount::get))
    }

    #[test]
    fn grouping_not_asked_for_is_cores_of_one_socket() {
        assert_eq!(group(6, [0, 0, 0]), Ok([1, 6, 1]));
    }

    #[test]
    fn grouping_is_completed_to_the_count() {
        assert_eq!(group(8, [2, 0, 0]), Ok([2, 4, 1]));
        assert_eq!(group(8, [0, 2, 0]), Ok([1, 2, 4]));
        assert_eq!(group(8, [0, 0, 2]), Ok([1, 4, 2]));
        assert_eq!(group(8, [2, 2, 0]), Ok([2, 2, 2]));
        assert_eq!(group(8, [2, 0, 4]), Ok([2, 1, 4]));
        assert_eq!(group(8, [0, 2, 2]), Ok([2, 2, 2]));
        assert_eq!(group(6, [2, 3, 1]), Ok([2, 3, 1]));
    }

    #[test]
    fn grouping_that_divides_nothing_names_the_numbers() {
        let expected = "4 is not a multiple of 3 (threads_per_core 3); choose numbers whose product is 4";
        assert_eq!(group(4, [3, 0, 0]).unwrap_err().to_string(), expected);
    }

    #[test]
    fn grouping_of_more_than_the_count_names_the_numbers() {
        let expected =
            "4 is not a multiple of 8 (cores_per_socket 4 * sockets 2); choose numbers whose product is 4";
        assert_eq!(group(4, [0, 4, 2]).unwrap_err().to_string(), expected);
    }

    #[test]
    fn grouping_with_another_product_names_the_numbers() {
        let expected = "4 is not 2 (threads_per_core 1 * cores_per_socket 2 * sockets 1); choose numbers whose product is 4";
        assert_eq!(group(4, [1, 2, 1]).unwrap_err().to_string(), expected);
    }

    #[test]
    fn grouping_of_the_largest_numbers_does_not_overflow() {
        assert!(group(4096, [4096, 4096, 4096]).is_err());
    }
}
