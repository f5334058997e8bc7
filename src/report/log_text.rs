//! The log of a container on its way into an answer: read as a stream, made plain, masked, and cut.

use super::extract::Extract;
use super::masks::{Masking, Masks};
use super::plain::Plain;

/// In memory that does not depend on the length of the log.
#[derive(Debug)]
pub(crate) struct LogText {
    plain: Plain,
    masking: Masking,
    shown: Extract,
    is_empty: bool,
}

impl LogText {
    /// Keeps about `capacity` bytes.
    pub(crate) fn new(capacity: usize, masks: &Masks) -> Self {
        Self {
            plain: Plain::default(),
            masking: Masking::new(masks),
            shown: Extract::new(capacity),
            is_empty: true,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.is_empty &= bytes.is_empty();
        let (masking, shown) = (&mut self.masking, &mut self.shown);
        let mut show = |text: &str| shown.push(text);
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

    /// With a mark at its end: the rest is missing.
    pub(crate) fn interrupted(self, reason: &str) -> Extract {
        self.ended(&format!("\n[... the rest is missing: {reason} ...]\n"))
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
            let (mut text, began) = (LogText::new(60_000, &masks), Instant::now());
            for _ in 0..(1 << 30) / chunk.len() {
                text.push(chunk.as_bytes());
            }
            let shown = text.finish().render(60_000).len();
            let rate = 1024.0 / began.elapsed().as_secs_f64();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let peak = status
                .lines()
                .find(|line| line.starts_with("VmHWM"))
                .unwrap();
            eprintln!("{name}: {rate:.0} MB/s, {shown} bytes, {peak}");
        }
    }
}
