//! The beginning and the end of a text of any length, in bounded memory.

use std::collections::VecDeque;

/// Less is of no use to anybody.
const LEAST: usize = 2 << 10;

/// Of a text that is too long, a quarter of what is shown is its beginning: how it started matters
/// less than how it ended.
const HEAD_SHARE: usize = 4;

/// Bytes as a stream brings them; the middle is dropped where they are too many.
#[derive(Debug, Default)]
pub(crate) struct LogText {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
    capacity: usize,
}

impl From<&str> for LogText {
    /// Keeps all of the text.
    fn from(text: &str) -> Self {
        Self {
            head: text.into(),
            ..Self::default()
        }
    }
}

impl LogText {
    /// Keeps about `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(LEAST),
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = (self.capacity / HEAD_SHARE).saturating_sub(self.head.len());
        let (head, tail) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(tail);
        let excess = self
            .tail
            .len()
            .saturating_sub(self.capacity - self.capacity / HEAD_SHARE);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Bytes that JSON needs for all that is kept.
    pub(crate) fn json_len(&self) -> usize {
        json_len(&self.whole())
            + if self.dropped > 0 {
                marker(self.dropped).len() + 2
            } else {
                0
            }
    }

    fn whole(&self) -> String {
        let mut bytes = self.head.clone();
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Valid UTF-8 of at most `budget` bytes of JSON, with a marker where something is left out.
    pub(crate) fn render(&self, budget: usize) -> String {
        if self.dropped == 0 {
            let whole = self.whole();
            if json_len(&whole) <= budget {
                return whole;
            }
            return cut(&whole, &whole, self.dropped, budget);
        }
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        cut(
            &String::from_utf8_lossy(&self.head),
            &String::from_utf8_lossy(&tail),
            self.dropped,
            budget,
        )
    }
}

/// The first part of `head`, a marker, the last part of `tail` (the same text, if nothing was dropped
/// between them).
fn cut(head: &str, tail: &str, dropped: u64, budget: usize) -> String {
    // The marker's newlines are two bytes each, its number has at most 20 digits.
    let room = budget.saturating_sub(marker(u64::MAX).len() + 2);
    if room == 0 {
        return String::new();
    }
    let first = prefix(head, room / HEAD_SHARE);
    let last = suffix(tail, room - json_len(first));
    let kept = first.len() + last.len();
    let all = if dropped == 0 {
        head.len()
    } else {
        head.len() + tail.len()
    };
    let left_out = dropped + all.saturating_sub(kept) as u64;
    format!("{first}{}{last}", marker(left_out))
}

fn marker(left_out: u64) -> String {
    format!("\n[... {left_out} bytes left out ...]\n")
}

fn prefix(text: &str, budget: usize) -> &str {
    let mut used = 0;
    for (index, character) in text.char_indices() {
        used += char_len(character);
        if used > budget {
            return &text[..index];
        }
    }
    text
}

fn suffix(text: &str, budget: usize) -> &str {
    let mut used = 0;
    for (index, character) in text.char_indices().rev() {
        used += char_len(character);
        if used > budget {
            return &text[index + character.len_utf8()..];
        }
    }
    text
}

/// Bytes that JSON needs for a text, without its quotes.
pub(crate) fn json_len(text: &str) -> usize {
    text.chars().map(char_len).sum()
}

/// As `serde_json` writes it: RFC 8259, section 7.
fn char_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_len_counts_as_serde_json_writes() {
        for text in ["plain", "a\"b\\c\n\r\t", "\u{0}\u{1b}[0m\u{7f}", "é😀<>&"] {
            let written = serde_json::to_string(text).unwrap();
            assert_eq!(json_len(text), written.len() - 2, "{text:?}");
        }
    }

    #[test]
    fn a_text_that_fits_is_kept_as_it_is() {
        let mut text = LogText::new(10_000);
        text.push("für ".as_bytes());
        text.push(b"alle\n");
        assert_eq!(text.render(100), "für alle\n");
    }

    #[test]
    fn a_stream_of_any_length_keeps_its_beginning_and_its_end() {
        let mut text = LogText::new(10_000);
        text.push(b"first line\n");
        for _ in 0..10_000 {
            text.push("some öther line\n".as_bytes());
        }
        text.push(b"last line\n");
        assert!(text.head.len() + text.tail.len() <= text.capacity);
        for budget in [200, 5_000, 100_000] {
            let shown = text.render(budget);
            assert!(json_len(&shown) <= budget);
            assert!(shown.starts_with("first line\n"), "{budget}");
            assert!(shown.ends_with("last line\n"), "{budget}");
        }
        assert_eq!(text.render(10), "");
    }

    #[test]
    fn a_cut_inside_a_character_leaves_valid_text() {
        let text = LogText::from("😀".repeat(1000).as_str());
        for budget in 60..120 {
            assert!(json_len(&text.render(budget)) <= budget);
        }
        let mut broken = LogText::new(10_000);
        broken.push(&[0xff, b'a', 0xc3]);
        assert_eq!(broken.render(100), "\u{fffd}a\u{fffd}");
    }
}
