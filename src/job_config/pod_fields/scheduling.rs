//! On which nodes a Pod may run: `tolerations` and `affinity`.

use super::labels_of;
use crate::job_config::fields::ObjectName;
use crate::job_config::labels;
use crate::job_config::pod_parts::{Affinity, Toleration};
use crate::job_config::problem::Problems;
use crate::job_config::reader::typed;
use crate::job_config::reader::value::Value;

const TOLERATION_OPERATORS: [(&str, ()); 2] = [("Exists", ()), ("Equal", ())];
const EFFECTS: [(&str, ()); 3] = [
    ("NoSchedule", ()),
    ("PreferNoSchedule", ()),
    ("NoExecute", ()),
];

/// Of `matchExpressions` about nodes and about labels of Pods and namespaces.
const NODE_OPERATORS: [(&str, ()); 6] = [
    ("In", ()),
    ("NotIn", ()),
    ("Exists", ()),
    ("DoesNotExist", ()),
    ("Gt", ()),
    ("Lt", ()),
];
const FIELD_OPERATORS: [(&str, ()); 2] = [("In", ()), ("NotIn", ())];
const LABEL_OPERATORS: [(&str, ()); 4] = [
    ("In", ()),
    ("NotIn", ()),
    ("Exists", ()),
    ("DoesNotExist", ()),
];

pub(super) fn toleration(value: &Value<'_>, problems: &mut Problems) -> Option<Toleration> {
    let toleration: Toleration = typed::read(value, problems)?;
    let written = |name| value.get(name).filter(|value| !is_empty(value));
    let (key, operator, effect) = (written("key"), written("operator"), written("effect"));
    if let Some(operator) = &operator {
        operator.one_of(&TOLERATION_OPERATORS, problems)?;
    }
    if let Some(effect) = &effect {
        effect.one_of(&EFFECTS, problems)?;
    }
    if let Some(key) = &key {
        key.parsed(labels::check_key, problems);
    }
    let exists = toleration.operator.as_deref() == Some("Exists");
    if key.is_none() && !exists {
        problems
            .add(value.error("missing field `key`, which only `operator: Exists` can do without"));
    }
    if let Some(value) = written("value") {
        if exists {
            problems.add(value.error("`operator: Exists` takes any value, expected none"));
        } else {
            value.parsed(labels::check_value, problems);
        }
    }
    if let Some(seconds) = value.get("tolerationSeconds")
        && toleration.effect.as_deref() != Some("NoExecute")
    {
        problems.add(seconds.error("allowed only with `effect: NoExecute`"));
    }
    Some(toleration)
}

pub(super) fn affinity(value: &Value<'_>, problems: &mut Problems) -> Option<Affinity> {
    let affinity = typed::read(value, problems)?;
    if let Some(nodes) = value.get("nodeAffinity") {
        terms(&nodes, &NODE_OPERATORS, problems);
        let required = nodes.get("requiredDuringSchedulingIgnoredDuringExecution");
        if let Some(terms) = required.and_then(|required| required.get("nodeSelectorTerms"))
            && terms.items().is_empty()
        {
            problems.add(terms.error("no term, expected at least one"));
        }
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = value.get(name) {
            terms(&pods, &LABEL_OPERATORS, problems);
        }
    }
    Some(affinity)
}

/// All that is said below an affinity, wherever in it.
fn terms(value: &Value<'_>, operators: &[(&'static str, ())], problems: &mut Problems) {
    for item in value.items() {
        terms(&item, operators, problems);
    }
    let entries = value.node.as_mapping().map_or(&[][..], |of| &of.entries);
    for entry in entries {
        match entry.name() {
            None => {}
            Some(_) if entry.value.is_null() => {}
            Some(name @ "matchLabels") => {
                labels_of(&value.below(name, &entry.value), problems);
            }
            Some(name @ "matchExpressions") => {
                for expression in value.below(name, &entry.value).items() {
                    requirement(&expression, operators, problems);
                }
            }
            Some(name @ "matchFields") => {
                for expression in value.below(name, &entry.value).items() {
                    field_requirement(&expression, problems);
                }
            }
            Some(name @ "namespaces") => {
                for namespace in value.below(name, &entry.value).items() {
                    namespace.parsed(labels::namespace, problems);
                }
            }
            Some(name @ ("matchLabelKeys" | "mismatchLabelKeys")) => {
                for key in value.below(name, &entry.value).items() {
                    key.parsed(labels::check_key, problems);
                }
            }
            Some("weight") => {
                let weight = value.below("weight", &entry.value);
                let number = weight.whole_number("a whole number", problems);
                if number.is_some_and(|number| !(1..=100).contains(&number)) {
                    problems.add(weight.error("expected a whole number from 1 to 100"));
                }
            }
            Some("topologyKey") => {
                let key = value.below("topologyKey", &entry.value);
                key.parsed(labels::check_key, problems);
            }
            Some(name) => terms(&value.below(name, &entry.value), operators, problems),
        }
    }
}

/// An entry of `matchExpressions`.
fn requirement(value: &Value<'_>, operators: &[(&'static str, ())], problems: &mut Problems) {
    if let Some(key) = value.get("key") {
        key.parsed(labels::check_key, problems);
    }
    let Some(operator) = operator(value, operators, problems) else {
        return;
    };
    let values = value.get("values");
    let items = values.as_ref().map(Value::items).unwrap_or_default();
    let wrong = match (operator.as_str(), items.len()) {
        ("In" | "NotIn", 0) => Some("needs at least one entry in `values`"),
        ("Exists" | "DoesNotExist", 1..) => Some("takes no `values`"),
        ("Gt" | "Lt", 0 | 2..) => Some("needs just one entry in `values`"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let at = values.as_ref().unwrap_or(value);
        problems.add(at.error(format!("`operator: {operator}` {wrong}")));
        return;
    }
    for item in items {
        match operator.as_str() {
            "Gt" | "Lt" => item.parsed(compared_number, problems),
            _ => item.parsed(labels::check_value, problems),
        };
    }
}

/// An entry of `matchFields`: a node has just one field, its name.
fn field_requirement(value: &Value<'_>, problems: &mut Problems) {
    if let Some(key) = value.get("key") {
        key.parsed(node_field, problems);
    }
    let Some(operator) = operator(value, &FIELD_OPERATORS, problems) else {
        return;
    };
    let values = value.get("values");
    let items = values.as_ref().map(Value::items).unwrap_or_default();
    if let [name] = items.as_slice() {
        name.parsed(ObjectName::parse, problems);
    } else {
        let at = values.as_ref().unwrap_or(value);
        let message = format!("`operator: {operator}` needs just one entry in `values` here");
        problems.add(at.error(message));
    }
}

fn operator(
    value: &Value<'_>,
    allowed: &[(&'static str, ())],
    problems: &mut Problems,
) -> Option<String> {
    let operator = value.get("operator")?;
    operator.one_of(allowed, problems)?;
    operator.text(problems)
}

fn node_field(name: &str) -> Result<(), String> {
    match name {
        "metadata.name" => Ok(()),
        other => Err(format!(
            "`{other}` is no field that a node is chosen by, expected `metadata.name`"
        )),
    }
}

/// The value of a label that is a number of 64 bits: it begins with no sign.
fn compared_number(text: &str) -> Result<(), String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<i64>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no whole number, expected one such as `8`"
    ))
}

fn is_empty(value: &Value<'_>) -> bool {
    let scalar = value.node.as_scalar();
    scalar.is_some_and(|scalar| scalar.text.is_empty())
}
