//! Which files an entry of `files` stands for. Pure.

use globset::{GlobBuilder, GlobMatcher};

use crate::job_config::files::ResourceUri;

/// The files of a directory, or those that a pattern finds.
pub(super) struct Chosen<'a> {
    path: &'a str,
    pattern: Option<GlobMatcher>,
}

impl<'a> Chosen<'a> {
    /// A text that is no valid pattern is a name.
    pub(super) fn by(path: &'a ResourceUri) -> Self {
        let path = path.as_str();
        let is_pattern = path.contains(['*', '?', '[']);
        let mut glob = GlobBuilder::new(path);
        let pattern = is_pattern.then(|| glob.literal_separator(true).build().ok());
        Self {
            path,
            pattern: pattern.flatten().map(|glob| glob.compile_matcher()),
        }
    }

    pub(super) fn is_pattern(&self) -> bool {
        self.pattern.is_some()
    }

    /// Of these names: the file of that very name, or else what it stands for.
    pub(super) fn of(&self, listed: &[String]) -> Vec<String> {
        if let Some(exact) = listed.iter().find(|name| *name == self.path) {
            return vec![exact.clone()];
        }
        let taken = listed.iter().filter(|name| self.takes(name));
        taken.cloned().collect()
    }

    /// A pattern may find a directory, as a name may be one.
    fn takes(&self, name: &str) -> bool {
        if is_below(name, self.path) {
            return true;
        }
        let ends = name.match_indices('/').map(|(end, _)| end);
        let mut ends = ends.chain([name.len()]);
        self.pattern
            .as_ref()
            .is_some_and(|pattern| ends.any(|end| pattern.is_match(&name[..end])))
    }
}

/// By path segments: `helm` has `helm/x`, and neither `helm-abc` nor `helmDEFG`.
pub(super) fn is_below(name: &str, directory: &str) -> bool {
    directory.is_empty()
        || name
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(entry: &str, name: &str) -> bool {
        Chosen::by(&ResourceUri::parse(entry).unwrap()).takes(name)
    }

    #[test]
    fn a_directory_is_matched_by_path_segments() {
        assert!(takes("helm", "helm/values.yaml"));
        assert!(takes("helm/", "helm/a/b"));
        assert!(takes("/", "x"));
        for name in ["helm-abc/x", "helmDEFG", "a/helm/x"] {
            assert!(!takes("helm", name), "{name}");
        }
    }

    #[test]
    fn a_file_of_that_very_name_comes_before_what_the_pattern_finds() {
        let listed = ["odd[12]", "odd1", "star*", "stars"].map(str::to_owned);
        let of = |entry: &str| Chosen::by(&ResourceUri::parse(entry).unwrap()).of(&listed);
        assert_eq!(of("odd[12]"), ["odd[12]"]);
        assert_eq!(of("star*"), ["star*"]);
        assert_eq!(of("odd?"), ["odd1"]);
    }

    #[test]
    fn a_pattern_finds_files_and_directories() {
        for (entry, found, lost) in [
            ("*.jmx", &["a.jmx"][..], &["d/a.jmx", "a.jmx.bak"][..]),
            ("**/*.jmx", &["a.jmx", "d/e/a.jmx"], &["a.txt"]),
            ("load/*", &["load/a", "load/d/e"], &["load", "payload/a"]),
            ("load/?.sh", &["load/a.sh"], &["load/ab.sh"]),
            ("conf[12]", &["conf1/x", "conf2"], &["conf3/x", "conf"]),
            ("odd[name", &["odd[name/x"], &["oddn"]),
            ("star*", &["star*", "stars/x"], &["a/stars"]),
        ] {
            for name in found {
                assert!(takes(entry, name), "{entry} {name}");
            }
            for name in lost {
                assert!(!takes(entry, name), "{entry} {name}");
            }
        }
    }
}
