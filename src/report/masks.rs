//! Puts `***` in the place of what must not be read in an answer: known secrets, and what looks like one.
//!
//! Lines are searched, before anything is cut, so that neither a chunk of the stream nor the budget of the
//! answer divides a secret. The time is linear in the text, whatever the patterns are.

mod patterns;

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::extract::boundary;
use super::plain::{Plain, plain};
pub(crate) use patterns::Patterns;
use patterns::{BUILT_IN, KEY_BEGIN, KEY_END, Pattern};

/// In the place of a secret.
const MASK: &str = "***";

/// A shorter value is part of too many words, and is no secret.
const LEAST_SECRET: usize = 4;

/// A longer value is searched for in parts.
const MOST_SECRET: usize = 4 << 10;

/// A longer line is searched in windows of this size, …
const WINDOW: usize = 32 << 10;

/// … which share this part: what is longer may be missed where two windows meet.
const OVERLAP: usize = 4;

/// Of one pattern in one window. With more the rest of the line is masked: a search goes through the rest of
/// the line each time.
const MAX_MATCHES: usize = 128;

/// Of a private key without an end.
pub(super) const MAX_KEY_LINES: usize = 256;

/// What is masked.
#[derive(Debug, Clone)]
pub(crate) struct Masks(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    secrets: Option<AhoCorasick>,
    patterns: Patterns,
    window: usize,
}

/// The lines of a stream on their way.
#[derive(Debug)]
pub(crate) struct Masking {
    masks: Masks,
    line: String,
    /// Nothing more of this line is shown.
    rest_is_masked: bool,
    /// Lines that a private key may still have.
    key_lines: usize,
}

/// What to mask of one line.
#[derive(Debug, Default)]
struct Found {
    /// In order, apart from each other.
    spans: Vec<Range<usize>>,
    /// With what tells each of them, the same.
    contexts: Vec<Range<usize>>,
    /// Those of them that are private keys.
    keys: Vec<Range<usize>>,
    /// The last key has no end.
    in_key: bool,
    /// There may be more to mask behind the last span.
    exhausted: bool,
}

impl Default for Masks {
    /// What is always masked.
    fn default() -> Self {
        Self::new([], &Patterns::default())
    }
}

impl Masks {
    /// Of these values and patterns, beside what is always masked.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>, patterns: &Patterns) -> Self {
        Self::with_window(secrets, patterns, WINDOW)
    }

    /// With another window, so that short texts need several.
    pub(crate) fn with_window<'a>(
        secrets: impl IntoIterator<Item = &'a str>,
        patterns: &Patterns,
        window: usize,
    ) -> Self {
        let lines = secrets.into_iter().flat_map(str::lines);
        let mut forms: Vec<String> = lines.flat_map(forms).collect();
        forms.sort();
        forms.dedup();
        // Fails beyond billions of bytes.
        let secrets = AhoCorasick::new(&forms).ok();
        Self(Arc::new(Rules {
            secrets: secrets.filter(|_| !forms.is_empty()),
            patterns: patterns.clone(),
            window,
        }))
    }

    /// A text as an answer may have it: plain, and masked.
    pub(crate) fn text(&self, text: &str) -> String {
        let (mut plain, mut masking) = (Plain::default(), Masking::new(self));
        let mut masked = String::new();
        let mut out = |text: &str| masked.push_str(text);
        plain.push(text.as_bytes(), &mut |text| masking.push(text, &mut out));
        plain.finish(&mut |text| masking.push(text, &mut out));
        masking.finish(&mut out);
        masked
    }

    fn find(&self, line: &str, in_key: bool) -> Found {
        let mut found = Found::default();
        found.private_keys(line, in_key);
        if let Some(secrets) = &self.0.secrets {
            let matches = secrets.find_overlapping_iter(line);
            for of in matches {
                found.add(of.range(), of.range());
            }
        }
        for pattern in BUILT_IN.for_line(line).chain(&self.0.patterns.0) {
            found.pattern(line, pattern);
        }
        merge(&mut found.spans);
        merge(&mut found.contexts);
        found
    }
}

impl Found {
    fn private_keys(&mut self, line: &str, in_key: bool) {
        if line.is_empty() {
            self.in_key = in_key;
            return;
        }
        if !in_key && !line.contains("-----BEGIN ") {
            return;
        }
        let mut begin = in_key.then_some(0);
        let mut from = 0;
        loop {
            begin = begin.or_else(|| Some(KEY_BEGIN.find_at(line, from)?.start()));
            let Some(begins) = begin.take() else {
                break;
            };
            if let Some(end) = KEY_END.find_at(line, begins) {
                from = end.end();
            } else {
                from = line.len();
                self.in_key = true;
            }
            self.keys.push(begins..from);
            self.add(begins..from, begins..from);
        }
    }

    fn pattern(&mut self, line: &str, pattern: &Pattern) {
        for (count, (span, context)) in pattern.find_in(line).enumerate() {
            if count == MAX_MATCHES {
                self.add(span.start..line.len(), context.start..line.len());
                self.exhausted = true;
                return;
            }
            if !span.is_empty() {
                self.add(span, context);
            }
        }
    }

    fn add(&mut self, span: Range<usize>, context: Range<usize>) {
        self.spans.push(span);
        self.contexts.push(context);
    }
}

/// Sorts ranges and joins those that touch.
fn merge(ranges: &mut Vec<Range<usize>>) {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let touches = next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
}

/// Where the range begins that is on both sides of a place.
fn across(ranges: &[Range<usize>], place: usize) -> Option<usize> {
    let mut ranges = ranges.iter();
    let across = ranges.find(|range| range.start < place && place < range.end);
    across.map(|range| range.start)
}

impl Masking {
    pub(crate) fn new(masks: &Masks) -> Self {
        Self {
            masks: masks.clone(),
            line: String::new(),
            rest_is_masked: false,
            key_lines: 0,
        }
    }

    pub(crate) fn push(&mut self, text: &str, out: &mut impl FnMut(&str)) {
        for piece in text.split_inclusive('\n') {
            match piece.strip_suffix('\n') {
                Some(end) => {
                    self.add(end, out);
                    self.end_line(out);
                    out("\n");
                }
                None => self.add(piece, out),
            }
        }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.line.capacity()
    }

    /// Hands on the last line, which has no end.
    pub(crate) fn finish(&mut self, out: &mut impl FnMut(&str)) {
        self.end_line(out);
    }

    fn add(&mut self, text: &str, out: &mut impl FnMut(&str)) {
        let mut rest = text;
        loop {
            let room = self.masks.0.window - self.line.len();
            if rest.len() < room {
                self.line.push_str(rest);
                return;
            }
            let (fits, after) = rest.split_at(boundary(rest, room));
            self.line.push_str(fits);
            rest = after;
            self.window(out);
        }
    }

    /// Hands on what no later part of the line can change.
    fn window(&mut self, out: &mut impl FnMut(&str)) {
        let found = self.masks.find(&self.line, self.key_lines > 0);
        let mut end = boundary(&self.line, self.line.len() - self.masks.0.window / OVERLAP);
        if !self.rest_is_masked {
            let last = found.spans.last().map(|span| span.start);
            let too_many = last.filter(|_| found.exhausted);
            let too_long = match across(&found.contexts, end) {
                Some(0) => across(&found.spans, end),
                Some(begin) => {
                    end = begin;
                    None
                }
                None => None,
            };
            if let Some(shown) = too_many.or(too_long) {
                masked(&self.line[..shown], &found.spans, out);
                out(MASK);
                self.rest_is_masked = true;
            } else {
                masked(&self.line[..end], &found.spans, out);
            }
        }
        self.note_key(across(&found.keys, end).is_some());
        self.line.drain(..end);
    }

    fn end_line(&mut self, out: &mut impl FnMut(&str)) {
        let found = self.masks.find(&self.line, self.key_lines > 0);
        if !std::mem::take(&mut self.rest_is_masked) {
            masked(&self.line, &found.spans, out);
        }
        self.note_key(found.in_key);
        self.key_lines = self.key_lines.saturating_sub(1);
        self.line.clear();
    }

    fn note_key(&mut self, in_key: bool) {
        self.key_lines = match (in_key, self.key_lines) {
            (true, 0) => MAX_KEY_LINES,
            (true, left) => left,
            (false, _) => 0,
        };
    }
}

/// Hands on a text with those of the spans that are in it masked.
fn masked(text: &str, spans: &[Range<usize>], out: &mut impl FnMut(&str)) {
    let mut from = 0;
    for span in spans.iter().filter(|span| span.end <= text.len()) {
        out(&text[from..span.start]);
        out(MASK);
        from = span.end;
    }
    out(&text[from..]);
}

/// A value as it is printed, also in JSON and as Kubernetes keeps it.
fn forms(value: &str) -> Vec<String> {
    let value = plain(value.trim());
    if value.len() < LEAST_SECRET {
        return Vec::new();
    }
    let json = serde_json::to_string(&value).unwrap_or_default();
    let json = json.trim_start_matches('"');
    let json = json.strip_suffix('"').unwrap_or(json).to_owned();
    let base64 = STANDARD_NO_PAD.encode(&value);
    [value, json, base64]
        .iter()
        .flat_map(|form| in_parts(form))
        .collect()
}

/// Of about the same length, none of them short.
fn in_parts(text: &str) -> Vec<String> {
    let length = text.len().div_ceil(text.len().div_ceil(MOST_SECRET));
    let (mut parts, mut rest) = (Vec::new(), text);
    while rest.len() > length {
        let (part, after) = rest.split_at(boundary(rest, length));
        parts.push(part.to_owned());
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(rest.to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const SECRETS: [&str; 4] = ["s3cr3t-Token", "a\"quoted\\one", "Token-and-more", "dev"];

    fn masks(patterns: &str) -> Masks {
        Masks::new(SECRETS, &Patterns::parse(patterns).unwrap())
    }

    fn streamed(masks: &Masks, text: &str, chunk: usize) -> String {
        let (mut masking, mut shown) = (Masking::new(masks), String::new());
        let mut out = |text: &str| shown.push_str(text);
        for piece in text.as_bytes().chunks(chunk) {
            masking.push(std::str::from_utf8(piece).unwrap(), &mut out);
        }
        masking.finish(&mut out);
        shown
    }

    #[test]
    fn known_secrets_are_masked_in_whatever_form_they_are_printed() {
        let text = "\
the token is s3cr3t-Token.
s3cr3t-Token-and-more, s3cr3t-Tokens3cr3t-Token
json: {\"x\": \"a\\\"quoted\\\\one\"}, plain: a\"quoted\\one
kept: czNjcjN0LVRva2Vu
coloured: s3cr\u{1b}[1m3t-To\u{1b}[0mken, \u{1b}]8;;http://x/s3cr3t-Token\u{7}link\u{1b}]8;;\u{7}
progress s3cr3t-Tok\r s3cr3t\u{0}-Token
dev is no secret, s3cr3t-Toke is none
";
        assert_snapshot!(masks("").text(text), @r#"
        the token is ***.
        ***, ***
        json: {"x": "***"}, plain: ***
        kept: ***
        coloured: ***, link
         ***
        dev is no secret, s3cr3t-Toke is none
        "#);
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        assert_eq!(BUILT_IN.patterns.len(), 7, "all of them are valid");
        let jwt = format!("eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJrdWJl.{}", "s".repeat(40));
        let text = format!(
            "> Authorization: Bearer abc.def-123
{{\"authorization\":\"Basic dXNlcjpwdw==\",\"a\":1}} map[Authorization:[Token abc] B:[c]]
authorization is required, a bearer token is not there
X-Token: 1234 x-api-key=\"abc\"
token {jwt}
AKIAIOSFODNN7EXAMPLE and AKIAIOSFODNN7EXAMPLES and BAKIAIOSFODNN7EXAMPLE
aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
ghp_{} glpat-{}
git clone https://user:pa55@host/x.git from http://host:80/a@b
",
            "a1B2".repeat(9),
            "x".repeat(20)
        );
        assert_snapshot!(masks("").text(&text), @r#"
        > Authorization: Bearer ***
        {"authorization":"Basic ***","a":1} map[Authorization:[Token ***] B:[c]]
        authorization is required, a bearer token is not there
        X-Token: *** x-api-key="***"
        token ***
        *** and AKIAIOSFODNN7EXAMPLES and BAKIAIOSFODNN7EXAMPLE
        aws_secret_access_key = ***
        *** ***
        git clone https://user:***@host/x.git from http://host:80/a@b
        "#);
    }

    /// Each in the shortest form that its pattern finds, in the cases that it allows.
    #[test]
    fn no_hint_hides_a_secret() {
        let jwt = "eyJabcdefgh.eyJabcdefgh.abcdefgh";
        let github = |prefix: &str| format!("{prefix}{}", "a".repeat(40));
        let secrets = [
            "AUTHORIZATION:bearer x".to_owned(),
            "Authorization=Basic x".into(),
            "X-TOKEN:x".into(),
            "x-api-KEY=x".into(),
            "X-Auth-Token: x".into(),
            jwt.into(),
            format!("AKIA{}", "A".repeat(16)),
            format!("ASIA{}", "2".repeat(16)),
            format!("Aws_Secret_Access_Key={}", "/".repeat(40)),
            github("ghp_"),
            github("gho_"),
            github("ghu_"),
            github("ghs_"),
            github("ghr_"),
            github("github_pat_"),
            github("glpat-"),
            "xoxb-0123456789".into(),
            "://:x@".into(),
        ];
        for secret in secrets {
            let found = |pattern: &Pattern| pattern.find_in(&secret).next().is_some();
            let all = BUILT_IN.patterns.iter().filter(|pattern| found(pattern));
            assert_eq!(all.count(), 1, "{secret}");
            let hinted = BUILT_IN.for_line(&secret).filter(|pattern| found(pattern));
            assert_eq!(hinted.count(), 1, "{secret}");
        }
        assert_eq!(BUILT_IN.for_line("a line without any of it").count(), 0);
    }

    #[test]
    fn private_keys_are_masked_to_their_end() {
        let text = "\
key: -----BEGIN RSA PRIVATE KEY-----
MIIE
2026 INFO ab+/
-----END RSA PRIVATE KEY----- done
{\"k\": \"-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----\\n\"} -----BEGIN PRIVATE KEY-----x
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIC
";
        assert_snapshot!(masks("").text(text), @r#"
        key: ***
        ***
        ***
        *** done
        {"k": "***\n"} ***
        ***
        -----BEGIN CERTIFICATE-----
        MIIC
        "#);
        let endless = format!("-----BEGIN PRIVATE KEY-----\n{}", "x\n".repeat(300));
        let shown = masks("").text(&endless);
        assert_eq!(shown.matches('x').count(), 45, "the log goes on");
    }

    #[test]
    fn an_operators_patterns_mask_what_they_find_or_their_group() {
        let masks = masks("# ours\n\n^id: \\d+$\nuser=(?<secret>\\w+);?\n(a|b)c+\n\\b");
        assert_snapshot!(masks.text("id: 7\n id: 7\nuser=me;user=you\nxacc bcd"), @r"
        ***
         id: 7
        user=***;user=***
        x*** ***d
        ");
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused_and_not_told() {
        let many = "a\n".repeat(51);
        let long = "a".repeat(1025);
        let refused = ["x\n(s3cr3t", "(?:a{1,1000}){1,1000}", "a*", &many, &long]
            .map(|text| Patterns::parse(text).unwrap_err());
        assert_snapshot!(refused.join("\n"), @r"
        line 2: invalid regular expression: unclosed group
        line 1: invalid regular expression: Compiled regex exceeds size limit of 262144 bytes.
        line 1: the pattern finds nothing at all everywhere
        at most 50 patterns are allowed
        line 1: at most 1024 bytes are allowed
        ");
    }

    /// Long ones are much slower in a test.
    const SHORT: usize = 1 << 10;

    fn in_short_windows(patterns: &str) -> Masks {
        Masks::with_window(SECRETS, &Patterns::parse(patterns).unwrap(), SHORT)
    }

    #[test]
    fn a_secret_in_a_long_line_is_masked_wherever_it_is() {
        let masks = in_short_windows("");
        for before in (SHORT / 4 * 3 - 20..SHORT / 4 * 3 + 5).chain(SHORT - 20..SHORT + 5) {
            let line = format!("{}s3cr3t-Token{}", "x".repeat(before), "y".repeat(400));
            let expected = line.replace(SECRETS[0], MASK);
            assert_eq!(streamed(&masks, &line, 100), expected, "{before}");
        }
    }

    #[test]
    fn a_secret_longer_than_what_windows_share_is_masked() {
        let long: String = (0..4_000).map(|n| format!("{n} ")).collect();
        let masks = Masks::new([long.as_str()], &Patterns::default());
        for before in [0, 20_000] {
            let line = format!("{}a {long}b", "x".repeat(before));
            let shown = streamed(&masks, &line, 1_000);
            assert!(shown.ends_with("a *** b"), "{before}");
        }
    }

    #[test]
    fn what_is_masked_without_an_end_masks_the_rest_of_its_line() {
        let masks = in_short_windows("a");
        let token = format!("authorization: Bearer {}\nnext\n", "t".repeat(3_000));
        assert_snapshot!(in_short_windows("").text(&token), @r"
        authorization: Bearer ***
        next
        ");
        let later = format!("{}{token}", "x ".repeat(500));
        assert!(
            in_short_windows("")
                .text(&later)
                .ends_with("x authorization: Bearer ***\nnext\n")
        );
        let text = format!("{}\nnext\n", "ab ".repeat(2_000));
        let shown = masks.text(&text);
        assert_eq!(shown, format!("{}***\nnext\n", "***b ".repeat(MAX_MATCHES)));
        let key = format!("{}-----BEGIN PRIVATE KEY-----\nkey\n", "ab ".repeat(2_000));
        assert!(masks.text(&key).ends_with("***\n***\n"));
    }
}
