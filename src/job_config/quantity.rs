//! Amounts of memory, processors and storage.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize};

use super::fields::shown_as_text;

/// An amount in Kubernetes' notation, such as `50m` or `512Mi`; kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Quantity(String);

impl Quantity {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // k8s.io/apimachinery/pkg/api/resource: number, then a binary or decimal suffix or exponent.
        static QUANTITY: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| {
            Regex::new(
                r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$",
            )
        });
        let is_quantity = QUANTITY
            .as_ref()
            .is_ok_and(|quantity| quantity.is_match(text));
        if is_quantity {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no quantity, expected one such as `1`, `50m`, `128Mi` or `1.5Gi`"
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn exceeds(&self, other: &Self) -> bool {
        self.decimal() > other.decimal()
    }

    /// The number of digits before the point, which is negative where zeros follow it, and all digits from
    /// the first to the last that is not zero: in this order quantities compare, exactly.
    fn decimal(&self) -> (i64, Vec<u8>) {
        let text = self.0.trim_start_matches('+');
        let end = text.find(|one: char| one.is_ascii_alphabetic());
        let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut digits: Vec<u8> = [whole, fraction]
            .concat()
            .bytes()
            .map(|d| d - b'0')
            .collect();
        let (thousands, kibis, exponent) = match suffix {
            "n" => (-3, 0, 0),
            "u" => (-2, 0, 0),
            "m" => (-1, 0, 0),
            "k" => (1, 0, 0),
            "M" => (2, 0, 0),
            "G" => (3, 0, 0),
            "T" => (4, 0, 0),
            "P" => (5, 0, 0),
            "E" => (6, 0, 0),
            "Ki" => (0, 1, 0),
            "Mi" => (0, 2, 0),
            "Gi" => (0, 3, 0),
            "Ti" => (0, 4, 0),
            "Pi" => (0, 5, 0),
            "Ei" => (0, 6, 0),
            _ => (
                0,
                0,
                suffix.get(1..).and_then(|of| of.parse().ok()).unwrap_or(0),
            ),
        };
        for _ in 0..kibis {
            times_1024(&mut digits);
        }
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        let fraction = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        match digits.as_slice() {
            [] => (i64::MIN, digits),
            _ => (count - fraction + 3 * thousands + exponent, digits),
        }
    }
}

/// Of a number in decimal digits.
fn times_1024(digits: &mut Vec<u8>) {
    let mut carry = 0_u32;
    for digit in digits.iter_mut().rev() {
        let product = u32::from(*digit) * 1024 + carry;
        *digit = u8::try_from(product % 10).unwrap_or_default();
        carry = product / 10;
    }
    while carry > 0 {
        digits.insert(0, u8::try_from(carry % 10).unwrap_or_default());
        carry /= 10;
    }
}

shown_as_text!(Quantity);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for text in ["1", "0.5", "50m", "128Mi", "1Ei", "1e3", "1.5Gi", "+1"] {
            assert_eq!(Quantity::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "1KeinEiKummGeGimmeEinEi", "-1", "1 Gi", "Mi", "1mi"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_compare_as_numbers_however_they_are_written() {
        let exceeds = |[more, less]: [&str; 2]| {
            let [more, less] = [more, less].map(|text| Quantity::parse(text).unwrap());
            (more.exceeds(&less), less.exceeds(&more))
        };
        for pair in [
            ["1", "999m"],
            ["1Ki", "1k"],
            ["1024.0001", "1Ki"],
            ["1M", "976Ki"],
            ["1.1Gi", "1Gi"],
            ["1Ei", "1E"],
            ["1E3", "999"],
            ["1e-2", "9m"],
            ["0.1", "0.09"],
            ["1n", "0"],
            ["18014398509481985", "17592186044416Ki"],
        ] {
            assert_eq!(exceeds(pair), (true, false), "{pair:?}");
        }
        for pair in [
            ["1", "1000m"],
            ["0.5", "500m"],
            [".5Gi", "512Mi"],
            ["1Ei", "1152921504606846976"],
            ["+1e3", "1k"],
            ["1.0", "1"],
            ["0", "0.00Gi"],
            ["00100", "100."],
            ["1000000u", "1000000000n"],
        ] {
            assert_eq!(exceeds(pair), (false, false), "{pair:?}");
        }
    }
}
