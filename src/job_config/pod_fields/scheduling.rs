//! On which nodes a Pod may run: `tolerations` and `affinity`.

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
            // Labels are called as people like.
            Some("matchLabels") | None => {}
            Some(name @ ("matchExpressions" | "matchFields")) => {
                for expression in value.below(name, &entry.value).items() {
                    requirement(&expression, operators, problems);
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
    let Some(operator) = value.get("operator") else {
        return;
    };
    if operator.one_of(operators, problems).is_none() {
        return;
    }
    let Some(operator) = operator.text(problems) else {
        return;
    };
    let values = value.get("values");
    let count = values.as_ref().map_or(0, |values| values.items().len());
    let allowed = match operator.as_str() {
        "In" | "NotIn" if count == 0 => "needs at least one entry in `values`",
        "Exists" | "DoesNotExist" if count > 0 => "takes no `values`",
        "Gt" | "Lt" if count != 1 => "needs just one entry in `values`",
        _ => return,
    };
    let at = values.as_ref().unwrap_or(value);
    problems.add(at.error(format!("`operator: {operator}` {allowed}")));
}

fn is_empty(value: &Value<'_>) -> bool {
    let scalar = value.node.as_scalar();
    scalar.is_some_and(|scalar| scalar.text.is_empty())
}
