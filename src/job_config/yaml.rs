//! YAML text → a tree of nodes that know where they stand, with aliases and merge keys worked in.
//!
//! The text is untrusted: nodes, depth, aliases and what they stand for are bounded, so that a hostile
//! text costs an error. What a node means is the reader's to say.

mod build;
mod merge;

pub(crate) use build::parse;

/// A piece of the text: bytes, and the same as lines and columns from 1, counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Where the value is written; for a block its first key or dash to its last value.
    pub(crate) span: Span,
    /// The `*name` that stands for the value here.
    pub(crate) alias: Option<Span>,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Mapping),
}

#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// As written, without quotes and escapes.
    pub(crate) text: String,
    pub(crate) tag: Tag,
    pub(crate) style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    /// `|` and `>`
    Block,
}

/// What a scalar says about its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tag {
    /// None, or one of the author's own.
    None,
    Text,
    Null,
    /// `!!int` and the like, as written.
    Typed(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) entries: Vec<Entry>,
    pub(crate) layout: Layout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Block,
    /// In brackets.
    Flow,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Node,
    pub(crate) value: Node,
    /// Came by a merge key, so no key of the mapping itself repeats it.
    pub(crate) merged: bool,
}

/// Why a text is no tree, at the place where that shows.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) span: Span,
    pub(crate) message: String,
}

impl Node {
    /// Where the value is in the text: the value itself, or the alias for it.
    pub(crate) fn extent(&self) -> Span {
        self.alias.unwrap_or(self.span)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.is_null())
    }

    pub(crate) fn as_scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    pub(crate) fn as_mapping(&self) -> Option<&Mapping> {
        match &self.kind {
            Kind::Mapping(mapping) => Some(mapping),
            Kind::Scalar(_) | Kind::Sequence(_) => None,
        }
    }

    /// The items of a list; of anything else none.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence(items) => items,
            Kind::Scalar(_) | Kind::Mapping(_) => &[],
        }
    }

    /// The entry that counts where a key is repeated: the last.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        let entries = &self.as_mapping()?.entries;
        let named = |entry: &&Entry| entry.name() == Some(key);
        let own = entries.iter().rfind(|entry| !entry.merged && named(entry));
        own.or_else(|| entries.iter().find(named))
    }

    /// The value of that entry, if it has one.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let value = &self.entry(key)?.value;
        (!value.is_null()).then_some(value)
    }

    /// The value at a path such as `actions[0].tasks[2].image`, or the nearest around it that is there.
    pub(crate) fn at(&self, path: &str) -> Option<&Node> {
        let mut node = self;
        for key in path.split(['.', '[']).filter(|key| !key.is_empty()) {
            let next = match key.strip_suffix(']') {
                Some(index) => node.items().get(index.parse::<usize>().ok()?),
                None => node.get(key),
            };
            match next {
                Some(next) => node = next,
                None => return Some(node),
            }
        }
        Some(node)
    }

    /// What stands first in the value: a whole block is too much to point at.
    pub(crate) fn head(&self) -> Span {
        let first = match &self.kind {
            Kind::Mapping(Mapping { entries, .. }) if self.alias.is_none() => entries
                .iter()
                .find(|entry| !entry.merged)
                .map(|entry| entry.key.span),
            Kind::Scalar(_) | Kind::Sequence(_) | Kind::Mapping(_) => None,
        };
        first.unwrap_or_else(|| self.extent())
    }
}

impl Entry {
    pub(crate) fn name(&self) -> Option<&str> {
        self.key.as_scalar().map(|scalar| scalar.text.as_str())
    }
}

impl Scalar {
    pub(crate) fn is_null(&self) -> bool {
        let written = || {
            self.style == Style::Plain
                && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
        };
        self.tag == Tag::Null || self.tag == Tag::None && written()
    }

    /// As YAML 1.1 has them, quoted ones as well.
    pub(crate) fn boolean(&self) -> Option<bool> {
        let is = |names: [&str; 4]| {
            let text = trimmed(&self.text);
            names.iter().any(|name| text.eq_ignore_ascii_case(name))
        };
        if is(["true", "yes", "on", "y"]) {
            return Some(true);
        }
        is(["false", "no", "off", "n"]).then_some(false)
    }

    /// As YAML 1.1 has them: `1_000`, `0x10`, `0o10`, `0b1`, and `010`, which is 8.
    pub(crate) fn whole_number(&self) -> Option<i128> {
        let text = trimmed(&self.text);
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let magnitude = magnitude(digits)?;
        Some(if negative { -magnitude } else { magnitude })
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

fn magnitude(text: &str) -> Option<i128> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    };
    let digits = match radix {
        10 => digits,
        _ => digits.strip_prefix('_').unwrap_or(digits),
    };
    // One `_` between two digits.
    if digits.split('_').any(str::is_empty) {
        return None;
    }
    let digits = digits.replace('_', "");
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    i128::from_str_radix(&digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        parse(text).unwrap().unwrap()
    }

    fn shown(node: &Node) -> String {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.is_null() => "null".into(),
            Kind::Scalar(scalar) => format!("{:?}", scalar.text),
            Kind::Sequence(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Mapping(mapping) => {
                let entry = |entry: &Entry| {
                    format!("{}: {}", entry.name().unwrap_or("?"), shown(&entry.value))
                };
                let entries: Vec<String> = mapping.entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    #[test]
    fn a_text_becomes_a_tree() {
        for (text, tree) in [
            (
                "a: 1.0\nb: [yes, '~', ~, ]\nc:\n",
                r#"{a: "1.0", b: ["yes", "~", null], c: null}"#,
            ),
            ("\u{feff}a: b", r#"{a: "b"}"#),
            (
                "a: |\n  x\n   y\nb: >-\n  x\n  y\n",
                r#"{a: "x\n y\n", b: "x y"}"#,
            ),
            ("a: &x {k: 1}\nb: *x", r#"{a: {k: "1"}, b: {k: "1"}}"#),
            (
                "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}",
                r#"{a: {k: "1", l: "2"}, b: {k: "3", l: "2"}}"#,
            ),
            (
                "{<<: [{k: 1}, {k: 2, l: 3}], m: 4}",
                r#"{m: "4", k: "1", l: "3"}"#,
            ),
            ("{<<: , '<<': 1}", r#"{<<: "1"}"#),
            (
                "[!!str , !!str null, !own x, !!null x]",
                r#"["", "null", "x", null]"#,
            ),
        ] {
            assert_eq!(shown(&node(text)), tree, "{text}");
        }
        assert!(parse("# nothing\n").unwrap().is_none());
    }

    #[test]
    fn a_node_knows_where_it_is() {
        let text = "a:\n  - ä: [x, y]  # c\n    b: |  # d\n      e\n\n  - *z\n";
        let text = &format!("z: &z q\n{text}");
        let tree = node(text);
        let list = tree.get("a").unwrap();
        let at = |span: Span| (span.line, span.column, &text[span.start..span.end]);
        let (first, second) = (&list.items()[0], &list.items()[1]);
        assert_eq!(at(first.get("ä").unwrap().span), (3, 8, "[x, y]"));
        assert_eq!(
            at(first.get("b").unwrap().span),
            (4, 8, "|  # d\n      e\n")
        );
        assert_eq!(at(first.head()), (3, 5, "ä"));
        assert_eq!(at(second.span), (1, 7, "q"));
        assert_eq!(at(second.extent()), (7, 5, "*z"));
        assert_eq!(at(list.span).2.lines().count(), 5);
    }

    #[test]
    fn numbers_are_those_of_yaml_1_1() {
        for (text, number) in [
            ("0", Some(0)),
            ("+1_000", Some(1000)),
            ("-5", Some(-5)),
            ("010", Some(8)),
            ("0o10", Some(8)),
            ("0x1F", Some(31)),
            ("0b11", Some(3)),
            ("'7'", Some(7)),
            ("08", None),
            ("1__0", None),
            ("1_", None),
            ("1.0", None),
            ("+-1", None),
            ("0x-1", None),
            ("x", None),
        ] {
            let tree = node(&format!("a: {text}"));
            let scalar = tree.get("a").unwrap().as_scalar().unwrap();
            assert_eq!(scalar.whole_number(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_tree_is_told_with_its_place() {
        let report = [
            "a: [",
            "a: b: c",
            "a: *x",
            "a: &a [*a]",
            "{<<: x}",
            "{<<: [{a: 1}, 2]}",
            "a: 1\n---\n",
            "a:\n\t- b",
            "a:\n  - b: c\n  \td: e",
        ]
        .map(|text| {
            let error = parse(text).unwrap_err();
            format!(
                "{}:{}: {}",
                error.span.line, error.span.column, error.message
            )
        })
        .join("\n");
        insta::assert_snapshot!(report, @"
        1:4: unclosed bracket '['
        1:5: mapping values are not allowed in this context
        1:4: while parsing node, found unknown anchor
        1:8: this alias stands for a value that it is a part of
        1:6: expected a mapping, or a list of mappings, for `<<`
        1:15: expected a mapping, or a list of mappings, for `<<`
        2:1: a second document starts here, expected only one
        2:1: indented with a tab; YAML allows only spaces there
        3:3: indented with a tab; YAML allows only spaces there
        ");
    }
}
