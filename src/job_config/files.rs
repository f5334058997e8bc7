//! Where the files of a task come from, and where they are: paths that cannot leave their directory.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::fields::shown_as_text;

/// Where a task finds its files.
pub(crate) const DIRECTORY: &str = "/keptn";

/// The volume that is there.
pub(crate) const VOLUME: &str = "job-volume";

/// Of a file or directory on Linux.
const MAX_NAME_BYTES: usize = 255;

/// A file or directory in Keptn's configuration service: relative, and below /keptn once it is
/// copied there. Empty means everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct ResourceUri(String);

impl ResourceUri {
    /// `/helm/` is `helm`: Keptn lists resources with a leading slash, people add one at the end.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let relative = text.trim_matches('/');
        if text.is_empty() {
            return Err(
                "empty path, expected a file or directory such as `locust/basic.py`".into(),
            );
        }
        if relative.chars().any(char::is_control) {
            return Err(format!("path {text:?} holds control characters"));
        }
        let leaves = |segment: &str| matches!(segment, "." | ".." | "");
        if !relative.is_empty() && fully_decoded(relative).split(['/', '\\']).any(leaves) {
            return Err(format!(
                "path `{text}` is not allowed, expected one without `.`, `..` and empty segments"
            ));
        }
        Ok(Self(relative.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

shown_as_text!(ResourceUri);

/// Undoes every layer of percent-encoding: servers decode once or twice. All that can be decoded is, as one layer may
/// hide a digit of the next one.
fn fully_decoded(path: &str) -> String {
    let mut text = path.to_owned();
    loop {
        // A byte that is no text is neither a dot nor a slash.
        let decoded = percent_decode_str(&text).decode_utf8_lossy();
        if decoded == text {
            return text;
        }
        text = decoded.into_owned();
    }
}

/// Where in Keptn's repository a resource is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Level {
    #[default]
    Service,
    Stage,
    Project,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Stage => "stage",
            Self::Project => "project",
        }
    }
}

/// An entry of `files`: a file, a directory, or a pattern with `*`, `**`, `?` and `[ab]` for either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenFile", into = "WrittenFile")]
pub(crate) struct FileEntry {
    pub(crate) path: ResourceUri,
    pub(crate) level: Level,
}

/// Files of the service are texts, as they were before there were others.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenFile {
    OfService(String),
    Of { path: String, level: Level },
}

impl TryFrom<WrittenFile> for FileEntry {
    type Error = String;

    fn try_from(written: WrittenFile) -> Result<Self, String> {
        let (path, level) = match written {
            WrittenFile::OfService(path) => (path, Level::Service),
            WrittenFile::Of { path, level } => (path, level),
        };
        let path = ResourceUri::parse(&format!("/{path}"))?;
        Ok(Self { path, level })
    }
}

impl From<FileEntry> for WrittenFile {
    fn from(FileEntry { path, level }: FileEntry) -> Self {
        match level {
            Level::Service => Self::OfService(path.0),
            Level::Stage | Level::Project => Self::Of {
                path: path.0,
                level,
            },
        }
    }
}

impl FileEntry {
    /// As an argument of the init container, see its [`Display`](fmt::Display).
    pub(crate) fn parse_argument(text: &str) -> Result<Self, String> {
        let [stage, project] = [Level::Stage, Level::Project].map(|level| {
            let path = text.strip_prefix(level.name())?.strip_prefix(':')?;
            path.starts_with('/').then_some((path, level))
        });
        let (path, level) = stage.or(project).unwrap_or((text, Level::Service));
        let path = ResourceUri::parse(path)?;
        Ok(Self { path, level })
    }
}

/// `/helm`, `stage:/helm`, `project:/helm`.
impl fmt::Display for FileEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Service => write!(f, "/{}", self.path),
            level => write!(f, "{}:/{}", level.name(), self.path),
        }
    }
}

/// `resultFile`: a file in /keptn that the task writes, a JSON object that becomes part of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ResultFile(String);

impl ResultFile {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let name = text
            .strip_prefix(DIRECTORY)
            .and_then(|name| name.strip_prefix('/'));
        // Missing directories on its way would belong to root.
        let is_file = |name: &str| !name.contains('/') && ResourceUri::parse(name).is_ok();
        if let Some(name) = name.filter(|name| is_file(name)) {
            if name.len() > MAX_NAME_BYTES {
                return Err(format!(
                    "the file's name has {} bytes, at most {MAX_NAME_BYTES} are possible",
                    name.len()
                ));
            }
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no file directly in {DIRECTORY}, expected one such as `/keptn/.result.json`"
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

shown_as_text!(ResultFile);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_uri_stays_below_its_directory() {
        for (text, uri) in [
            ("a/b.txt", "a/b.txt"),
            ("/helm/", "helm"),
            ("/", ""),
            ("100%.txt", "100%.txt"),
            ("a..b/.hidden", "a..b/.hidden"),
        ] {
            assert_eq!(ResourceUri::parse(text).unwrap().as_str(), uri, "{text}");
        }
        for text in [
            "",
            "..",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "/../etc",
            "%2e%2e/x",
            "a/%252E%252e/b",
            "%2%45%2%65/x",
            "..%2fx",
            "a\\..\\b",
            "a\0b",
        ] {
            assert!(ResourceUri::parse(text).is_err(), "{text:?}");
        }
    }
}
