//! What a terminal shows to people: its width, and the styles that mean the same in every command.

use anstyle::{AnsiColor, Style};

pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const TITLE: Style = Style::new().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();

/// What a terminal has at least.
pub(crate) const WIDTH: usize = 80;

/// Lines broken at blanks so that each fits a terminal, `before` columns of which are taken.
pub(crate) fn wrapped(text: &str, before: usize) -> Vec<String> {
    let paragraphs = text.split('\n');
    paragraphs
        .flat_map(|paragraph| wrapped_line(paragraph, WIDTH - before))
        .collect()
}

fn wrapped_line(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_lines_keeps_them() {
        assert_eq!(wrapped("a b\ncd e", WIDTH - 3), ["a b", "cd", "e"]);
    }
}
