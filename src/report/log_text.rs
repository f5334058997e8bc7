//! The log of a container on its way into an answer: read as a stream, made plain, masked, and cut.

use super::extract::Extract;
use super::masks::{MAX_KEY_LINES, Masking, Masks};
use super::plain::Plain;

/// In memory that does not depend on the length of the log.
#[derive(Debug)]
pub(crate) struct LogText {
    plain: Plain,
    masking: Masking,
    shown: Extract,
    /// Lines that are not shown: they may be the rest of a private key.
    hidden_lines: usize,
    is_empty: bool,
}

impl LogText {
    /// Keeps about `capacity` bytes.
    pub(crate) fn new(capacity: usize, masks: &Masks) -> Self {
        Self {
            plain: Plain::default(),
            masking: Masking::new(masks),
            shown: Extract::new(capacity),
            hidden_lines: 0,
            is_empty: true,
        }
    }

    /// Of the last lines of a log, of which those before are not read.
    pub(crate) fn of_end(capacity: usize, masks: &Masks) -> Self {
        Self {
            shown: Extract::of_end(capacity),
            hidden_lines: MAX_KEY_LINES,
            ..Self::new(capacity, masks)
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.is_empty &= bytes.is_empty();
        let (masking, shown) = (&mut self.masking, &mut self.shown);
        let hidden_lines = &mut self.hidden_lines;
        // What masks hands on a line's end alone.
        let mut show = |text: &str| match *hidden_lines {
            0 => shown.push(text),
            _ if text == "\n" => *hidden_lines -= 1,
            _ => {}
        };
        self.plain
            .push(bytes, &mut |text| masking.push(text, &mut show));
    }

    /// Whether nothing was printed.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    pub(crate) fn finish(self) -> Extract {
        self.ended("")
    }

    /// With the end of the same log, if that could be told apart from secrets, or a mark in its place.
    pub(crate) fn up_to(self, end: Self, reason: &str) -> Extract {
        if end.hidden_lines > 0 {
            return self.interrupted(reason);
        }
        self.finish().up_to(end.finish())
    }

    /// With a mark at its end: the rest is missing.
    pub(crate) fn interrupted(self, reason: &str) -> Extract {
        self.ended(&format!("\n[... the rest is missing: {reason} ...]\n"))
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.plain.memory() + self.masking.memory() + self.shown.memory()
    }

    fn ended(mut self, mark: &str) -> Extract {
        let (masking, shown) = (&mut self.masking, &mut self.shown);
        let mut show = |text: &str| shown.push(text);
        self.plain.finish(&mut |text| masking.push(text, &mut show));
        masking.finish(&mut show);
        show(mark);
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::report::Patterns;

    /// Whatever is printed, in whatever pieces: less than a megabyte, with what brings them.
    #[test]
    fn a_log_of_any_length_takes_the_memory_of_its_answer_and_little_more() {
        let masks = Masks::new(["s3cr3t-Token"], &Patterns::default());
        let pieces = [
            "a line\n",
            "no end ",
            "\r 1%",
            "\u{1b}]8;;",
            "\n",
            "é\u{85}\u{8}",
            "s3cr3t-Token",
        ];
        for piece in pieces {
            let chunk = piece.repeat((16 << 10) / piece.len());
            for size in [1_000, 16 << 10] {
                let mut text = LogText::new(60_000, &masks);
                for bytes in chunk
                    .as_bytes()
                    .chunks(size)
                    .cycle()
                    .take(25 * chunk.len() / size)
                {
                    text.push(bytes);
                    assert!(text.memory() < 256 << 10, "{piece:?}: {}", text.memory());
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_log_shows_no_part_of_a_key() {
        let lines = |from, to| {
            (from..to)
                .map(|n| format!("line {n}\n"))
                .collect::<String>()
        };
        let (mut begun, mut end) = (
            LogText::new(0, &Masks::default()),
            LogText::of_end(0, &Masks::default()),
        );
        begun.push(lines(0, 1_000).as_bytes());
        end.push(b"SECRETPARTOFAKEY\n-----END PRIVATE KEY-----\n");
        end.push(lines(5_000, 5_300).as_bytes());
        let shown = begun.up_to(end, "why").render(4_000);
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(
            shown.starts_with("line 0\n") && shown.ends_with("line 5299\n"),
            "{shown}"
        );
        let (mut begun, mut end) = (
            LogText::new(0, &Masks::default()),
            LogText::of_end(0, &Masks::default()),
        );
        begun.push(b"begun");
        end.push(b"SECRETPARTOFAKEY without lines");
        let shown = begun.up_to(end, "why").render(4_000);
        assert_eq!(shown, "begun\n[... the rest is missing: why ...]\n");
    }

    #[test]
    #[ignore = "measures"]
    fn how_fast_a_gigabyte_is() {
        let patterns = "(?i)password\\s*=\\s*(?<secret>\\S+)\n\\b[0-9a-f]{64}\\b\ncustomer-\\d+";
        let masks = Masks::new(["s3cr3t-Token"], &Patterns::parse(patterns).unwrap());
        let rows: [(&str, String); 6] = [
            ("lines", "2026-11-24T13:00:00Z INFO  some.module: request 1234 of customer handled in 12 ms\n".into()),
            ("colours", "\u{1b}[32mINFO\u{1b}[0m grün und größer: \u{1b}[1m1234\u{1b}[0m files\r\n".into()),
            ("progress", "\r 51% [=====>      ] 123 MB of 456 MB".into()),
            ("no end", "0123456789abcdef".into()),
            ("secrets", "Authorization: Bearer abcdefgh s3cr3t-Token password=x\n".into()),
            ("matches", "customer-1 ".into()),
        ];
        for (name, piece) in rows {
            let chunk = piece.repeat((16 << 10) / piece.len());
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = peak();
            let (mut text, began) = (LogText::new(60_000, &masks), Instant::now());
            for _ in 0..(1 << 30) / chunk.len() {
                text.push(chunk.as_bytes());
            }
            let shown = text.finish().render(60_000).len();
            let rate = 1024.0 / began.elapsed().as_secs_f64();
            let more = peak() - before;
            eprintln!("{name}: {rate:.0} MB/s, {shown} bytes, {more} KB more than before");
        }
    }

    fn peak() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
