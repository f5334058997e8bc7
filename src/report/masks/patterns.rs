//! What looks like a secret, whoever knows it.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::{Regex, RegexBuilder};

/// Of one pattern: refuses `(?:a{1,1000}){1,1000}`.
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// What a search may build of a pattern on its way, twice for each thread that searches.
const MAX_CACHE_BYTES: usize = 64 << 10;

const MAX_PATTERNS: usize = 50;

/// Of one pattern's text.
const MAX_LENGTH: usize = 1 << 10;

/// The group of a pattern that is masked alone.
const GROUP: &str = "secret";

/// What is masked in any log, as nothing else looks like it.
#[derive(Debug)]
pub(super) struct BuiltIn {
    pub(super) patterns: Vec<Pattern>,
    /// One of these is in each match, in whatever case: most lines have none, and a search for all of them at once
    /// takes a tenth of one for the patterns. None: nothing tells the lines apart.
    hints: Option<AhoCorasick>,
    /// To which pattern a hint belongs.
    of_hint: Vec<usize>,
}

pub(super) static BUILT_IN: LazyLock<BuiltIn> = LazyLock::new(|| {
    // Without Unicode, where the sign of Kelvin is a small k: a hint would not find it.
    let patterns: [(&str, &[&str]); 7] = [
        // `authorization: Bearer …`, as a header, in JSON, in Go's and Python's debug output.
        (
            r#"(?-u:\b)(?i-u:authorization)["']?\s*[:=]\s*[\["']*(?i-u:bearer|basic|token)\s+(?<secret>[^\s"',;\]]+)"#,
            &["authorization"],
        ),
        // Keptn's own header and its relatives.
        (
            r#"(?-u:\b)(?i-u:x-token|x-api-key|x-auth-token)["']?\s*[:=]\s*[\["']*(?<secret>[^\s"',;\]]+)"#,
            &["x-token", "x-api-key", "x-auth-token"],
        ),
        // JSON Web Tokens, such as those of service accounts.
        (
            r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
            &["eyJ"],
        ),
        // AWS: the id of a key, and the key.
        (
            r"(?-u:\b)(?:AKIA|ASIA)[A-Z2-7]{16}(?-u:\b)",
            &["AKIA", "ASIA"],
        ),
        (
            r#"(?i-u:aws_secret_access_key)["']?\s*[:=]\s*["']?(?<secret>[A-Za-z0-9/+]{40})"#,
            &["aws_secret_access_key"],
        ),
        // GitHub, GitLab, Slack.
        (
            r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,})",
            &[
                "ghp_",
                "gho_",
                "ghu_",
                "ghs_",
                "ghr_",
                "github_pat_",
                "glpat-",
                "xox",
            ],
        ),
        // The password in an address.
        (r#"://[^\s/:@"']*:(?<secret>[^\s/@"']+)@"#, &["://"]),
    ];
    let hints = patterns.iter().enumerate();
    let hints = hints.flat_map(|(index, (_, hints))| hints.iter().map(move |hint| (*hint, index)));
    let (hints, of_hint): (Vec<&str>, Vec<usize>) = hints.unzip();
    let mut builder = AhoCorasick::builder();
    BuiltIn {
        patterns: patterns
            .iter()
            .filter_map(|(text, _)| Pattern::parse(text).ok())
            .collect(),
        hints: builder.ascii_case_insensitive(true).build(hints).ok(),
        of_hint,
    }
});

impl BuiltIn {
    /// Those patterns that may find something in a line.
    pub(super) fn for_line(&self, line: &str) -> impl Iterator<Item = &Pattern> {
        let mut hinted = if self.hints.is_some() { 0 } else { u32::MAX };
        for hint in self
            .hints
            .iter()
            .flat_map(|hints| hints.find_overlapping_iter(line))
        {
            hinted |= 1 << self.of_hint[hint.pattern()];
        }
        let patterns = self.patterns.iter().enumerate();
        patterns.filter_map(move |(index, pattern)| (hinted >> index & 1 == 1).then_some(pattern))
    }
}

pub(super) static KEY_BEGIN: LazyLock<Regex> = LazyLock::new(|| key("BEGIN"));
pub(super) static KEY_END: LazyLock<Regex> = LazyLock::new(|| key("END"));

/// Of PKCS #1 and #8, EC, OpenSSH, PGP.
fn key(which: &str) -> Regex {
    let text = format!("-----{which} [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----");
    Regex::new(&text).expect("a valid pattern")
}

/// What an operator masks: one regular expression a line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns(pub(super) Vec<Pattern>);

#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    has_group: bool,
}

impl Patterns {
    /// Empty lines and those that begin with `#` are for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let patterns: Vec<Pattern> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(index, line)| {
                Pattern::parse(line).map_err(|error| format!("line {}: {error}", index + 1))
            })
            .collect::<Result<_, _>>()?;
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("at most {MAX_PATTERNS} patterns are allowed"));
        }
        Ok(Self(patterns))
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("at most {MAX_LENGTH} bytes are allowed"));
        }
        let regex = RegexBuilder::new(text)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_CACHE_BYTES)
            .build()
            .map_err(|error| format!("invalid regular expression: {}", reason(&error)))?;
        if regex.is_match("") {
            return Err("the pattern finds nothing at all everywhere".into());
        }
        let has_group = regex.capture_names().flatten().any(|name| name == GROUP);
        Ok(Self { regex, has_group })
    }

    /// Each place of a line, in order, perhaps an empty one, with the match that tells it: they differ where the
    /// pattern has a group called `secret`.
    pub(super) fn find_in<'a>(
        &'a self,
        line: &'a str,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + 'a {
        self.regex.find_iter(line).map(|found| {
            let whole = found.range();
            if !self.has_group {
                return (whole.clone(), whole);
            }
            let groups = self.regex.captures_at(line, whole.start);
            let group = groups.and_then(|groups| groups.name(GROUP).map(|group| group.range()));
            (group.unwrap_or_else(|| whole.clone()), whole)
        })
    }
}

/// The regex crate draws its errors over several lines; the last one says what is wrong. The pattern is
/// not told: it may show what it is to hide.
fn reason(error: &regex::Error) -> String {
    let error = error.to_string();
    let reason = error.lines().last().unwrap_or_default();
    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
}
