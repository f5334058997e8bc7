//! Kubernetes' rules for the names of labels, annotations, volumes and keys.

use super::fields::ObjectName;

/// Of a label or an annotation: an optional DNS prefix, then at most 63 characters.
pub(super) fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').unwrap_or(("x", key));
    !name.is_empty() && is_short(name) && ObjectName::parse(prefix).is_ok()
}

pub(crate) fn check_key(key: &str) -> Result<(), String> {
    if is_key(key) {
        return Ok(());
    }
    Err(format!(
        "`{key}` is no key of a Kubernetes label, expected one such as `kubernetes.io/arch`"
    ))
}

pub(crate) fn check_value(value: &str) -> Result<(), String> {
    if is_short(value) {
        return Ok(());
    }
    Err(format!(
        "`{value}` is no value of a Kubernetes label, allowed are at most 63 letters, digits, `-`, `_` \
         and `.`, a letter or digit at both ends"
    ))
}

/// May be empty.
fn is_short(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && text.bytes().all(inner)
        && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

/// RFC 1123 label, which the name of a volume is.
pub(crate) fn check_dns_label(name: &str) -> Result<(), String> {
    if name.len() <= 63 && !name.contains('.') && ObjectName::parse(name).is_ok() {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no name of a volume, allowed are at most 63 lower-case letters, digits and `-`, a \
         letter or digit at both ends"
    ))
}

/// Unlike other objects a namespace has no dots in its name.
pub(super) fn namespace(name: &str) -> Result<ObjectName, String> {
    check_dns_label(name)
        .and_then(|()| ObjectName::parse(name))
        .map_err(|_| {
            format!(
                "`{name}` is no name of a namespace, allowed are at most 63 lower-case letters, digits and \
                 `-`, a letter or digit at both ends"
            )
        })
}

/// What a Secret or a `ConfigMap` holds a value under.
pub(super) fn check_data_key(key: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let named = (1..=253).contains(&key.len()) && key.bytes().all(allowed);
    if named && key != "." && !key.starts_with("..") {
        return Ok(key.to_owned());
    }
    Err(format!(
        "`{key}` is no key of a Secret or ConfigMap, allowed are letters, digits, `-`, `_` and `.`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_takes() {
        let long = "x".repeat(64);
        let key = |key: &str| check_key(key).is_ok();
        let value = |value: &str| check_value(value).is_ok();
        let label = |label: &str| check_dns_label(label).is_ok();
        let data = |key: &str| check_data_key(key).is_ok();
        assert!(["a", "A_b.c", "kubernetes.io/arch"].into_iter().all(key));
        assert!(
            !["", "a/", "/a", "-a", "a b", "A/b", "a/b/c", &long]
                .into_iter()
                .any(key)
        );
        assert!(["", "amd64", "A_b.c"].into_iter().all(value));
        assert!(!["a b", "-a", "a/b", &long].into_iter().any(value));
        assert!(["a", "a-1", "1"].into_iter().all(label));
        assert!(!["", "A", "a.b", "-a", &long].into_iter().any(label));
        assert!(["a", ".a", "A_b.c-"].into_iter().all(data));
        assert!(
            !["", ".", "..a", "a b", "a/b", &"x".repeat(254)]
                .into_iter()
                .any(data)
        );
    }
}
