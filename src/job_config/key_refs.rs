//! What a task takes from Secrets and `ConfigMap`s as a Pod does: one key (`env[].valueFrom`), or all of
//! them (`envFrom`).

use super::fields::{EnvFrom, EnvName, KeyHolder, KeyRef, ObjectName};
use super::labels::check_data_key;
use super::problem::{Problem, Problems, quoted};
use super::reader::value::{Fields, Keys, Value};

pub(super) const VALUE_FROM: [&str; 2] = ["secretKeyRef", "configMapKeyRef"];
pub(super) const KEY_REF: [&str; 3] = ["name", "key", "optional"];
pub(super) const ENV_FROM: [&str; 3] = ["prefix", "secretRef", "configMapRef"];
pub(super) const OBJECT_REF: [&str; 2] = ["name", "optional"];

const REFS: [&str; 2] = ["secretRef", "configMapRef"];

type Holder = fn(ObjectName) -> KeyHolder;

/// `valueFrom` that is a mapping.
pub(super) fn value_from(value: &Value<'_>, problems: &mut Problems) -> Option<KeyRef> {
    let elsewhere = |key: &str| match key {
        "fieldRef" | "resourceFieldRef" => {
            Some(format!("`{key}` of a Pod is not available to tasks"))
        }
        _ => None,
    };
    let fields = value.fields(&VALUE_FROM, Keys::Strict, elsewhere, problems)?;
    let (holder, value) = one_of(value, &fields, VALUE_FROM, problems)?;
    let fields = value.fields(&KEY_REF, Keys::Strict, |_| None, problems)?;
    let name = name(&fields, problems);
    let key = fields
        .required("key", problems)
        .and_then(|key| key.parsed(check_data_key, problems));
    let optional = fields.boolean("optional", problems);
    Some(KeyRef {
        of: holder(name?),
        key: key?,
        optional: optional.unwrap_or_default(),
    })
}

pub(super) fn env_from(task: &Fields<'_>, problems: &mut Problems) -> Vec<EnvFrom> {
    task.list("envFrom", "a list", problems)
        .iter()
        .filter_map(|value| all_keys(value, problems))
        .collect()
}

fn all_keys(value: &Value<'_>, problems: &mut Problems) -> Option<EnvFrom> {
    let fields = value.fields(&ENV_FROM, Keys::Strict, |_| None, problems)?;
    let prefix = fields
        .get("prefix")
        .and_then(|value| value.parsed(prefix, problems));
    let (holder, value) = one_of(value, &fields, REFS, problems)?;
    let fields = value.fields(&OBJECT_REF, Keys::Strict, |_| None, problems)?;
    let name = name(&fields, problems);
    let optional = fields.boolean("optional", problems);
    Some(EnvFrom {
        of: holder(name?),
        prefix: prefix.unwrap_or_default(),
        optional: optional.unwrap_or_default(),
    })
}

/// Keys of which just one may be there: that of a Secret, then that of a `ConfigMap`.
fn one_of<'n>(
    value: &Value<'n>,
    fields: &Fields<'n>,
    [secret, config_map]: [&'static str; 2],
    problems: &mut Problems,
) -> Option<(Holder, Value<'n>)> {
    let secret_value = fields.get(secret);
    match (secret_value, fields.get(config_map)) {
        (Some(value), None) => Some((KeyHolder::Secret, value)),
        (None, Some(value)) => Some((KeyHolder::ConfigMap, value)),
        (Some(_), Some(_)) => {
            let message = format!("expected either `{secret}` or `{config_map}`, not both");
            let places = [secret, config_map].map(|name| fields.key_place(name));
            let place = places.into_iter().flatten().max();
            problems.add(Problem::error(place, &value.path, message));
            None
        }
        (None, None) => {
            if fields.are_all_known() {
                let names = quoted(&[secret, config_map]);
                problems.add(value.error(format!("expected one of {names}")));
            }
            None
        }
    }
}

fn name(fields: &Fields<'_>, problems: &mut Problems) -> Option<ObjectName> {
    let name = fields.required("name", problems)?;
    name.parsed(ObjectName::parse, problems)
}

/// What a variable's name may begin with; nothing as well.
fn prefix(text: &str) -> Result<String, String> {
    if text.is_empty() || EnvName::parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "no variable's name can begin with `{text}`, allowed are letters, digits, `_`, `-` and `.`, no \
         digit first"
    ))
}
