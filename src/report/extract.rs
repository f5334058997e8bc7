//! The beginning and the end of a text of any length, in bounded memory.

use std::collections::VecDeque;

/// Less is of no use to anybody.
const LEAST: usize = 2 << 10;

/// Of a text that is too long, a quarter of what is shown is its beginning: how it started matters
/// less than how it ended.
const HEAD_SHARE: usize = 4;

/// In the place of a text for which there is no room.
const NOTHING_SHOWN: &str = "…";

/// Text as a stream brings it; the middle is dropped where there is too much.
#[derive(Debug, Default)]
pub(crate) struct Extract {
    head: String,
    /// The first character may have lost its beginning.
    tail: VecDeque<u8>,
    missing: Missing,
    capacity: usize,
}

/// What is left out between the beginning and the end.
#[derive(Debug, Default, Clone, Copy)]
struct Missing {
    bytes: u64,
    /// Some more was not even read.
    unread: bool,
}

impl Missing {
    fn is_nothing(self) -> bool {
        self.bytes == 0 && !self.unread
    }

    fn and(self, bytes: usize) -> Self {
        Self {
            bytes: self.bytes + bytes as u64,
            ..self
        }
    }
}

impl From<&str> for Extract {
    /// Keeps all of the text.
    fn from(text: &str) -> Self {
        Self {
            head: text.into(),
            ..Self::default()
        }
    }
}

impl Extract {
    /// Keeps about `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(LEAST),
            ..Self::default()
        }
    }

    /// Keeps the end of a text whose beginning is not read.
    pub(crate) fn of_end(capacity: usize) -> Self {
        let mut end = Self::new(capacity);
        end.missing.unread = true;
        end
    }

    /// This text's beginning, and another one's end, of which some of the middle may have been in this one.
    pub(crate) fn up_to(self, end: Self) -> Self {
        let read = self.missing.and(self.tail.len());
        Self {
            head: self.head,
            missing: Missing {
                bytes: (read.bytes.saturating_sub(end.tail.len() as u64)).max(end.missing.bytes),
                unread: true,
            },
            ..end
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        let for_head = self.capacity / HEAD_SHARE;
        let room = if self.tail.is_empty() && self.missing.is_nothing() {
            for_head.saturating_sub(self.head.len())
        } else {
            0
        };
        let (head, tail) = text.split_at(boundary(text, room));
        self.head.push_str(head);
        // Before it is copied, so that the tail never takes more than it keeps.
        let for_tail = self.capacity - for_head;
        let passed = tail.len().saturating_sub(for_tail);
        let kept = &tail.as_bytes()[passed..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(for_tail);
        self.tail.drain(..excess);
        self.tail.extend(kept);
        self.missing = self.missing.and(passed + excess);
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.head.capacity() + self.tail.capacity()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    /// Bytes that JSON needs for all that is kept.
    pub(crate) fn json_len(&self) -> usize {
        let (tail, missing) = self.tail();
        let marker = if missing.is_nothing() {
            0
        } else {
            marker(missing).len() + 2
        };
        json_len(&self.head) + json_len(&tail) + marker
    }

    /// With what is missing before it.
    fn tail(&self) -> (String, Missing) {
        let mut bytes: Vec<u8> = self.tail.iter().copied().collect();
        let continues = |byte: &&u8| (0x80..0xc0).contains(*byte);
        let broken = if self.missing.is_nothing() {
            0
        } else {
            bytes.iter().take_while(continues).count()
        };
        bytes.drain(..broken);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (text, self.missing.and(broken))
    }

    /// At most `budget` bytes of JSON, with a mark where something is left out.
    pub(crate) fn render(&self, budget: usize) -> String {
        let (tail, missing) = self.tail();
        if !missing.is_nothing() {
            return cut(&self.head, &tail, missing, budget);
        }
        let whole = self.head.clone() + &tail;
        if json_len(&whole) <= budget {
            return whole;
        }
        cut(&whole, &whole, missing, budget)
    }
}

/// The first part of `head`, a marker, the last part of `tail` (the same text, if nothing was dropped
/// between them).
fn cut(head: &str, tail: &str, missing: Missing, budget: usize) -> String {
    // The marker's newlines are two bytes each, its number has at most 20 digits.
    let longest = Missing {
        bytes: u64::MAX,
        ..missing
    };
    let room = budget.saturating_sub(marker(longest).len() + 2);
    if room == 0 {
        let shown = if budget < NOTHING_SHOWN.len() {
            ""
        } else {
            NOTHING_SHOWN
        };
        return shown.to_owned();
    }
    let first = prefix(head, room / HEAD_SHARE);
    let last = suffix(tail, room - json_len(first));
    let kept = first.len() + last.len();
    let all = if missing.is_nothing() {
        head.len()
    } else {
        head.len() + tail.len()
    };
    let marker = marker(missing.and(all.saturating_sub(kept)));
    format!("{first}{marker}{last}")
}

fn marker(Missing { bytes, unread }: Missing) -> String {
    let least = if unread { "more than " } else { "" };
    format!("\n[... {least}{bytes} bytes left out ...]\n")
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

/// Where a text can be cut, at this place or just before it.
pub(crate) fn boundary(text: &str, place: usize) -> usize {
    let mut places = (0..=place.min(text.len())).rev();
    places
        .find(|&place| text.is_char_boundary(place))
        .unwrap_or_default()
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
        let mut text = Extract::new(10_000);
        text.push("für ");
        text.push("alle\n");
        assert_eq!(text.render(100), "für alle\n");
    }

    #[test]
    fn a_stream_of_any_length_keeps_its_beginning_and_its_end() {
        let mut text = Extract::new(10_000);
        text.push("first line\n");
        for _ in 0..10_000 {
            text.push("some öther line\n");
        }
        text.push("last line\n");
        text.push(&"x\n".repeat(100_000));
        text.push("last line\n");
        assert!(text.head.len() + text.tail.len() <= text.capacity);
        assert!(text.memory() <= 2 * text.capacity, "{}", text.memory());
        for budget in [200, 5_000, 100_000] {
            let shown = text.render(budget);
            assert!(json_len(&shown) <= budget);
            assert!(shown.starts_with("first line\n"), "{budget}");
            assert!(shown.ends_with("last line\n"), "{budget}");
            assert!(!shown.contains('\u{fffd}'), "{budget}");
        }
    }

    #[test]
    fn a_text_that_was_not_read_to_its_end_can_be_given_another_end() {
        let mut begun = Extract::new(10_000);
        begun.push("first line\n");
        begun.push(&"middle\n".repeat(10_000));
        let mut end = Extract::of_end(10_000);
        end.push(&"later\n".repeat(10_000));
        end.push("last line\n");
        let text = begun.up_to(end);
        for budget in [200, 5_000] {
            let shown = text.render(budget);
            assert!(json_len(&shown) <= budget);
            assert!(shown.starts_with("first line\n"), "{shown}");
            assert!(shown.contains("[... more than 6"), "{shown}");
            assert!(shown.ends_with("later\nlast line\n"), "{shown}");
        }
    }

    #[test]
    fn a_cut_is_marked_however_little_room_there_is() {
        let text = Extract::from("😀".repeat(1000).as_str());
        for budget in 0..120 {
            let shown = text.render(budget);
            assert!(json_len(&shown) <= budget);
            let marked = shown.contains("bytes left out") || shown == NOTHING_SHOWN;
            assert!(marked || budget < 3, "{budget}: {shown}");
        }
        assert_eq!(Extract::from("").render(0), "");
    }
}
