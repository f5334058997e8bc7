//! Objects as YAML that every reader of it takes for the same: kubectl reads YAML 1.1, where `yes` and `1_000`
//! are no texts, so that whatever might be something else is quoted as JSON, which is YAML.

use serde_json::{Map, Value};

/// Of a mapping.
pub(super) fn document(object: &Map<String, Value>) -> String {
    let mut out = String::new();
    mapping(object, 0, &mut out);
    out
}

fn mapping(object: &Map<String, Value>, depth: usize, out: &mut String) {
    for (key, value) in object {
        out.push_str(&format!("{}{}:", "  ".repeat(depth), scalar(key)));
        entry(value, depth + 1, out);
    }
}

/// What follows a key.
fn entry(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            out.push('\n');
            mapping(object, depth, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                out.push_str(&format!("{}-", "  ".repeat(depth)));
                item_of(item, depth + 1, out);
            }
        }
        Value::String(text) => out.push_str(&format!(" {}\n", scalar(text))),
        other => out.push_str(&format!(" {other}\n")),
    }
}

/// What follows a dash: a mapping begins on its line.
fn item_of(item: &Value, depth: usize, out: &mut String) {
    let Value::Object(object) = item else {
        return entry(item, depth, out);
    };
    let mut text = String::new();
    mapping(object, depth, &mut text);
    match text.trim_start() {
        "" => out.push_str(" {}\n"),
        text => out.push_str(&format!(" {text}")),
    }
}

/// A text as it is where it can be nothing else.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if begins && text.bytes().all(plain) && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let quoted = Value::from(text).to_string();
    // Ends of lines to YAML 1.1, and none to JSON.
    let breaks = ['\u{85}', '\u{2028}', '\u{2029}'];
    breaks.iter().fold(quoted, |quoted, &character| {
        quoted.replace(character, &format!("\\u{:04x}", u32::from(character)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_stays_a_text_for_every_reader() {
        let object = json!({
            "on": "yes", "a/b": ["no", 1, "1_000", "0o7", "~", "", {"x": "n", "y": {}}, [], {}, [["a"]]],
            "text": "two\nlines: # \"x\"", "path": "/keptn/a.sh", "tab": "\t", "n": null, "time": "12:30:45",
            "breaks": "a\u{85}b\u{2028}c",
        });
        assert_eq!(
            serde_yaml::from_str::<Value>(&document(object.as_object().unwrap())).unwrap(),
            object
        );
        insta::assert_snapshot!(document(object.as_object().unwrap()), @r#"
        a/b:
          - "no"
          - 1
          - "1_000"
          - "0o7"
          - "~"
          - ""
          - x: "n"
            "y": {}
          - []
          - {}
          -
            -
              - a
        breaks: "a\u0085b\u2028c"
        "n": null
        "on": "yes"
        path: /keptn/a.sh
        tab: "\t"
        text: "two\nlines: # \"x\""
        time: "12:30:45"
        "#);
    }
}
