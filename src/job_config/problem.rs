//! What is wrong with a config, and where.

use std::fmt;

use super::reader::CONFIG_URI;
use super::yaml::Span;

/// More are counted and not kept.
const MAX_PROBLEMS: usize = 100;

/// An answer to Keptn has room for so many.
const MAX_SHOWN: usize = 10;

/// Keys and values that are cited.
const MAX_CITED_CHARS: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// `job/config.yaml:7:9: actions[0].tasks[0]: …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// None where it is about the whole file.
    pub(crate) place: Option<Span>,
    /// Such as `actions[0].tasks[2].image`; empty at the top.
    pub(crate) path: String,
    pub(crate) message: String,
    /// What to do, such as "did you mean `events`?".
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn error(place: Option<Span>, path: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place,
            path: path.to_owned(),
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn warning(place: Option<Span>, path: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, path, message)
        }
    }

    pub(crate) fn help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CONFIG_URI)?;
        if let Some(Span { line, column, .. }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// All problems of a config that make it invalid, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigErrors {
    pub(crate) problems: Vec<Problem>,
    /// How many more there are.
    pub(crate) more: usize,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self
            .problems
            .iter()
            .take(MAX_SHOWN)
            .map(Problem::to_string)
            .collect();
        f.write_str(&lines.join("\n"))?;
        match self.problems.len() + self.more - lines.len() {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Takes problems down while the reading goes on.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    errors: Vec<Problem>,
    more_errors: usize,
    warnings: Vec<Problem>,
}

impl Problems {
    pub(crate) fn add(&mut self, problem: Problem) {
        let kept = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if kept.len() < MAX_PROBLEMS {
            kept.push(problem);
        } else if problem.severity == Severity::Error {
            self.more_errors += 1;
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(crate) fn error_count(&self) -> usize {
        self.errors.len() + self.more_errors
    }

    /// The warnings, and the errors if there are any, each in the order of the file.
    pub(crate) fn finish(mut self) -> (Vec<Problem>, Option<ConfigErrors>) {
        let start = |problem: &Problem| problem.place.map(|place| place.start);
        self.errors.sort_by_key(start);
        self.warnings.sort_by_key(start);
        let errors = ConfigErrors {
            problems: self.errors,
            more: self.more_errors,
        };
        (
            self.warnings,
            (!errors.problems.is_empty()).then_some(errors),
        )
    }
}

/// The allowed name that was meant, if one is near enough.
pub(crate) fn did_you_mean<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    const MAX_LENGTH: usize = 64;

    if found.len() > MAX_LENGTH {
        return None;
    }
    let found = found.to_lowercase();
    let near = |name: &&'a str| {
        let lower = name.to_lowercase();
        let distance = strsim::osa_distance(&found, &lower);
        let longest = found.chars().count().max(name.len());
        // Of three letters one is much: `gpu` is not `cpu`.
        let alike = longest > 4 || found.chars().next() == lower.chars().next();
        (alike && distance <= 1.max(longest / 3)).then_some((distance, *name))
    };
    allowed.iter().filter_map(near).min().map(|(_, name)| name)
}

/// `a`, `b`, `c`
pub(crate) fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A text that ends no line and moves no cursor, whoever wrote it.
pub(crate) fn one_line(text: &str) -> String {
    let breaks = |character: char| character.is_control() || "\u{2028}\u{2029}".contains(character);
    text.chars()
        .flat_map(|character| {
            let escaped = breaks(character).then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The beginning of a long text.
pub(crate) fn cited(text: &str) -> String {
    match text.char_indices().nth(MAX_CITED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_is_near() {
        let allowed = [
            "name",
            "silent",
            "events",
            "tasks",
            "serviceAccount",
            "cpu",
            "cmd",
            "In",
        ];
        for (found, meant) in [
            ("event", Some("events")),
            ("evnts", Some("events")),
            ("Tasks", Some("tasks")),
            ("nmae", Some("name")),
            ("serviceAccountName", Some("serviceAccount")),
            ("x", None),
            ("gpu", None),
            ("cdm", Some("cmd")),
            ("in", Some("In")),
            ("jsonpath", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(found, &allowed), meant, "{found}");
        }
    }

    #[test]
    fn an_answer_has_ten_problems_and_the_number_of_the_others() {
        let mut problems = Problems::default();
        for number in 0..200 {
            problems.add(Problem::error(None, "", format!("no. {number}")));
        }
        for number in 0..200 {
            problems.add(Problem::warning(None, "", format!("no. {number}")));
        }
        let (warnings, errors) = problems.finish();
        let errors = errors.unwrap();
        assert_eq!(
            (warnings.len(), errors.problems.len(), errors.more),
            (100, 100, 100)
        );
        let text = errors.to_string();
        assert_eq!(text.lines().count(), 11);
        assert_eq!(text.lines().last(), Some("and 190 more"));
    }
}
