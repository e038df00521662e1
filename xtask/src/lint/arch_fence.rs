//! `cfg(target_arch)` only selects modules, and only in the few crates that have architecture modules.

use super::rules::rule_of;
use super::sources::packages;
use super::verdict::Verdict;
use crate::failure::Failure;

/// In two parts, so that this file doesn't contain it.
const NEEDLE: &str = concat!("target", "_arch");
/// What may follow the attribute: a module, a re-export, or an error for unsupported architectures.
const SWITCHES: [&str; 3] = ["mod", "use", "compile_error!"];

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut problems = Vec::new();
    let mut switches = 0;
    for package in packages()? {
        let is_allowed = rule_of(&package.name).is_some_and(|rule| rule.has_arch_modules);
        for source in package.sources()? {
            for (line, is_switch) in uses(&source.text) {
                let place = format!("{}:{line}", package.shown(&source.path));
                match (is_allowed, is_switch) {
                    (true, true) => switches += 1,
                    (true, false) => {
                        problems.push(format!("{place}: {NEEDLE} is allowed only before `mod` or `use`"))
                    }
                    (false, _) => {
                        problems.push(format!("{place}: {NEEDLE} isn't allowed in {}", package.name))
                    }
                }
            }
        }
    }
    Ok(Verdict::from_problems(problems, || format!("{switches} module switches")))
}

/// The numbers of the lines, from 1, that name the architecture, and whether each is an attribute of a module or a re-export.
fn uses(text: &str) -> Vec<(usize, bool)> {
    let lines: Vec<&str> = text.lines().map(code_of).collect();
    let found = lines.iter().enumerate().filter(|(_, line)| line.contains(NEEDLE));
    found
        .map(|(index, line)| {
            let item = lines[index + 1..].iter().find(|line| !line.is_empty() && !line.starts_with("#["));
            let is_switch = item.is_some_and(|item| SWITCHES.iter().any(|switch| is_item(item, switch)));
            (index + 1, line.starts_with("#[cfg(") && is_switch)
        })
        .collect()
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim()
}

fn is_item(line: &str, keyword: &str) -> bool {
    let after_visibility = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')').map_or(rest, |(_, rest)| rest),
        Some(rest) => rest,
        None => line,
    };
    let rest = after_visibility.trim_start().strip_prefix(keyword);
    rest.is_some_and(|rest| rest.starts_with([' ', '(']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute() -> String {
        format!("#[cfg({NEEDLE} = \"x86_64\")]")
    }

    #[test]
    fn arch_on_a_module_is_a_switch() {
        assert_eq!(uses(&format!("{}\npub(crate) mod x86_64;\n", attribute())), [(1, true)]);
    }

    #[test]
    fn arch_on_a_function_is_not() {
        assert_eq!(uses(&format!("\n{}\nfn boot() {{}}\n", attribute())), [(2, false)]);
    }

    #[test]
    fn arch_in_an_expression_is_not() {
        assert_eq!(uses(&format!("if cfg!({NEEDLE} = \"x86_64\") {{\nmod x;\n")), [(1, false)]);
    }

    #[test]
    fn arch_in_a_comment_does_not_count() {
        assert_eq!(uses(&format!("// {NEEDLE}\nfn f() {{}}")), []);
    }
}
