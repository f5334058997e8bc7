//! Events of the parser → nodes, within bounds that are far above any config that people write.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, StructureStyle};

use super::{Entry, Kind, Layout, Mapping, Node, Scalar, Span, Style, Tag, YamlError, merge};

const MAX_NODES: usize = 20_000;
/// Of lists and mappings in each other, those behind aliases as well.
const MAX_DEPTH: usize = 32;
/// And as many anchors and merge keys.
pub(super) const MAX_ALIASES: usize = 200;
/// What all aliases together stand for.
const MAX_REPEATED_NODES: usize = 10_000;
const MAX_SCALAR_BYTES: usize = 1 << 20;

/// Reads one document; none if there is nothing but comments.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new(text);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let span = builder.span(&granit_parser::Span::empty(*error.marker()));
            let message = error.info();
            let tab = message
                .contains("tab")
                .then(|| tab_in_indentation(text, span));
            tab.flatten().unwrap_or(YamlError { span, message })
        })?;
        builder.take(event, &span)?;
    }
    Ok(builder.root)
}

/// In the line of the error or the next one: the parser stops at a tab, or before it.
fn tab_in_indentation(text: &str, error: Span) -> Option<YamlError> {
    let mut start = text[..error.start].rfind('\n').map_or(0, |end| end + 1);
    for (line, content) in (error.line..).zip(text[start..].split_inclusive('\n').take(2)) {
        let indentation = content.len() - content.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = content[..indentation].find('\t') {
            return Some(YamlError {
                span: Span {
                    start: start + tab,
                    end: start + tab + 1,
                    line,
                    column: u32::try_from(tab + 1).unwrap_or(u32::MAX),
                },
                message: "indented with a tab; YAML allows only spaces there".into(),
            });
        }
        start += content.len();
    }
    None
}

struct Builder<'t> {
    text: &'t str,
    root: Option<Node>,
    documents: usize,
    /// Lists and mappings that have not ended, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    spent: Spent,
    /// End of the last event: what comes next starts behind it.
    behind: usize,
}

struct Open {
    kind: OpenKind,
    span: Span,
    anchor: usize,
    height: usize,
}

enum OpenKind {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        key: Option<Node>,
        layout: Layout,
    },
}

/// A node that aliases may stand for, and what each of them costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    height: usize,
}

#[derive(Default)]
struct Spent {
    nodes: usize,
    repeated: usize,
    copied: usize,
    aliases: usize,
    anchors: usize,
    merges: usize,
    bytes: usize,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            root: None,
            documents: 0,
            open: Vec::new(),
            anchors: HashMap::new(),
            spent: Spent::default(),
            behind: 0,
        }
    }

    fn take(&mut self, event: Event<'_>, at: &granit_parser::Span) -> Result<(), YamlError> {
        let span = self.span(at);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document starts here, expected only one".into();
                    return Err(YamlError { span, message });
                }
            }
            Event::Alias(id) => return self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref().map_or(Tag::None, tag_of);
                let (span, style) = match style {
                    ScalarStyle::Plain => (span, Style::Plain),
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => (span, Style::Quoted),
                    ScalarStyle::Literal | ScalarStyle::Folded => {
                        (self.with_header(span), Style::Block)
                    }
                };
                // The parser writes `~` where nothing is written.
                let nothing = style == Style::Plain && span.start == span.end;
                let text = if nothing {
                    String::new()
                } else {
                    text.into_owned()
                };
                self.spent.bytes += text.len();
                self.spend_node(anchor, span)?;
                let kind = Kind::Scalar(Scalar { text, tag, style });
                self.add(kind, span, anchor, 0)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.begin(OpenKind::Sequence(Vec::new()), span, anchor)?;
            }
            Event::MappingStart(layout, anchor, _) => {
                let kind = OpenKind::Mapping {
                    entries: Vec::new(),
                    key: None,
                    layout: match layout {
                        StructureStyle::Block => Layout::Block,
                        StructureStyle::Flow => Layout::Flow,
                    },
                };
                self.begin(kind, span, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span)?,
            // The parser may learn more events, none of which is a node that we asked for.
            _ => {}
        }
        self.behind = self.behind.max(span.end);
        Ok(())
    }

    fn begin(&mut self, kind: OpenKind, span: Span, anchor: usize) -> Result<(), YamlError> {
        self.spend_node(anchor, span)?;
        self.open.push(Open {
            kind,
            span,
            anchor,
            height: 0,
        });
        within(self.open.len(), MAX_DEPTH, "levels", span)
    }

    fn end(&mut self, end: Span) -> Result<(), YamlError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        // A block ends with its last value; what the parser calls its end is the start of what follows.
        let last = match &open.kind {
            OpenKind::Sequence(items) => items.last().map(|item| item.extent().end),
            OpenKind::Mapping { entries, .. } => {
                entries.last().map(|entry| entry.value.extent().end)
            }
        };
        let in_brackets = self.text[open.span.start..].starts_with(['[', '{'])
            && self.text[..end.end].ends_with([']', '}'])
            && end.start < end.end;
        let span = Span {
            end: if in_brackets {
                end.end
            } else {
                last.unwrap_or(open.span.end)
            },
            ..open.span
        };
        let kind = match open.kind {
            OpenKind::Sequence(items) => Kind::Sequence(items),
            OpenKind::Mapping {
                entries, layout, ..
            } => Kind::Mapping(Mapping {
                entries: merge::merged(entries, &mut self.spent.merges)?,
                layout,
            }),
        };
        self.add(kind, span, open.anchor, open.height)
    }

    /// Puts a finished node where it belongs.
    fn add(
        &mut self,
        kind: Kind,
        span: Span,
        anchor: usize,
        height: usize,
    ) -> Result<(), YamlError> {
        let node = Node {
            kind,
            span,
            alias: None,
        };
        if anchor != 0 {
            let (nodes, bytes) = size(&node);
            let anchored = Anchored {
                node: node.clone(),
                nodes,
                bytes,
                height,
            };
            // Anchors in anchors are copied again and again.
            self.spent.copied += nodes;
            within(self.spent.copied, 2 * MAX_NODES, "anchors", span)?;
            self.anchors.insert(anchor, anchored);
        }
        self.place(node, height)
    }

    fn place(&mut self, node: Node, height: usize) -> Result<(), YamlError> {
        let (depth, span) = (self.open.len() + height, node.extent());
        within(depth, MAX_DEPTH, "levels", span)?;
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.height = parent.height.max(height + 1);
        match &mut parent.kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping { entries, key, .. } => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push(Entry {
                    key,
                    value: node,
                    merged: false,
                }),
            },
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), YamlError> {
        self.behind = self.behind.max(span.end);
        self.spent.aliases += 1;
        within(self.spent.aliases, MAX_ALIASES, "aliases", span)?;
        let Some(anchored) = self.anchors.get(&id) else {
            let message = "this alias stands for a value that it is a part of".into();
            return Err(YamlError { span, message });
        };
        self.spent.repeated += anchored.nodes;
        self.spent.bytes += anchored.bytes;
        if self.spent.repeated <= MAX_REPEATED_NODES && self.spent.bytes <= MAX_SCALAR_BYTES {
            let (mut node, height) = (anchored.node.clone(), anchored.height);
            node.alias = Some(span);
            return self.place(node, height);
        }
        Err(too_much("repeated values", span))
    }

    fn spend_node(&mut self, anchor: usize, span: Span) -> Result<(), YamlError> {
        self.spent.nodes += 1;
        self.spent.anchors += usize::from(anchor != 0);
        within(self.spent.nodes, MAX_NODES, "values", span)?;
        within(self.spent.anchors, MAX_ALIASES, "anchors", span)?;
        within(self.spent.bytes, MAX_SCALAR_BYTES, "bytes", span)
    }

    fn span(&self, at: &granit_parser::Span) -> Span {
        let offset = |marker: &granit_parser::Marker| {
            let mut offset = marker.byte_offset().unwrap_or(self.text.len());
            // The parser's offsets are trusted with the message, not with a panic.
            while !self.text.is_char_boundary(offset) {
                offset = offset.saturating_sub(1).min(self.text.len());
            }
            offset
        };
        let (start, end) = (offset(&at.start), offset(&at.end));
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Span {
            start,
            end: end.max(start),
            line: number(at.start.line()),
            column: number(at.start.col() + 1),
        }
    }

    /// A block scalar from its `|` or `>` to the end of its last line.
    fn with_header(&self, content: Span) -> Span {
        let text = self.text;
        let kept = text[content.start..content.end].trim_end();
        let end = content.start + kept.len();
        let end = match text[end..].find('\n') {
            Some(newline) if !kept.is_empty() => end + newline + 1,
            _ => end,
        };
        let behind = self.behind.min(content.start);
        let mut comment = false;
        let header = text[behind..content.start]
            .char_indices()
            .find(|&(_, character)| {
                comment = match character {
                    '#' => true,
                    '\n' => false,
                    _ => comment,
                };
                !comment && matches!(character, '|' | '>')
            });
        let start = header.map_or(content.start, |(offset, _)| behind + offset);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let lines_between = text[start..content.start].matches('\n').count();
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Span {
            start,
            end: end.max(start),
            line: content.line.saturating_sub(number(lines_between)),
            column: number(text[line_start..start].chars().count() + 1),
        }
    }
}

pub(super) fn within(spent: usize, most: usize, what: &str, span: Span) -> Result<(), YamlError> {
    if spent <= most {
        return Ok(());
    }
    Err(too_much(what, span))
}

fn too_much(what: &str, span: Span) -> YamlError {
    YamlError {
        span,
        message: format!(
            "too much for a config ({what}), allowed are {MAX_NODES} values, {MAX_DEPTH} levels and \
             {MAX_ALIASES} aliases"
        ),
    }
}

fn tag_of(tag: &granit_parser::Tag) -> Tag {
    match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
        Some("str") => Tag::Text,
        Some("null") => Tag::Null,
        Some(
            kind @ ("int" | "float" | "bool" | "binary" | "timestamp" | "seq" | "map" | "merge"),
        ) => Tag::Typed(format!("!!{kind}")),
        // The tag for "no plain scalar's meaning".
        None if tag.handle().is_empty() && tag.suffix() == "!" => Tag::Text,
        _ => Tag::None,
    }
}

/// Nodes and bytes of the texts.
fn size(node: &Node) -> (usize, usize) {
    let add = |(nodes, bytes): (usize, usize), node| {
        let (more_nodes, more_bytes) = size(node);
        (nodes + more_nodes, bytes + more_bytes)
    };
    match &node.kind {
        Kind::Scalar(scalar) => (1, scalar.text.len()),
        Kind::Sequence(items) => items.iter().fold((1, 0), add),
        Kind::Mapping(mapping) => mapping
            .entries
            .iter()
            .flat_map(|entry| [&entry.key, &entry.value])
            .fold((1, 0), add),
    }
}
