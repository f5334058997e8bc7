//! What a container printed, as plain text: what a terminal shows of it in the end.
//!
//! Escape sequences (ECMA-48) are gone, of a line that was written again over itself the last state is left,
//! other control characters are gone, and so are those that show text in another order than it has.

use super::extract::boundary;

/// A longer line is handed on in parts, the ones before the last for good.
const MAX_LINE: usize = 8 << 10;

/// Bytes as a stream brings them.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// The beginning of a character.
    undecoded: Vec<u8>,
    state: State,
    line: String,
    /// The next character begins the line anew.
    returned: bool,
    /// Part of the line cannot be taken back.
    handed_on: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    /// Parameters and intermediate bytes, up to a letter.
    Sequence,
    /// A title, a link, a picture: up to its terminator.
    String,
    /// An escape within it, which a backslash makes its terminator.
    StringEscape,
}

impl Plain {
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut impl FnMut(&str)) {
        let joined;
        let mut rest = bytes;
        if !self.undecoded.is_empty() {
            joined = [&std::mem::take(&mut self.undecoded), bytes].concat();
            rest = &joined;
        }
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => return self.text(text, out),
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            self.text(std::str::from_utf8(valid).unwrap_or_default(), out);
            let Some(length) = error.error_len() else {
                self.undecoded = invalid.to_vec();
                return;
            };
            self.text("\u{fffd}", out);
            rest = &invalid[length..];
        }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.undecoded.capacity() + self.line.capacity()
    }

    /// Hands on the last line, which may have no end.
    pub(super) fn finish(&mut self, out: &mut impl FnMut(&str)) {
        if !std::mem::take(&mut self.undecoded).is_empty() {
            self.text("\u{fffd}", out);
        }
        self.hand_on(out);
    }

    fn text(&mut self, text: &str, out: &mut impl FnMut(&str)) {
        let mut rest = text;
        while !rest.is_empty() {
            if self.state == State::Text {
                let run = rest.bytes().position(may_be_special);
                let (run, after) = rest.split_at(run.unwrap_or(rest.len()));
                self.show(run, out);
                rest = after;
            }
            let mut characters = rest.chars();
            if let Some(character) = characters.next() {
                self.character(character, out);
                rest = characters.as_str();
            }
        }
    }

    fn character(&mut self, character: char, out: &mut impl FnMut(&str)) {
        // No sequence goes beyond its line: one without an end must not swallow the log.
        if character == '\n' {
            self.state = State::Text;
            self.line.push('\n');
            self.hand_on(out);
            self.handed_on = false;
            self.returned = false;
            return;
        }
        self.state = match (self.state, character) {
            // Cancel and substitute end a sequence, as its last character does.
            (State::String, '\u{7}' | '\u{9c}')
            | (State::Escape | State::Sequence, '\u{18}' | '\u{1a}')
            | (
                State::Escape | State::StringEscape,
                '0'..='O' | 'Q'..='W' | 'Y' | 'Z' | '\\' | '`'..='~',
            )
            | (State::Sequence, '@'..='~') => State::Text,
            (State::String, '\u{1b}') => State::StringEscape,
            (State::Escape | State::StringEscape, ']' | 'P' | 'X' | '^' | '_')
            | (_, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}')
            | (State::String, _) => State::String,
            (State::Escape | State::StringEscape, '[')
            | (_, '\u{9b}')
            | (State::Sequence, ' '..='?') => State::Sequence,
            // Intermediate bytes come before the last character.
            (_, '\u{1b}') | (State::Escape | State::StringEscape, ' '..='/') => State::Escape,
            // Control characters within a sequence work as outside.
            (state, character) => {
                let state = if character.is_control() {
                    state
                } else {
                    State::Text
                };
                self.control_or_shown(character, out);
                state
            }
        };
    }

    fn control_or_shown(&mut self, character: char, out: &mut impl FnMut(&str)) {
        match character {
            '\r' => self.returned = true,
            // Spinners, and letters printed twice to be bold.
            '\u{8}' => {
                self.line.pop();
            }
            '\t' => self.show("\t", out),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            other if other.is_control() => {}
            other => self.show(other.encode_utf8(&mut [0; 4]), out),
        }
    }

    fn show(&mut self, text: &str, out: &mut impl FnMut(&str)) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.returned) {
            self.line.clear();
            if std::mem::take(&mut self.handed_on) {
                out("\n");
            }
        }
        // At the same places in whatever pieces the text comes.
        let mut rest = text;
        while self.line.len() + rest.len() > MAX_LINE {
            let (fits, more) = rest.split_at(boundary(rest, MAX_LINE - self.line.len()));
            self.line.push_str(fits);
            self.hand_on(out);
            self.handed_on = true;
            rest = more;
        }
        self.line.push_str(rest);
    }

    fn hand_on(&mut self, out: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            out(&self.line);
            self.line.clear();
        }
    }
}

/// The first byte of a control character, or of one that changes the order of text.
fn may_be_special(byte: u8) -> bool {
    byte < b' ' || matches!(byte, 0x7f | 0xc2 | 0xe2)
}

/// All of a text at once.
pub(super) fn plain(text: &str) -> String {
    let (mut plain, mut shown) = (Plain::default(), String::new());
    let mut out = |text: &str| shown.push_str(text);
    plain.push(text.as_bytes(), &mut out);
    plain.finish(&mut out);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_shows_in_the_end_is_left() {
        for (printed, shown) in [
            ("plain für alle 😀\n", "plain für alle 😀\n"),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}[38:2::1:2:3mx", "red x"),
            ("\u{1b}[?25l\u{1b}[2J\u{1b}[1 qx", "x"),
            (
                "see \u{1b}]8;;https://host/?t=1\u{1b}\\the page\u{1b}]8;;\u{7}.",
                "see the page.",
            ),
            ("\u{1b}]0;title\u{7}x\u{1b}Pdata\u{1b}\\y", "xy"),
            ("\u{1b}7a\u{1b}(Bb\u{1b}=c\u{1b}#8d\u{1b}Me", "abcde"),
            ("\u{9b}31mred\u{9d}0;t\u{9c}x", "redx"),
            ("  1%\r 50%\r100%\n", "100%\n"),
            ("100%\r\u{1b}[K\n", "100%\n"),
            ("dos\r\nline\r\r\n", "dos\nline\n"),
            ("|\u{8}/\u{8}-", "-"),
            ("N\u{8}NA\u{8}A", "NA"),
            ("a\u{0}b\u{7}\u{c}c\u{7f}\u{85}\td", "abc\td"),
            ("admin\u{202e}nimda\u{2066}", "adminnimda"),
            ("link \u{1b}]8;;never ended\nnext", "link \nnext"),
            ("\u{1b}[31", ""),
            ("\u{1b}\u{1b}[31mx\u{1b}[3\u{18}y", "xy"),
            ("a \u{1b}[3é", "a é"),
            ("dash – and €", "dash – and €"),
        ] {
            assert_eq!(plain(printed), shown, "{printed:?}");
        }
    }

    #[test]
    fn the_chunks_of_a_stream_do_not_matter() {
        let text = "é\u{1b}[31m€\u{1b}]8;;u\u{1b}\\l\r1%\r2%\n\u{9b}1mx\u{202e}\r\n";
        let bytes = [text.as_bytes(), &[0xff, b'a', 0xe2, 0x82]].concat();
        for size in 1..8 {
            let (mut plain, mut shown) = (Plain::default(), String::new());
            let mut out = |text: &str| shown.push_str(text);
            for chunk in bytes.chunks(size) {
                plain.push(chunk, &mut out);
            }
            plain.finish(&mut out);
            assert_eq!(shown, "2%\nx\n\u{fffd}a\u{fffd}", "{size}");
        }
    }

    #[test]
    fn a_line_of_any_length_takes_little_memory() {
        let mut plain = Plain::default();
        let mut shown = 0;
        for _ in 0..1_000 {
            plain.push(&[b'x'; 1_000], &mut |text| shown += text.len());
            assert!(plain.line.len() <= MAX_LINE);
        }
        let mut last = String::new();
        plain.push(b"\rlast", &mut |text| last.push_str(text));
        plain.finish(&mut |text| last.push_str(text));
        assert!(last.ends_with("\nlast"), "what was handed on stays");
        assert!(shown > 990_000);
    }

    #[test]
    fn a_long_line_is_the_same_in_whatever_pieces_it_comes() {
        let printed = "é€".repeat(MAX_LINE) + "\rover\n";
        let whole = super::plain(&printed);
        for size in [1, 7, 4_000] {
            let (mut plain, mut shown) = (Plain::default(), String::new());
            let mut out = |text: &str| shown.push_str(text);
            for piece in printed.as_bytes().chunks(size) {
                plain.push(piece, &mut out);
            }
            plain.finish(&mut out);
            assert!(shown == whole, "{size}: {} {}", shown.len(), whole.len());
        }
    }
}
