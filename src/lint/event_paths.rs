//! What a JSONPath can find in an event of Keptn's, as far as that is known beforehand.

use crate::job_config::json_path::JsonPath;
use crate::job_config::problem::did_you_mean;

/// Attributes of CloudEvents and of Keptn; a sender may add others.
const ATTRIBUTES: [&str; 14] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "shkeptncontext",
    "shkeptnspecversion",
    "triggeredid",
    "gitcommitid",
    "contenttype",
];

/// What Keptn's events have in `data`, all texts but the labels.
const IN_DATA: [&str; 7] = [
    "project", "stage", "service", "labels", "status", "result", "message",
];

/// Why a path finds nothing in any event, and what to write instead.
pub(super) fn finds_nothing(path: &JsonPath) -> Option<(String, Option<String>)> {
    let names = path.leading_names();
    let first = *names.first()?;
    if !ATTRIBUTES.contains(&first) {
        let message = format!(
            "`{path}` finds nothing: `{first}` is no attribute of Keptn's events, unless their sender \
             adds it"
        );
        return Some((
            message,
            instead(path, first).map(|path| format!("did you mean `{path}`?")),
        ));
    }
    // How many names lead to a text.
    let depth = match names.as_slice() {
        ["data", "labels", _, ..] => 3,
        ["data", "labels"] => return None,
        ["data", name, ..] if IN_DATA.contains(name) => 2,
        ["data", ..] => return None,
        _ => 1,
    };
    if path.is_only(depth) {
        return None;
    }
    let text = format!("$.{}", names[..depth].join("."));
    let message = format!("`{path}` finds nothing: `{text}` is a text, with nothing below it");
    let meant = match names.as_slice() {
        ["data", "labels", label @ ..] if path.is_only(names.len()) => {
            format!("$.data.labels[\"{}\"]", label.join("."))
        }
        _ => text,
    };
    Some((message, Some(format!("did you mean `{meant}`?"))))
}

fn instead(path: &JsonPath, first: &str) -> Option<String> {
    if !IN_DATA.contains(&first)
        && let Some(attribute) = did_you_mean(first, &ATTRIBUTES)
    {
        return path.to_string().contains(first).then(|| {
            let path = path.to_string();
            path.replacen(first, attribute, 1)
        });
    }
    let word = first.bytes().all(|byte| byte.is_ascii_lowercase());
    word.then(|| path.below("data"))
}

/// A filter of the first format, whose paths start at `data`, as a path that starts at the event.
pub(super) fn from_data(path: &JsonPath) -> String {
    match path.leading_names().first() {
        Some(first) if !ATTRIBUTES.contains(first) => path.below("data"),
        _ => path.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_nowhere_is_known_beforehand() {
        let report = [
            "$.project",
            "project",
            "$.deployment.uri[0]",
            "$[\"labels\"].x",
            "$.dta.project",
            "$.Foo",
            "$.data.project.name",
            "$.data.project[0]",
            "$.type.x",
            "$.data.labels.a.b",
            "$.data.labels.a",
            "$.data.labels",
            "$.data.result",
            "$.data.test.teststrategy",
            "$.data",
            "$.shkeptncontext",
            "$..x",
            "$[0]",
            "$.*",
        ]
        .map(|path| {
            let path = JsonPath::parse(path).unwrap();
            let found = finds_nothing(&path).map(|(message, help)| {
                let help = help.unwrap_or_else(|| "-".into());
                format!("{message}; {help}")
            });
            found.unwrap_or_else(|| format!("`{path}` may find something"))
        })
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        `$.project` finds nothing: `project` is no attribute of Keptn's events, unless their sender adds it; did you mean `$.data.project`?
        `project` finds nothing: `project` is no attribute of Keptn's events, unless their sender adds it; did you mean `$.data.project`?
        `$.deployment.uri[0]` finds nothing: `deployment` is no attribute of Keptn's events, unless their sender adds it; did you mean `$.data.deployment.uri[0]`?
        `$["labels"].x` finds nothing: `labels` is no attribute of Keptn's events, unless their sender adds it; did you mean `$.data["labels"].x`?
        `$.dta.project` finds nothing: `dta` is no attribute of Keptn's events, unless their sender adds it; did you mean `$.data.project`?
        `$.Foo` finds nothing: `Foo` is no attribute of Keptn's events, unless their sender adds it; -
        `$.data.project.name` finds nothing: `$.data.project` is a text, with nothing below it; did you mean `$.data.project`?
        `$.data.project[0]` finds nothing: `$.data.project` is a text, with nothing below it; did you mean `$.data.project`?
        `$.type.x` finds nothing: `$.type` is a text, with nothing below it; did you mean `$.type`?
        `$.data.labels.a.b` finds nothing: `$.data.labels.a` is a text, with nothing below it; did you mean `$.data.labels["a.b"]`?
        `$.data.labels.a` may find something
        `$.data.labels` may find something
        `$.data.result` may find something
        `$.data.test.teststrategy` may find something
        `$.data` may find something
        `$.shkeptncontext` may find something
        `$..x` may find something
        `$[0]` may find something
        `$.*` may find something
        "#);
    }

    #[test]
    fn filters_of_the_first_format_move_into_data() {
        for (path, moved) in [
            ("$.test.teststrategy", "$.data.test.teststrategy"),
            (" test.x", "$.data.test.x"),
            ("$[\"a-b\"][0]", "$.data[\"a-b\"][0]"),
            ("$.data.x", "$.data.x"),
            ("$.type", "$.type"),
            ("$..x", "$..x"),
        ] {
            assert_eq!(from_data(&JsonPath::parse(path).unwrap()), moved, "{path}");
        }
    }
}
