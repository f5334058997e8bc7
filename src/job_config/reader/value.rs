//! One value of the config at a time: what kind it is, and what a mapping may hold.
//!
//! A reader that finds a problem takes it down and answers `None`; whoever asked goes on with the rest.

use std::collections::HashSet;
use std::fmt::Display;

use crate::job_config::problem::{Problem, Problems, cited, did_you_mean, quoted};
use crate::job_config::yaml::{Entry, Kind, Node, Scalar, Span, Tag};

/// A value with its path, such as `actions[0].tasks[2].image`.
#[derive(Debug, Clone)]
pub(in crate::job_config) struct Value<'n> {
    pub(in crate::job_config) node: &'n Node,
    pub(in crate::job_config) path: String,
}

/// What becomes of keys that are unknown or repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::job_config) enum Keys {
    /// Errors.
    Strict,
    /// Ignored, with a warning; of a repeated key the last counts.
    Lenient,
}

/// A mapping whose keys were checked.
#[derive(Debug)]
pub(in crate::job_config) struct Fields<'n> {
    of: Value<'n>,
    /// A field that is missing was misspelt, and that is a problem already.
    misspelt: Vec<&'static str>,
    all_known: bool,
}

impl<'n> Value<'n> {
    pub(in crate::job_config) fn top(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    pub(in crate::job_config) fn line(&self) -> u32 {
        self.node.head().line
    }

    pub(in crate::job_config) fn error(&self, message: impl Into<String>) -> Problem {
        Problem::error(Some(self.node.head()), &self.path, message)
    }

    /// The value of a key, unless it is absent or empty.
    pub(in crate::job_config) fn get(&self, key: &str) -> Option<Self> {
        let node = self.node.get(key)?;
        Some(self.below(key, node))
    }

    pub(in crate::job_config) fn below(&self, key: &str, node: &'n Node) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            node,
            path: format!("{}{dot}{key}", self.path),
        }
    }

    pub(in crate::job_config) fn text(&self, problems: &mut Problems) -> Option<String> {
        let Kind::Scalar(scalar) = &self.node.kind else {
            problems.add(self.error("expected a text"));
            return None;
        };
        if scalar.is_null() {
            problems.add(self.error("no value, expected a text"));
            return None;
        }
        if let Tag::Typed(tag) = &scalar.tag
            && tag != "!!merge"
        {
            problems.add(self.error(format!("expected a text, found the tag `{}`", cited(tag))));
            return None;
        }
        Some(scalar.text.clone())
    }

    /// A text that is checked.
    pub(in crate::job_config) fn parsed<T, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(problems)?;
        parse(&text)
            .map_err(|error| {
                let shown = cited(&text);
                let error = error.to_string();
                problems.add(self.error(if shown == text {
                    error
                } else {
                    error.replace(&text, &shown)
                }));
            })
            .ok()
    }

    /// One of a few names.
    pub(in crate::job_config) fn one_of<T: Copy>(
        &self,
        allowed: &[(&'static str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(problems)?;
        let found = allowed.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            let error = self.error(format!(
                "unknown value `{}`, expected one of {}",
                cited(&text),
                quoted(&names)
            ));
            problems.add(error.help(meant(&text, &names)));
        }
        found.map(|(_, value)| *value)
    }

    pub(in crate::job_config) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        let boolean = self.node.as_scalar().and_then(Scalar::boolean);
        if boolean.is_none() {
            problems.add(self.error("expected `true` or `false`"));
        }
        boolean
    }

    pub(in crate::job_config) fn whole_number(
        &self,
        expected: &str,
        problems: &mut Problems,
    ) -> Option<i128> {
        let number = self.node.as_scalar().and_then(Scalar::whole_number);
        if number.is_none() {
            problems.add(self.error(format!("expected {expected}")));
        }
        number
    }

    pub(in crate::job_config) fn list(
        &self,
        expected: &str,
        problems: &mut Problems,
    ) -> Vec<Value<'n>> {
        if !matches!(self.node.kind, Kind::Sequence(_)) {
            problems.add(self.error(format!("expected {expected}")));
        }
        self.items()
    }

    /// The items of a list; of anything else none.
    pub(in crate::job_config) fn items(&self) -> Vec<Value<'n>> {
        let item = |(index, node)| Value {
            node,
            path: format!("{}[{index}]", self.path),
        };
        self.node.items().iter().enumerate().map(item).collect()
    }

    pub(in crate::job_config) fn texts(
        &self,
        expected: &str,
        problems: &mut Problems,
    ) -> Vec<String> {
        let items = self.list(expected, problems);
        let texts = items.iter().filter_map(|item| item.text(problems));
        texts.collect()
    }

    /// The entries of a mapping with any keys, each once.
    pub(in crate::job_config) fn entries(
        &self,
        problems: &mut Problems,
    ) -> Vec<(&'n str, &'n Entry)> {
        let Some(mapping) = self.node.as_mapping() else {
            problems.add(self.error("expected a mapping of keys and values"));
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for entry in &mapping.entries {
            let Some(key) = self.key(entry, problems) else {
                continue;
            };
            if seen.insert(key) {
                entries.push((key, entry));
            } else {
                problems.add(self.duplicate(key, entry.key.extent()));
            }
        }
        entries
    }

    /// A mapping of which `known` are the keys. `elsewhere` says where a key that is unknown here is
    /// known.
    pub(in crate::job_config) fn fields(
        &self,
        known: &[&'static str],
        keys: Keys,
        elsewhere: impl Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Option<Fields<'n>> {
        let Some(mapping) = self.node.as_mapping() else {
            problems.add(self.error("expected a mapping of keys and values"));
            return None;
        };
        let mut seen = HashSet::new();
        let mut misspelt = Vec::new();
        let mut all_known = true;
        for entry in &mapping.entries {
            let Some(key) = self.key(entry, problems) else {
                continue;
            };
            let place = entry.key.extent();
            let path = || self.below(&cited(key), &entry.key).path;
            let is_known = known.contains(&key);
            all_known &= is_known;
            if !seen.insert(key) {
                problems.add(match keys {
                    Keys::Strict => self.duplicate(key, place),
                    Keys::Lenient => {
                        Problem::warning(Some(place), &path(), "repeated key, the last one counts")
                    }
                });
            } else if !is_known {
                let near = did_you_mean(key, known).filter(|name| self.node.get(name).is_none());
                misspelt.extend(near.filter(|_| keys == Keys::Strict));
                let help = near.map(|name| format!("did you mean `{name}`?"));
                let problem = match keys {
                    Keys::Strict => Problem::error(
                        Some(place),
                        &path(),
                        format!(
                            "unknown field `{}`, expected one of {}",
                            cited(key),
                            quoted(known)
                        ),
                    ),
                    Keys::Lenient => Problem::warning(Some(place), &path(), "unknown key, ignored"),
                };
                problems.add(problem.help(elsewhere(key).or(help)));
            }
        }
        Some(Fields {
            of: self.clone(),
            misspelt,
            all_known,
        })
    }

    fn key(&self, entry: &'n Entry, problems: &mut Problems) -> Option<&'n str> {
        let is_text = |tag: &Tag| !matches!(tag, Tag::Typed(_) | Tag::Null);
        let scalar = entry
            .key
            .as_scalar()
            .filter(|scalar| !scalar.is_null() && is_text(&scalar.tag));
        if scalar.is_none() {
            let message = "expected a text as the key";
            problems.add(Problem::error(
                Some(entry.key.extent()),
                &self.path,
                message,
            ));
        }
        scalar.map(|scalar| scalar.text.as_str())
    }

    fn duplicate(&self, key: &str, place: Span) -> Problem {
        let message = format!("duplicate key `{}`, expected each key once", cited(key));
        Problem::error(Some(place), &self.path, message)
    }
}

impl<'n> Fields<'n> {
    /// The value of a key that is there; `key:` without a value is an absent key, as in the original's
    /// parser.
    pub(in crate::job_config) fn get(&self, name: &str) -> Option<Value<'n>> {
        self.of.get(name)
    }

    /// The value of a key that must be there.
    pub(in crate::job_config) fn required(
        &self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Value<'n>> {
        if let Some(entry) = self.of.node.entry(name) {
            return Some(self.of.below(name, &entry.value));
        }
        if !self.misspelt.contains(&name) {
            problems.add(self.of.error(format!("missing field `{name}`")));
        }
        None
    }

    /// Whether there is no other key, which would be a problem already.
    pub(in crate::job_config) fn are_all_known(&self) -> bool {
        self.all_known
    }

    /// Where the key itself stands.
    pub(in crate::job_config) fn key_place(&self, name: &str) -> Option<Span> {
        let entry = self.of.node.entry(name)?;
        Some(entry.key.extent())
    }

    pub(in crate::job_config) fn text(&self, name: &str, problems: &mut Problems) -> String {
        let text = self.get(name).and_then(|value| value.text(problems));
        text.unwrap_or_default()
    }

    pub(in crate::job_config) fn boolean(
        &self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<bool> {
        self.get(name)?.boolean(problems)
    }

    pub(in crate::job_config) fn list(
        &self,
        name: &str,
        expected: &str,
        problems: &mut Problems,
    ) -> Vec<Value<'n>> {
        let list = self.get(name).map(|value| value.list(expected, problems));
        list.unwrap_or_default()
    }

    pub(in crate::job_config) fn texts(
        &self,
        name: &str,
        expected: &str,
        problems: &mut Problems,
    ) -> Vec<String> {
        let texts = self.get(name).map(|value| value.texts(expected, problems));
        texts.unwrap_or_default()
    }
}

/// The help for a value or key that is none of the allowed ones.
pub(in crate::job_config) fn meant(found: &str, allowed: &[&str]) -> Option<String> {
    did_you_mean(found, allowed).map(|name| format!("did you mean `{name}`?"))
}
