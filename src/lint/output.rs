//! Problems as people, programs and GitHub read them.

use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use clap::ValueEnum;
use serde::Serialize;

use crate::job_config::problem::{Problem, Severity};
use crate::job_config::yaml::Span;
use crate::terminal::{WIDTH, wrapped};

/// Of a problem that is a whole block, so many lines are shown.
const MAX_LINES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people: each problem with the line that it is about.
    Text,
    /// For programs: one object a line.
    Json,
    /// Commands for a workflow of GitHub's, which shows them beside the lines.
    Github,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    None,
    /// Those of terminals.
    Ansi,
}

/// Writes the problems of several files, and counts them.
#[derive(Debug)]
pub(crate) struct Output {
    form: Form,
    colours: Colours,
    files: usize,
    errors: usize,
    warnings: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    file: &'a str,
    line: Option<u32>,
    column: Option<u32>,
    end_line: Option<u32>,
    end_column: Option<u32>,
    severity: &'a str,
    path: &'a str,
    message: &'a str,
    help: Option<&'a str>,
}

impl Output {
    pub(crate) fn new(form: Form, colours: Colours) -> Self {
        Self {
            form,
            colours,
            files: 0,
            errors: 0,
            warnings: 0,
        }
    }

    pub(crate) fn count(&self, severity: Severity) -> usize {
        match severity {
            Severity::Error => self.errors,
            Severity::Warning => self.warnings,
        }
    }

    pub(crate) fn problems(
        &mut self,
        file: &str,
        bytes: &[u8],
        problems: &[Problem],
        to: &mut dyn Write,
    ) -> io::Result<()> {
        self.files += usize::from(!problems.is_empty());
        // A problem of bytes that are no text has no place in it.
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        for problem in problems {
            match problem.severity {
                Severity::Error => self.errors += 1,
                Severity::Warning => self.warnings += 1,
            }
            let written = match self.form {
                Form::Text => format!("{}\n", self.for_people(file, text, problem)),
                Form::Json => json(file, text, problem)?,
                Form::Github => github(file, text, problem),
            };
            writeln!(to, "{written}")?;
        }
        Ok(())
    }

    /// Something that was done.
    pub(crate) fn note(&self, file: &str, message: &str, to: &mut dyn Write) -> io::Result<()> {
        match self.form {
            Form::Text => {
                let note = [Group::with_title(Level::NOTE.primary_title(message))];
                writeln!(to, "{}\n", self.renderer().render(&note))
            }
            Form::Json => {
                let line = Told {
                    file,
                    line: None,
                    column: None,
                    end_line: None,
                    end_column: None,
                    severity: "note",
                    path: "",
                    message,
                    help: None,
                };
                writeln!(to, "{}", serde_json::to_string(&line)?)
            }
            Form::Github => writeln!(
                to,
                "::notice file={}::{}",
                escaped_property(file),
                escaped(message)
            ),
        }
    }

    /// Writes how many there were.
    pub(crate) fn finish(&self, to: &mut dyn Write) -> io::Result<()> {
        if self.form != Form::Text {
            return Ok(());
        }
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let counts = [count(self.errors, "error"), count(self.warnings, "warning")];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        match count(self.files, "file") {
            None => writeln!(to, "ok"),
            Some(files) => writeln!(to, "{} in {files}", counts.join(", ")),
        }
    }

    fn renderer(&self) -> Renderer {
        let renderer = match self.colours {
            Colours::None => Renderer::plain(),
            Colours::Ansi => Renderer::styled(),
        };
        renderer.term_width(WIDTH)
    }

    fn for_people(&self, file: &str, text: &str, problem: &Problem) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let colon = if problem.path.is_empty() { "" } else { ": " };
        let title = format!("{}{colon}{}", problem.path, problem.message);
        // The continued lines stand below the first word.
        let group =
            Group::with_title(level.primary_title(wrapped(&title, "warning: ".len()).join("\n")));
        let group = match problem.place {
            None => group.element(Origin::path(file)),
            Some(place) => {
                let (lines, marked) = shown(text, place);
                let line = usize::try_from(place.line).unwrap_or(usize::MAX);
                let snippet = Snippet::source(lines).line_start(line).path(file);
                group.element(snippet.annotation(AnnotationKind::Primary.span(marked)))
            }
        };
        let group = match &problem.help {
            None => group,
            // What is to be copied stays as it is.
            Some(help) if help.contains('\n') => {
                group.element(Level::HELP.message(help.trim_end()))
            }
            Some(help) => {
                group.element(Level::HELP.message(wrapped(help, "   = help: ".len()).join("\n")))
            }
        };
        self.renderer().render(&[group])
    }
}

/// The lines of a place, and the bytes of them that are meant.
fn shown(text: &str, place: Span) -> (&str, std::ops::Range<usize>) {
    let start = text[..place.start].rfind('\n').map_or(0, |end| end + 1);
    // A byte order mark takes no column.
    let start = if text[start..].starts_with('\u{feff}') {
        start + '\u{feff}'.len_utf8()
    } else {
        start
    };
    let meant = text[place.start..place.end].trim_end_matches(['\r', '\n', ' ']);
    let most = meant.match_indices('\n').nth(MAX_LINES - 1);
    let meant = most.map_or(meant, |(end, _)| &meant[..end]);
    let meant = meant.trim_end_matches('\r');
    let end = place.start + meant.len();
    let line_end = text[end..]
        .find(['\r', '\n'])
        .map_or(text.len(), |length| end + length);
    let start = start.min(place.start);
    (&text[start..line_end], place.start - start..end - start)
}

/// Line and column behind the place.
fn end(text: &str, place: Span) -> (u32, u32) {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let meant = &text[place.start..place.end];
    let newlines = meant.matches('\n').count();
    match meant.rsplit_once('\n') {
        None => (place.line, place.column + number(meant.chars().count())),
        Some((_, last)) => (
            place.line + number(newlines),
            number(last.chars().count() + 1),
        ),
    }
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn json(file: &str, text: &str, problem: &Problem) -> io::Result<String> {
    let end = problem.place.map(|place| end(text, place));
    let line = Told {
        file,
        line: problem.place.map(|place| place.line),
        column: problem.place.map(|place| place.column),
        end_line: end.map(|(line, _)| line),
        end_column: end.map(|(_, column)| column),
        severity: name(problem.severity),
        path: &problem.path,
        message: &problem.message,
        help: problem.help.as_deref(),
    };
    Ok(serde_json::to_string(&line)?)
}

fn github(file: &str, text: &str, problem: &Problem) -> String {
    let mut properties = vec![format!("file={}", escaped_property(file))];
    if let Some(place) = problem.place {
        let (end_line, end_column) = end(text, place);
        properties.push(format!("line={},col={}", place.line, place.column));
        properties.push(format!("endLine={end_line}"));
        // GitHub takes columns within one line only.
        if end_line == place.line {
            properties.push(format!("endColumn={end_column}"));
        }
    }
    if !problem.path.is_empty() {
        properties.push(format!("title={}", escaped_property(&problem.path)));
    }
    let help = problem.help.as_ref().map(|help| format!("\n{help}"));
    let message = format!("{}{}", problem.message, help.unwrap_or_default());
    format!(
        "::{} {}::{}",
        name(problem.severity),
        properties.join(","),
        escaped(message.trim_end())
    )
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, text: &str, marked: &str) -> String {
        let start = text.find(marked).unwrap();
        let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let count = |number: usize| u32::try_from(number).unwrap();
        let place = Span {
            start,
            end: start + marked.len(),
            line: count(text[..start].matches('\n').count() + 1),
            column: count(text[line_start..start].chars().count() + 1),
        };
        let problem =
            Problem::error(Some(place), "a.b", "50% wrong:\nquite").help(Some("no".into()));
        let mut output = Vec::new();
        Output::new(form, Colours::None)
            .problems("a,b:c.yaml", text.as_bytes(), &[problem], &mut output)
            .unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_marker_stands_below_what_is_meant() {
        let wide = format!("{}: here{}", "x".repeat(300), " y".repeat(300));
        let report = [
            ("a: 1\n\tb: äö漢字 here\n", "here"),
            (wide.as_str(), "here"),
            ("a: b\r\nc: d\r\n", "d\r\n"),
            (
                "a: |\n  1\n  2\n  3\n  4\n  5\n",
                "|\n  1\n  2\n  3\n  4\n  5\n",
            ),
        ]
        .map(|(text, marked)| written(Form::Text, text, marked))
        .join("");
        insta::assert_snapshot!(report, @"
        error: a.b: 50% wrong:
               quite
         --> a,b:c.yaml:2:10
          |
        2 |     b: äö漢字 here
          |               ^^^^
          |
          = help: no

        error: a.b: 50% wrong:
               quite
         --> a,b:c.yaml:1:303
          |
        1 | ...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: here y y y y y y y y y y y y y y y y ...
          |                                     ^^^^
          |
          = help: no

        error: a.b: 50% wrong:
               quite
         --> a,b:c.yaml:2:4
          |
        2 | c: d
          |    ^
          |
          = help: no

        error: a.b: 50% wrong:
               quite
         --> a,b:c.yaml:1:4
          |
        1 |   a: |
          |  ____^
        2 | |   1
        3 | |   2
        4 | |   3
          | |___^
          |
          = help: no
        ");
    }

    #[test]
    fn commands_for_github_are_escaped() {
        let report = written(Form::Github, "a: b\nc: d", "d");
        insta::assert_snapshot!(report, @"::error file=a%2Cb%3Ac.yaml,line=2,col=4,endLine=2,endColumn=5,title=a.b::50%25 wrong:%0Aquite%0Ano");
        let report = written(Form::Github, "a: b\nc: d", "b\nc");
        insta::assert_snapshot!(report, @"::error file=a%2Cb%3Ac.yaml,line=1,col=4,endLine=2,title=a.b::50%25 wrong:%0Aquite%0Ano");
    }

    #[test]
    fn programs_get_one_object_a_line() {
        insta::assert_snapshot!(written(Form::Json, "ä: b\nc: d", "b\nc"), @r#"{"file":"a,b:c.yaml","line":1,"column":4,"endLine":2,"endColumn":2,"severity":"error","path":"a.b","message":"50% wrong:\nquite","help":"no"}"#);
    }
}
