//! JSONPath as job/config.yaml uses it, with bounds on the work that a path can ask for.
//!
//! The original's dialect (`PaesslerAG/jsonpath`) is met where configs use it: double quotes or
//! backquotes in brackets, a path without `$`, lists for paths with wildcards, and its error texts.

use std::fmt;

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

/// Longer paths are not written by people, and the parser's work grows with the length.
const MAX_LENGTH: usize = 512;

/// Each `..` multiplies the work by the depth of the event: measured, a second `..` on an event of
/// 100 levels takes 16 s and 3.4 GB.
const MAX_DESCENTS: usize = 1;

/// A filter inside a filter is a loop inside a loop over the event.
const MAX_FILTERS: usize = 1;

/// Commas and logical operators: each is one more pass over the same nodes.
const MAX_SELECTORS: usize = 16;

/// The library writes down the path to every value that it visits; this is what that may take.
const MAX_PLACES_BYTES: usize = 8 << 20;

/// A path that was parsed once, when the config was read.
#[derive(Debug, Clone)]
pub(crate) struct JsonPath {
    text: String,
    query: JpQuery,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Names and indexes only: finds one value or none.
    Definite,
    /// Finds a list, perhaps an empty one.
    List,
}

/// What a path finds.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<'a> {
    One(&'a Value),
    List(Vec<&'a Value>),
}

/// The key or index that an event does not have, as the original said it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFound(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSONPath `{path}`: {reason}")]
pub(crate) struct InvalidJsonPath {
    path: String,
    reason: String,
}

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidJsonPath> {
        let invalid = |reason: String| InvalidJsonPath {
            path: text.chars().take(80).collect(),
            reason,
        };
        bounded(text).map_err(invalid)?;
        let normal = normalised(text);
        let query = parse_json_path(&normal).map_err(|_| invalid(explain(&normal)))?;
        let definite = query.segments.iter().all(|segment| {
            matches!(
                segment,
                Segment::Selector(Selector::Name(_) | Selector::Index(_))
            )
        });
        Ok(Self {
            text: text.to_owned(),
            query,
            kind: if definite { Kind::Definite } else { Kind::List },
        })
    }

    /// The names before the first wildcard, index, range, filter or `..`.
    pub(crate) fn leading_names(&self) -> Vec<&str> {
        let name = |segment| match segment {
            &Segment::Selector(Selector::Name(ref name)) => Some(name.trim_matches(['\'', '"'])),
            _ => None,
        };
        self.query.segments.iter().map_while(name).collect()
    }

    /// Whether these names are all of the path.
    pub(crate) fn is_only(&self, names: usize) -> bool {
        self.query.segments.len() == names
    }

    /// The same path one key further down.
    pub(crate) fn below(&self, key: &str) -> String {
        let path = normalised(&self.text);
        format!("$.{key}{}", path.strip_prefix('$').unwrap_or(&path))
    }

    /// Whether the path may visit all of an event.
    pub(crate) fn finds_lists(&self) -> bool {
        self.kind == Kind::List
    }

    pub(crate) fn find<'a>(&self, root: &'a Value) -> Result<Found<'a>, NotFound> {
        if self.finds_lists() && places_len(root, 0) > MAX_PLACES_BYTES {
            return Err(NotFound(format!(
                "the event is too large for the path {self}"
            )));
        }
        let mut found = evaluate(&self.query, root);
        match self.kind {
            Kind::List => Ok(Found::List(found)),
            Kind::Definite => match found.pop() {
                Some(value) => Ok(Found::One(value)),
                None => Err(self.missing(root)),
            },
        }
    }

    /// Names the first segment that leads nowhere.
    fn missing(&self, root: &Value) -> NotFound {
        let segments = &self.query.segments;
        let reached = (0..segments.len())
            .find(|&index| evaluate(&JpQuery::new(segments[..=index].to_vec()), root).is_empty())
            .unwrap_or_default();
        NotFound(match segments.get(reached) {
            Some(Segment::Selector(Selector::Index(index))) => {
                format!("index {index} out of bounds")
            }
            Some(Segment::Selector(Selector::Name(name))) => {
                format!("unknown key {}", name.trim_matches(['\'', '"']))
            }
            _ => format!("nothing found at {self}"),
        })
    }
}

fn evaluate<'a>(query: &JpQuery, root: &'a Value) -> Vec<&'a Value> {
    js_path_process(query, root)
        .map(|found| {
            found
                .into_iter()
                .map(jsonpath_rust::query::QueryRef::val)
                .collect()
        })
        .unwrap_or_default()
}

/// Bytes of the paths to all values below `root`, itself `len` bytes from the top.
fn places_len(root: &Value, len: usize) -> usize {
    // Brackets, quotes and up to three digits.
    const MARKS: usize = 5;

    match root {
        Value::Array(items) => items
            .iter()
            .map(|item| places_len(item, len + MARKS))
            .fold(len, usize::saturating_add),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| places_len(value, len + MARKS + key.len()))
            .fold(len, usize::saturating_add),
        _ => len,
    }
}

/// Conservative: quoted names that hold one of these count as well.
fn bounded(text: &str) -> Result<(), String> {
    let count = |part: &str| text.matches(part).count();
    let selectors = count(",") + count("&&") + count("||");
    if text.len() > MAX_LENGTH {
        return Err(format!(
            "{} bytes long, at most {MAX_LENGTH} are allowed",
            text.len()
        ));
    }
    if count("..") > MAX_DESCENTS {
        return Err(format!("at most {MAX_DESCENTS} `..` is allowed"));
    }
    if count("?") > MAX_FILTERS {
        return Err(format!("at most {MAX_FILTERS} filter `[?…]` is allowed"));
    }
    if selectors > MAX_SELECTORS {
        return Err(format!(
            "at most {MAX_SELECTORS} of `,`, `&&` and `||` are allowed"
        ));
    }
    if count("match(") + count("search(") > 0 {
        return Err("the functions match() and search() are not allowed".into());
    }
    Ok(())
}

fn normalised(text: &str) -> String {
    let trimmed = text.trim();
    let quoted = if trimmed.contains(['"', '\'']) {
        trimmed.to_owned()
    } else {
        trimmed.replace('`', "\"")
    };
    if quoted.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return format!("$.{quoted}");
    }
    quoted
}

/// The parser's own error shows its grammar; these are the mistakes that people make.
fn explain(path: &str) -> String {
    let hyphenated = path
        .split(['.', '[', ']'])
        .find(|part| part.contains('-') && !part.contains(['"', '\'', '?', '@', ':']));
    if let Some(part) = hyphenated {
        return format!("a name with a hyphen is written [\"{part}\"], without the dot before it");
    }
    if !path.starts_with('$') {
        return "a path starts with `$`, such as `$.data.project`".into();
    }
    "expected a path such as `$.data.test.teststrategy` or `$.data.deployment[\"a-b\"][0]`".into()
}

/// Paths are the same if they are written the same.
impl PartialEq for JsonPath {
    fn eq(&self, other: &Self) -> bool {
        normalised(&self.text) == normalised(&other.text)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> String {
        let event = json!({
            "type": "t",
            "data": {"a-b": "hyphen", "list": [1, {"x": "y", "v": 7}], "none": null,
                     "map": {"k": "v"}},
        });
        let path = match JsonPath::parse(path) {
            Ok(path) => path,
            Err(error) => return error.to_string(),
        };
        match path.find(&event) {
            Ok(Found::One(value)) => value.to_string(),
            Ok(Found::List(values)) => format!("{values:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn paths_find_what_the_original_found() {
        for (path, expected) in [
            ("$.type", "\"t\""),
            ("type", "\"t\""),
            (" $.data.map.k ", "\"v\""),
            ("data.map", "{\"k\":\"v\"}"),
            ("$.data[\"a-b\"]", "\"hyphen\""),
            ("$.data['a-b']", "\"hyphen\""),
            ("$.data[`a-b`]", "\"hyphen\""),
            ("$.data.list[0]", "1"),
            ("$.data.none", "null"),
            ("$.data.list[?(@.x==\"y\")].v", "[Number(7)]"),
            ("$.data.map.*", "[String(\"v\")]"),
            ("$..k", "[String(\"v\")]"),
            ("$.data.nothing.*", "[]"),
            ("$.data.missing.deeper", "unknown key missing"),
            ("$.data[\"not-there\"]", "unknown key not-there"),
            ("$.data.list[9]", "index 9 out of bounds"),
            ("$.type.x", "unknown key x"),
        ] {
            assert_eq!(found(path), expected, "{path}");
        }
    }

    #[test]
    fn a_bad_path_is_refused_with_a_way_out() {
        let report = [
            found("$.data.a-b"),
            found("/data/x"),
            found("$.data["),
            found("$..a..b"),
            found("$[?@[?@.x]]"),
            found("$.data[?match(@.x, 'a')]"),
            found(&format!("$.{}", "a".repeat(600))),
            found(&format!("$[{}]", vec!["*"; 2000].join(",")).as_str()[..500]),
        ]
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        invalid JSONPath `$.data.a-b`: a name with a hyphen is written ["a-b"], without the dot before it
        invalid JSONPath `/data/x`: a path starts with `$`, such as `$.data.project`
        invalid JSONPath `$.data[`: expected a path such as `$.data.test.teststrategy` or `$.data.deployment["a-b"][0]`
        invalid JSONPath `$..a..b`: at most 1 `..` is allowed
        invalid JSONPath `$[?@[?@.x]]`: at most 1 filter `[?…]` is allowed
        invalid JSONPath `$.data[?match(@.x, 'a')]`: the functions match() and search() are not allowed
        invalid JSONPath `$.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`: 602 bytes long, at most 512 are allowed
        invalid JSONPath `$[*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,`: at most 16 of `,`, `&&` and `||` are allowed
        "#);
    }

    #[test]
    fn an_event_made_to_be_expensive_is_not_searched() {
        let event = json!({"k".repeat(100_000): vec![0; 1000]});
        let path = JsonPath::parse("$..x").unwrap();
        assert_eq!(
            path.find(&event).unwrap_err().to_string(),
            "the event is too large for the path $..x"
        );
        assert!(JsonPath::parse("$.a").unwrap().find(&event).is_err());
    }

    #[test]
    fn hostile_paths_are_refused_at_once() {
        for path in [
            "(".repeat(500),
            format!("${}", "[?@".repeat(150)),
            format!("$[?{}1==1]", "1==1 && ".repeat(50)),
            format!("${}", "[*]".repeat(200)),
        ] {
            drop(JsonPath::parse(&path));
        }
    }
}
