//! Changes to a text that are collected by place and made in one go.

use crate::job_config::yaml::{Entry, Layout, Mapping, Span};

#[derive(Debug)]
pub(super) struct Edits<'t> {
    pub(super) text: &'t str,
    edits: Vec<Edit>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

impl<'t> Edits<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            edits: Vec::new(),
        }
    }

    pub(super) fn newline(&self) -> &'static str {
        if self.text.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        }
    }

    pub(super) fn replace(&mut self, start: usize, end: usize, text: &str) {
        self.edits.push(Edit {
            start,
            end,
            text: text.to_owned(),
        });
    }

    /// A new first entry.
    pub(super) fn insert_first(&mut self, mapping: &Mapping, of: Span, entry: &str) {
        let Some(first) = mapping.entries.iter().find(|entry| !entry.merged) else {
            return self.replace(of.start, of.end, &format!("{{{entry}}}"));
        };
        let start = first.key.extent().start;
        match mapping.layout {
            Layout::Flow => self.replace(start, start, &format!("{entry}, ")),
            Layout::Block => {
                let (line, indent) = self.line_of(start);
                let at = if indent.trim().is_empty() {
                    line
                } else {
                    start
                };
                let indent = if at == line { indent } else { "" };
                let entry = format!("{indent}{entry}{}", self.newline());
                self.replace(at, at, &entry);
            }
        }
    }

    /// A new entry behind another.
    pub(super) fn insert_behind(&mut self, layout: Layout, other: &Entry, entry: &str) {
        let end = self.end_of(other);
        match layout {
            Layout::Flow => self.replace(end, end, &format!(", {entry}")),
            Layout::Block => {
                let indent = self.indent(other);
                let newline = self.newline();
                // A block scalar ends behind its last newline.
                if self.text[..end].ends_with('\n') {
                    self.replace(end, end, &format!("{indent}{entry}{newline}"));
                } else {
                    self.insert_at_line_end(end, &format!("{newline}{indent}{entry}"));
                }
            }
        }
    }

    pub(super) fn insert_at_line_end(&mut self, offset: usize, text: &str) {
        let end = self.line_end(offset);
        self.replace(end, end, text);
    }

    /// Blanks up to the column of the entry's key.
    pub(super) fn indent(&self, entry: &Entry) -> String {
        let (_, before) = self.line_of(entry.key.extent().start);
        " ".repeat(before.chars().count())
    }

    /// Behind the value, or behind the colon where nothing follows it.
    pub(super) fn end_of(&self, entry: &Entry) -> usize {
        let span = entry.value.extent();
        let rest = &self.text[span.end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if span.start == span.end && rest[blanks..].starts_with(':') {
            return span.end + blanks + 1;
        }
        span.end
    }

    /// The value as it is written.
    pub(super) fn source_of(&self, entry: &Entry) -> &'t str {
        let source = &self.text[entry.key.extent().end..self.end_of(entry)];
        let source = source.trim_start();
        source.strip_prefix(':').unwrap_or(source).trim_start()
    }

    /// The text of an entry with the changes within it, which are made no more. In a block it goes to the
    /// end of its last line, with the newline.
    pub(super) fn cut(&mut self, layout: Layout, entry: &Entry) -> String {
        let (start, end) = (entry.key.extent().start, self.end_of(entry));
        let end = match layout {
            Layout::Flow => end,
            Layout::Block => self.lines_end(end),
        };
        let within = |edit: &Edit| start <= edit.start && edit.end <= end;
        let (inner, outer) = std::mem::take(&mut self.edits)
            .into_iter()
            .partition(within);
        self.edits = outer;
        let inner = Self {
            text: self.text,
            edits: inner,
        };
        inner.applied(start, end).unwrap_or_default()
    }

    /// Removes those entries of a mapping that go.
    pub(super) fn remove(&mut self, mapping: &Mapping, own: &[&Entry], goes: &[bool]) {
        let start = |index: usize| own[index].key.extent().start;
        let ends: Vec<usize> = own.iter().map(|entry| self.end_of(entry)).collect();
        let end = |index: usize| ends[index];
        let mut index = 0;
        while index < own.len() {
            if !goes[index] {
                index += 1;
                continue;
            }
            let first = index;
            while index < own.len() && goes[index] {
                index += 1;
            }
            let (last, next) = (index - 1, (index < own.len()).then_some(index));
            let (_, before) = self.line_of(start(first));
            let in_lines = mapping.layout == Layout::Block && before.trim().is_empty();
            match (mapping.layout, next) {
                _ if in_lines => {
                    for index in first..=last {
                        let (from, _) = self.line_of(start(index));
                        self.replace(from, self.lines_end(end(index)), "");
                    }
                }
                // In a block, the first key of a list's item, which stands behind the dash.
                (_, Some(next)) => self.replace(start(first), start(next), ""),
                (Layout::Flow, None) if first > 0 => self.replace(end(first - 1), end(last), ""),
                (Layout::Flow, None) if self.text[..start(first)].trim_end().ends_with('{') => {
                    self.replace(start(first), end(last), "");
                }
                // An entry without braces: `[a: b]` is `[{a: b}]`.
                (Layout::Flow | Layout::Block, None) => {
                    self.replace(start(first), end(last), "{}");
                }
            }
        }
    }

    /// The text with all changes; an error where two of them do not go together.
    pub(super) fn apply(&self) -> Result<String, String> {
        self.applied(0, self.text.len())
    }

    fn applied(&self, from: usize, to: usize) -> Result<String, String> {
        let mut edits = self.edits.clone();
        edits.sort();
        // What an alias stands for is changed once.
        edits.dedup();
        let ranges: Vec<(usize, usize)> = edits
            .iter()
            .filter(|edit| edit.start < edit.end)
            .map(|edit| (edit.start, edit.end))
            .collect();
        // Changes within what is removed or replaced.
        let gone = |edit: &Edit| {
            ranges.iter().any(|&(start, end)| {
                let is_other = (start, end) != (edit.start, edit.end);
                let inside = start <= edit.start && edit.end <= end;
                let beside = edit.start == edit.end && [start, end].contains(&edit.start);
                is_other && inside && !beside
            })
        };
        let mut changed = String::new();
        let mut at = from;
        for edit in edits.iter().filter(|edit| !gone(edit)) {
            if edit.start < at {
                return Err("two changes to one place".into());
            }
            changed.push_str(&self.text[at..edit.start]);
            changed.push_str(&edit.text);
            at = edit.end;
        }
        changed.push_str(&self.text[at..to]);
        Ok(changed)
    }

    /// Where the line begins, and what of it stands before the offset.
    fn line_of(&self, offset: usize) -> (usize, &'t str) {
        let text: &'t str = self.text;
        let mut start = text[..offset].rfind('\n').map_or(0, |end| end + 1);
        // A byte order mark takes no column.
        if text[start..offset].starts_with('\u{feff}') {
            start += '\u{feff}'.len_utf8();
        }
        (start, &text[start..offset])
    }

    /// Before the line's newline.
    fn line_end(&self, offset: usize) -> usize {
        let rest = &self.text[offset..];
        let length = rest.find(['\r', '\n']).unwrap_or(rest.len());
        offset + length
    }

    /// Behind the newline of the last line of a value.
    fn lines_end(&self, offset: usize) -> usize {
        if self.text[..offset].ends_with('\n') {
            return offset;
        }
        let rest = &self.text[offset..];
        rest.find('\n')
            .map_or(self.text.len(), |end| offset + end + 1)
    }
}
