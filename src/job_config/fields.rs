//! Values of job/config.yaml that are checked where they are read, so that nothing after the reader
//! asks again whether they are valid.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize};

use super::json_path::{InvalidJsonPath, JsonPath};
use super::labels;
use super::quantity::Quantity;

/// Memory for one compiled pattern; refuses `(?:a{1,1000}){1,1000}`.
const MAX_PATTERN_BYTES: usize = 1 << 20;

macro_rules! shown_as_text {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(super) use shown_as_text;

/// `events[].name`: a regular expression over the event's type; an absent or empty one matches all.
#[derive(Debug)]
pub(crate) struct TypePattern(pub(crate) Option<Regex>);

impl TypePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        RegexBuilder::new(text)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
            .map(|pattern| Self(Some(pattern)))
            .map_err(|error| invalid_pattern(text, &error))
    }
}

/// The regex crate draws its errors over several lines; the last one says what is wrong.
fn invalid_pattern(text: &str, error: &regex::Error) -> String {
    let error = error.to_string();
    let reason = error.lines().last().unwrap_or_default();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    format!("invalid regular expression `{text}`: {reason}")
}

/// `jsonpath.property`; an absent or empty one is no filter.
#[derive(Debug, Default)]
pub(crate) struct Property(pub(crate) Option<JsonPath>);

impl Property {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidJsonPath> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        JsonPath::parse(text).map(|path| Self(Some(path)))
    }
}

/// What a task that failed means for its run, from the lesser to the worse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum OnFailure {
    /// The action goes on, and the result is `warning`.
    Warn,
    /// The action ends, and the run has errored.
    #[default]
    Fail,
}

/// `retries`: how often a task that failed is started again; Kubernetes waits 10, 20, 40, … seconds, at
/// most 6 minutes, before each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Retries(u8);

impl Retries {
    /// The pauses before 10 retries take about half an hour.
    pub(crate) const MAX: u8 = 10;

    pub(crate) fn new(number: i128) -> Result<Self, String> {
        u8::try_from(number)
            .ok()
            .filter(|retries| *retries <= Self::MAX)
            .map(Self)
            .ok_or_else(|| format!("expected a whole number from 0 to {}", Self::MAX))
    }
}

impl From<Retries> for u8 {
    fn from(retries: Retries) -> Self {
        retries.0
    }
}

/// A container image, as Kubernetes takes it; never empty.
#[derive(Debug, Clone)]
pub(crate) struct Image(String);

impl Image {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(format!(
                "`{text}` is no container image, expected one such as `alpine:3.20`"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

shown_as_text!(Image);

/// `ttlSecondsAfterFinished`: Kubernetes' field has 32 bits with a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TtlSeconds(u32);

impl From<TtlSeconds> for u32 {
    fn from(seconds: TtlSeconds) -> Self {
        seconds.0
    }
}

impl TtlSeconds {
    pub(crate) fn new(seconds: i128) -> Result<Self, String> {
        let most = i32::MAX.unsigned_abs();
        match u32::try_from(seconds) {
            Ok(seconds) if seconds <= most => Ok(Self(seconds)),
            Ok(_) => Err(format!("expected at most {most} seconds")),
            Err(_) if seconds > 0 => Err(format!("expected at most {most} seconds")),
            Err(_) => Err("expected a whole number of seconds".into()),
        }
    }
}

/// Splits a command line as a shell would; where quotes do not close, at blanks as the original did.
pub(crate) fn words(cmd: &str) -> Vec<String> {
    shell_words::split(cmd).unwrap_or_else(|_| cmd.split_whitespace().map(str::to_owned).collect())
}

/// The name of an environment variable, by Kubernetes' rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct EnvName(String);

impl EnvName {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let starts = text
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit());
        if starts && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no name for an environment variable, allowed are letters, digits, `_`, `-` \
             and `.`, no digit first"
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

shown_as_text!(EnvName);

/// The name of a Kubernetes object such as a Secret: RFC 1123 subdomain, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ObjectName(String);

impl TryFrom<String> for ObjectName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

impl ObjectName {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let label = |part: &str| {
            let inner =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !part.is_empty()
                && part.bytes().all(inner)
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no name of a Kubernetes object, allowed are lower-case letters, digits, `-` \
             and `.`, a letter or digit at both ends"
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

shown_as_text!(ObjectName);

/// `serviceAccount`; the empty name is the default account of the task's namespace, whatever the operator
/// chose for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServiceAccount {
    OfNamespace,
    Named(ObjectName),
}

impl ServiceAccount {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::OfNamespace),
            name => ObjectName::parse(name).map(Self::Named),
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::OfNamespace => None,
            Self::Named(name) => Some(name.as_str()),
        }
    }
}

/// A path of the event, a text, a Secret whose keys all become variables, or one key of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EnvVar {
    Event { path: JsonPath, render: Render },
    Literal(String),
    Secret(ObjectName),
    Key(KeyRef),
}

/// What holds values under keys, in the task's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum KeyHolder {
    Secret(ObjectName),
    ConfigMap(ObjectName),
}

impl fmt::Display for KeyHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "Secret {name}"),
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
        }
    }
}

/// `valueFrom: {secretKeyRef: {name, key, optional}}`, or `configMapKeyRef`, as in a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRef {
    pub(crate) of: KeyHolder,
    pub(crate) key: String,
    /// Without the object or the key there is no variable, and the task runs all the same.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// An entry of `envFrom`, as in a Pod: all keys of an object become variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvFrom {
    pub(crate) of: KeyHolder,
    /// Put before each key; may be empty.
    #[serde(default)]
    pub(crate) prefix: String,
    #[serde(default)]
    pub(crate) optional: bool,
}

/// How a value of the event becomes the text of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Render {
    /// Strings as they are, lists and maps as compact JSON.
    Plain,
    Json,
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resources {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) limits: Amounts,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) requests: Amounts,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Amounts {
    #[serde(default, deserialize_with = "unless_empty")]
    pub(crate) cpu: Option<Quantity>,
    #[serde(default, deserialize_with = "unless_empty")]
    pub(crate) memory: Option<Quantity>,
}

/// `""` is "not set", as in the original.
fn unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Quantity>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => Quantity::parse(&text)
            .map(Some)
            .map_err(serde::de::Error::custom),
    }
}

/// What a task asks for beyond the default security context, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct SecurityContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) privileged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_user: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_group: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_only_root_filesystem: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_privilege_escalation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proc_mount: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp_profile: Option<SeccompProfile>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capabilities {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) add: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) drop: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SeccompProfile {
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) localhost_profile: Option<String>,
}

/// `key:` without a value is an absent key, as in the original's parser.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Keys of Kubernetes annotations, which are as those of labels.
pub(super) fn check_annotation(key: &str) -> Result<(), String> {
    if key.starts_with("keptn.sh/jes-") {
        return Err(format!(
            "`{key}` is not allowed, annotations of this service begin so"
        ));
    }
    if labels::is_key(key) {
        return Ok(());
    }
    Err(format!(
        "`{key}` is no key of a Kubernetes annotation, expected one such as `example.com/name`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_words() {
        for (cmd, expected) in [
            (
                "locust -f /keptn/a.py",
                &["locust", "-f", "/keptn/a.py"][..],
            ),
            (
                "sh -c 'echo \"a b\"; exit 1'",
                &["sh", "-c", "echo \"a b\"; exit 1"],
            ),
            ("  a   b ", &["a", "b"]),
            ("echo it's", &["echo", "it's"]),
            ("", &[]),
        ] {
            assert_eq!(words(cmd), expected, "{cmd}");
        }
    }

    #[test]
    fn names_follow_kubernetes() {
        assert!(EnvName::parse("HOST_1.x-y").is_ok());
        for text in ["", "1A", "A B", "A=B", "Ä"] {
            assert!(EnvName::parse(text).is_err(), "{text}");
        }
        assert!(ObjectName::parse("my-secret.v1").is_ok());
        for text in ["", "My", "a_b", "-a", "a-", "a..b"] {
            assert!(ObjectName::parse(text).is_err(), "{text}");
        }
    }
}
