//! Values as people read them: min, median and max beside a floor, and whether that is what it must be.

use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    PerSecond,
    Megabytes,
    Percent,
    Requests,
}

/// What was measured in several rounds.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    unit: Unit,
    values: Vec<f64>,
}

/// What a figure must reach, by the medians.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    /// Beyond the floor.
    FloorPlus(f64),
    /// Of the floor.
    FloorTimes(f64),
    LeastFloorTimes(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Reached,
    Missed,
    /// Nothing is asked of it.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    figure: &'static str,
    what: String,
    samples: Samples,
    floor: Option<(&'static str, Samples)>,
    must: Option<Limit>,
    guard: Option<Limit>,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::PerSecond => "/s",
            Self::Megabytes => "MB",
            Self::Percent => "%",
            Self::Requests => "requests",
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value < 100.0 => format!("{value:.1}"),
            Self::Milliseconds | Self::PerSecond | Self::Requests => format!("{value:.0}"),
            Self::Megabytes => format!("{value:.1}"),
            Self::Percent => format!("{value:.3}"),
        }
    }
}

impl Samples {
    pub(crate) fn new(unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { unit, values }
    }

    pub(crate) fn times(durations: impl IntoIterator<Item = Duration>) -> Self {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        Self::new(Unit::Milliseconds, durations.into_iter().map(milliseconds))
    }

    fn min(&self) -> f64 {
        self.values.first().copied().unwrap_or(f64::NAN)
    }

    fn max(&self) -> f64 {
        self.values.last().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.values.len() / 2;
        match self.values.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => self.values[middle],
            _ => f64::midpoint(self.values[middle - 1], self.values[middle]),
        }
    }
}

/// `min · median · max unit`.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        let median = unit.shown(self.median());
        if self.values.len() == 1 {
            return write!(f, "{median} {}", unit.name());
        }
        let (min, max) = (unit.shown(self.min()), unit.shown(self.max()));
        write!(f, "{min} · **{median}** · {max} {}", unit.name())
    }
}

impl Limit {
    fn verdict(self, value: f64, floor: Option<f64>) -> Verdict {
        let floor = floor.unwrap_or(f64::NAN);
        let reached = match self {
            Self::AtMost(limit) => value <= limit,
            Self::FloorPlus(limit) => value <= floor + limit,
            Self::FloorTimes(limit) => value <= floor * limit,
            Self::LeastFloorTimes(limit) => value >= floor * limit,
        };
        if reached {
            Verdict::Reached
        } else {
            Verdict::Missed
        }
    }

    fn text(self, unit: Unit) -> String {
        let unit = unit.name();
        match self {
            Self::AtMost(limit) => format!("at most {limit} {unit}"),
            Self::FloorPlus(limit) => format!("at most {limit} {unit} beyond the floor"),
            Self::FloorTimes(limit) => format!("at most {limit} × floor"),
            Self::LeastFloorTimes(limit) => format!("at least {limit} × floor"),
        }
    }
}

impl Row {
    pub(crate) fn new(figure: &'static str, what: impl Into<String>, samples: Samples) -> Self {
        Self {
            figure,
            what: what.into(),
            samples,
            floor: None,
            must: None,
            guard: None,
        }
    }

    /// Measured in the same run, by a bare client.
    pub(crate) fn beside(self, name: &'static str, floor: Samples) -> Self {
        let floor = Some((name, floor));
        Self { floor, ..self }
    }

    pub(crate) fn must(self, limit: Limit) -> Self {
        let must = Some(limit);
        Self { must, ..self }
    }

    /// What even a busy machine and a debug build reach.
    pub(crate) fn guard(self, limit: Limit) -> Self {
        let guard = Some(limit);
        Self { guard, ..self }
    }

    fn against(&self, limit: Option<Limit>) -> Verdict {
        let floor = self.floor.as_ref().map(|(_, floor)| floor.median());
        limit.map_or(Verdict::None, |limit| {
            limit.verdict(self.samples.median(), floor)
        })
    }

    pub(crate) fn guarded(&self) -> Verdict {
        self.against(self.guard)
    }

    /// Median by median of the floor.
    fn ratio(&self) -> Option<f64> {
        let (_, floor) = self.floor.as_ref()?;
        Some(self.samples.median() / floor.median())
    }

    pub(crate) fn as_text(&self) -> String {
        let mut text = format!("{}: {}", self.what, self.samples).replace("**", "");
        if let Some((name, floor)) = &self.floor {
            text += &format!(", {name}: {floor}").replace("**", "");
        }
        if let Some(ratio) = self.ratio() {
            text += &format!(", ratio {ratio:.2}");
        }
        let limits = [("must be", self.must), ("guard", self.guard)];
        for (word, limit) in limits {
            if let Some(limit) = limit {
                text += &format!("; {word} {}", limit.text(self.samples.unit));
            }
        }
        text
    }

    /// As it begins in a document.
    pub(crate) fn key(&self) -> String {
        format!("| `{}` | {} |", self.figure, self.what)
    }

    pub(crate) fn as_markdown(&self) -> String {
        let floor = self.floor.as_ref();
        let floor = floor.map_or_else(String::new, |(name, floor)| format!("{name}: {floor}"));
        let ratio = self
            .ratio()
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let must = self
            .must
            .map_or_else(String::new, |limit| limit.text(self.samples.unit));
        let verdict = match self.against(self.must) {
            Verdict::Reached => "yes",
            Verdict::Missed => "**no**",
            Verdict::None => "",
        };
        format!(
            "{} {} | {floor} | {ratio} | {must} | {verdict} |",
            self.key(),
            self.samples
        )
    }
}

pub(crate) const HEAD: &str = "\
| name | figure | min · median · max | floor | ratio | must be | reached |
| --- | --- | --- | --- | --- | --- | --- |
";

pub(crate) fn markdown(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| row.as_markdown() + "\n");
    HEAD.to_owned() + &lines.collect::<String>()
}
