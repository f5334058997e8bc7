//! W3C trace context: where in a trace an event, a run or a task is.
//!
//! A value that is no trace context is none: the specification has receivers ignore it, and a sender's
//! tracing is no reason to refuse an event.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use serde::{Deserialize, Serialize};

/// What is recorded at all of a trace.
const SAMPLED: u8 = 0x01;

/// The flags that the specification knows: sampled, and that the trace's id is random. Others are to be 0.
const KNOWN_FLAGS: u8 = SAMPLED | 0x02;

/// As many as the specification has everybody pass on.
const MAX_STATE_BYTES: usize = 512;
const MAX_STATE_MEMBERS: usize = 32;

/// These go first where a state is too long.
const LARGE_MEMBER_BYTES: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(NonZeroU128);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(NonZeroU64);

/// A span of a trace, for those that come below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub(crate) struct TraceContext {
    pub(crate) trace: TraceId,
    pub(crate) span: Span,
    flags: u8,
    /// What vendors add: a list that was checked, perhaps empty.
    state: String,
}

/// Whose span it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// Of whoever sent the event: this service records none, and hands on what it got.
    Sender(SpanId),
    /// Of a run. Without a parent the trace begins with it.
    Run { id: SpanId, parent: Option<SpanId> },
}

impl TraceId {
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// From as much of a hash as an id holds.
    pub(crate) fn of_hash(hash: &str) -> Self {
        let digits = hash.get(..32).unwrap_or_default();
        Self(
            hex(digits)
                .and_then(NonZeroU128::new)
                .unwrap_or(NonZeroU128::MIN),
        )
    }

    fn parse(digits: &str) -> Option<Self> {
        (digits.len() == 32).then_some(())?;
        Some(Self(NonZeroU128::new(hex(digits)?)?))
    }
}

impl SpanId {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// From as much of a hash as an id holds.
    pub(crate) fn of_hash(hash: &str) -> Self {
        let digits = hash.get(..16).unwrap_or_default();
        Self::parse(digits).unwrap_or(Self(NonZeroU64::MIN))
    }

    fn parse(digits: &str) -> Option<Self> {
        (digits.len() == 16).then_some(())?;
        let number = u64::try_from(hex(digits)?).ok()?;
        Some(Self(NonZeroU64::new(number)?))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Span {
    pub(crate) fn id(self) -> SpanId {
        match self {
            Self::Sender(id) | Self::Run { id, .. } => id,
        }
    }
}

impl TraceContext {
    /// Of the two headers or attributes of a sender.
    pub(crate) fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parent.trim_matches([' ', '\t']);
        let mut parts = parent.splitn(4, '-');
        let (version, trace, span, rest) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may add parts.
        let flags = match (version, rest.split_once('-')) {
            ("ff", _) | ("00", Some(_)) => return None,
            (_, Some((flags, _))) => flags,
            (_, None) => rest,
        };
        byte(version)?;
        Some(Self {
            trace: TraceId::parse(trace)?,
            span: Span::Sender(SpanId::parse(span)?),
            flags: byte(flags)? & KNOWN_FLAGS,
            state: state.and_then(checked_state).unwrap_or_default(),
        })
    }

    /// A trace that begins with this span of a run.
    pub(crate) fn beginning(trace: TraceId, id: SpanId) -> Self {
        Self {
            trace,
            span: Span::Run { id, parent: None },
            flags: SAMPLED,
            state: String::new(),
        }
    }

    /// The same trace, where a run has this span below the sender's.
    #[must_use]
    pub(crate) fn with_run(self, id: SpanId) -> Self {
        let parent = Some(self.span.id());
        Self {
            span: Span::Run { id, parent },
            ..self
        }
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }

    pub(crate) fn traceparent(&self) -> String {
        self.traceparent_of(self.span.id())
    }

    /// For what is below another span of the trace.
    pub(crate) fn traceparent_of(&self, span: SpanId) -> String {
        format!("00-{}-{span}-{:02x}", self.trace, self.flags)
    }

    /// None where there is nothing in it.
    pub(crate) fn tracestate(&self) -> Option<&str> {
        Some(self.state.as_str()).filter(|state| !state.is_empty())
    }
}

/// In a run's record.
#[derive(Clone, Serialize, Deserialize)]
struct Written {
    traceparent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunWritten>,
}

#[derive(Clone, Serialize, Deserialize)]
struct RunWritten {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("the run's trace context is none of W3C's")]
pub(crate) struct NoTraceContext;

impl From<TraceContext> for Written {
    fn from(context: TraceContext) -> Self {
        Self {
            traceparent: context.traceparent(),
            tracestate: context.tracestate().map(str::to_owned),
            run: match context.span {
                Span::Sender(_) => None,
                Span::Run { parent, .. } => Some(RunWritten {
                    parent: parent.map(|parent| parent.to_string()),
                }),
            },
        }
    }
}

impl TryFrom<Written> for TraceContext {
    type Error = NoTraceContext;

    fn try_from(written: Written) -> Result<Self, NoTraceContext> {
        let state = written.tracestate.as_deref();
        let context = Self::parse(&written.traceparent, state).ok_or(NoTraceContext)?;
        let Some(RunWritten { parent }) = written.run else {
            return Ok(context);
        };
        let parent = match parent {
            Some(digits) => Some(SpanId::parse(&digits).ok_or(NoTraceContext)?),
            None => None,
        };
        let id = context.span.id();
        Ok(Self {
            span: Span::Run { id, parent },
            ..context
        })
    }
}

/// The specification knows no digits in upper case.
fn hex(digits: &str) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.bytes().all(is_digit).then_some(())?;
    u128::from_str_radix(digits, 16).ok()
}

fn byte(digits: &str) -> Option<u8> {
    (digits.len() == 2).then_some(())?;
    u8::try_from(hex(digits)?).ok()
}

/// The list without blanks around its members, cut to what everybody passes on; none if one of them is wrong.
fn checked_state(text: &str) -> Option<String> {
    let members = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']));
    let mut members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    if members.len() > MAX_STATE_MEMBERS {
        return None;
    }
    let mut keys = Vec::new();
    for member in &members {
        let (key, value) = member.split_once('=')?;
        if !is_state_key(key) || !is_state_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    while members.join(",").len() > MAX_STATE_BYTES {
        let large = members
            .iter()
            .rposition(|member| member.len() > LARGE_MEMBER_BYTES);
        members.remove(large.unwrap_or(members.len() - 1));
    }
    Some(members.join(","))
}

fn is_state_key(key: &str) -> bool {
    let rest = |text: &str| {
        let known =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
        text.bytes().all(known)
    };
    let begins = |text: &str| text.starts_with(|first: char| first.is_ascii_lowercase());
    match key.split_once('@') {
        None => key.len() <= 256 && begins(key) && rest(key),
        Some((tenant, system)) => {
            let digit = tenant.starts_with(|first: char| first.is_ascii_digit());
            let tenant_is_one = tenant.len() <= 241 && (digit || begins(tenant)) && rest(tenant);
            tenant_is_one && system.len() <= 14 && begins(system) && rest(system)
        }
    }
}

fn is_state_value(value: &str) -> bool {
    let visible = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    !value.is_empty() && value.len() <= 256 && value.bytes().all(visible) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_w3c_says() {
        for (text, expected) in [
            (PARENT, Some(PARENT)),
            (
                " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\t",
                Some(PARENT),
            ),
            // Flags that nobody knows are cleared, of a later version too.
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
                Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                Some(PARENT),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-else",
                Some(PARENT),
            ),
            ("", None),
            ("00", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
                None,
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
                None,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
                None,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
                None,
            ),
            ("00-é", None),
        ] {
            let read = TraceContext::parse(text, None).map(|context| context.traceparent());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_tracestate_is_handed_on_or_dropped_as_a_whole() {
        let large = format!("large={}", "x".repeat(200));
        let small = |number: usize| format!("k{number}={}", "y".repeat(90));
        let long: Vec<String> = (0..5).map(small).collect();
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        let fitting = [long[0].clone(), large.clone(), long[1..].join(",")].join(",");
        for (text, expected) in [
            (
                "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
                "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            ),
            (" a=1 ,\t, b@c=2,", "a=1,b@c=2"),
            ("1t@s=x y", "1t@s=x y"),
            ("", ""),
            ("a=1,a=2", ""),
            ("A=1", ""),
            ("a", ""),
            ("a=", ""),
            ("a=b=c", ""),
            ("a=\u{7f}", ""),
            (&many.join(","), ""),
            (&fitting, &long.join(",")),
        ] {
            let context = TraceContext::parse(PARENT, Some(text)).unwrap();
            assert_eq!(context.tracestate().unwrap_or_default(), expected, "{text}");
        }
        let longer = (0..8).map(small).collect::<Vec<_>>().join(",");
        let context = TraceContext::parse(PARENT, Some(&longer)).unwrap();
        assert_eq!(context.tracestate().unwrap(), long.join(","));
    }

    #[test]
    fn a_record_gives_back_the_context() {
        let sender = TraceContext::parse(PARENT, Some("a=1")).unwrap();
        let span = SpanId::of_hash("0123456789abcdef0123");
        let trace = TraceId::of_hash("0123456789abcdef0123456789abcdef0123");
        for context in [
            sender.clone(),
            sender.with_run(span),
            TraceContext::beginning(trace, span),
        ] {
            let json = serde_json::to_string(&context).unwrap();
            assert_eq!(
                serde_json::from_str::<TraceContext>(&json).unwrap(),
                context,
                "{json}"
            );
        }
        for wrong in [
            r#"{"traceparent":"x"}"#,
            r#"{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","run":{"parent":"x"}}"#,
        ] {
            assert!(serde_json::from_str::<TraceContext>(wrong).is_err());
        }
    }
}
