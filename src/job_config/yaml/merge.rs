//! The merge key `<<`, which takes the entries of a mapping, or of several, into another.

use std::collections::HashSet;

use super::build::{MAX_ALIASES, within};
use super::{Entry, Kind, Node, Style, Tag, YamlError};

/// Works `<<` in: a mapping's own keys win, then the first of those that are merged.
pub(super) fn merged(entries: Vec<Entry>, spent: &mut usize) -> Result<Vec<Entry>, YamlError> {
    let is_merge = |entry: &Entry| {
        let key = entry.key.as_scalar();
        key.is_some_and(|key| {
            let tagged = matches!(&key.tag, Tag::Typed(tag) if tag == "!!merge");
            key.text == "<<" && (tagged || key.tag == Tag::None && key.style == Style::Plain)
        })
    };
    if !entries.iter().any(is_merge) {
        return Ok(entries);
    }
    let (merges, mut entries): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(is_merge);
    let mut names: HashSet<String> = entries
        .iter()
        .filter_map(|entry| entry.name().map(str::to_owned))
        .collect();
    for merge in merges {
        *spent += 1;
        within(*spent, MAX_ALIASES, "merge keys", merge.key.span)?;
        let mut found = Vec::new();
        collect(merge.value, &mut found)?;
        for entry in found {
            let name = entry.name().map(str::to_owned);
            if name.is_none_or(|name| names.insert(name)) {
                entries.push(Entry {
                    merged: true,
                    ..entry
                });
            }
        }
    }
    Ok(entries)
}

/// The entries of a mapping, or of a list of mappings, that a merge key names.
fn collect(value: Node, found: &mut Vec<Entry>) -> Result<(), YamlError> {
    let span = value.extent();
    match value.kind {
        Kind::Mapping(mapping) => {
            // Of a repeated key the last counts.
            let mut seen = HashSet::new();
            let mut entries = mapping.entries;
            entries.reverse();
            entries.retain(|entry| {
                entry.merged || entry.name().is_none_or(|name| seen.insert(name.to_owned()))
            });
            entries.reverse();
            found.extend(entries);
        }
        Kind::Sequence(items) => {
            for item in items {
                collect(item, found)?;
            }
        }
        Kind::Scalar(scalar) if scalar.is_null() => {}
        Kind::Scalar(_) => {
            return Err(YamlError {
                span,
                message: "expected a mapping, or a list of mappings, for `<<`".into(),
            });
        }
    }
    Ok(())
}
