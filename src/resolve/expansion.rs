//! What Kubernetes makes of `$(X)` in values, words and arguments.

use std::collections::BTreeMap;

/// A text that stands for itself.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// `$(X)` stands for a variable that is known and for itself else, `$$` for `$`.
pub(crate) fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_text_is_expanded_to_itself() {
        let variables = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
        for text in ["$(A)", "$$(A)", "$", "$A", "a"] {
            assert_eq!(expanded(&escaped(text), &variables), text);
        }
    }

    #[test]
    fn references_are_expanded_as_by_the_kubelet() {
        let variables = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
        for (text, expected) in [
            ("$(A)-$(A)", "a-a"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expanded(text, &variables), expected, "{text}");
        }
    }
}
