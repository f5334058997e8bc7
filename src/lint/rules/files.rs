//! Paths below /keptn in a text, against the files that the task has there.

use crate::job_config::fields::FileEntry;

const DIRECTORY: &str = "/keptn";

/// The paths below /keptn that no entry of `files` brings; the empty one is /keptn itself.
pub(super) fn missing(text: &str, files: &[FileEntry]) -> Vec<String> {
    let mut missing: Vec<String> = mentioned(text)
        .into_iter()
        .filter(|path| !files.iter().any(|file| brings(file, path)))
        .map(|path| path.join("/"))
        .collect();
    missing.dedup();
    missing
}

/// An entry may be the file, a directory above it, or something below a directory that is mentioned.
fn brings(file: &FileEntry, path: &[&str]) -> bool {
    let file: Vec<&str> = segments(file.path.as_str()).collect();
    file.iter().zip(path).all(|(one, other)| one == other)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|segment| !segment.is_empty() && *segment != ".")
}

/// Where a text says /keptn, the segments behind it.
fn mentioned(text: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices(DIRECTORY) {
        let (before, rest) = (&text[..start], &text[start + DIRECTORY.len()..]);
        // `/data/keptn` and `https://host/keptn` are something else; what is written to is not read.
        let begins =
            !before.ends_with(|last: char| last.is_alphanumeric() || "/._-~}".contains(last));
        let is_written = before.trim_end().ends_with('>');
        if !begins
            || is_written
            || !(rest.is_empty() || rest.starts_with(ends) || rest.starts_with('/'))
        {
            continue;
        }
        let end = rest.find(ends).unwrap_or(rest.len());
        let mut path: Vec<&str> = segments(&rest[..end]).collect();
        // Of `/keptn/data/*.csv` and `/keptn/$(STAGE).yaml` the last segment is not known.
        let goes_on = rest[end..].starts_with(['$', '*', '?', '[', '{', '\\']);
        if goes_on && !rest[..end].ends_with('/') {
            path.pop();
        }
        if path.contains(&"..") {
            continue;
        }
        found.push(path);
    }
    found
}

fn ends(character: char) -> bool {
    character.is_whitespace() || "\"'`;,:|&<>()[]{}$*?=#\\!".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mentioned_file_is_brought_by_itself_or_its_directory() {
        let files = |uris: &[&str]| -> Vec<FileEntry> {
            uris.iter()
                .map(|uri| FileEntry::parse_argument(uri).unwrap())
                .collect()
        };
        for (text, uris, lost) in [
            ("/keptn/a.sh", &["a.sh"][..], &[][..]),
            ("/keptn/a.sh", &["b.sh"], &["a.sh"]),
            ("/keptn/a.sh", &["a.sh.bak"], &["a.sh"]),
            ("/keptn/d/a.sh", &["d"], &[]),
            ("/keptn/d", &["d/a.sh"], &[]),
            ("/keptn/d/", &["/"], &[]),
            ("/keptn", &["x"], &[]),
            ("/keptn", &[], &[""]),
            ("cat /keptn/a /keptn/b; ls", &["a"], &["b"]),
            ("--file=/keptn/a", &[], &["a"]),
            ("'/keptn/a'", &["a"], &[]),
            ("/keptn/d/*.csv", &["d"], &[]),
            ("/keptn/$(STAGE).yaml", &["x"], &[]),
            ("/keptn/d/$(STAGE)/x", &["e"], &["d"]),
            ("echo > /keptn/out", &["x"], &[]),
            ("https://host/keptn/a", &[], &[]),
            ("/data/keptn/a", &[], &[]),
            ("/keptn-a/b", &[], &[]),
        ] {
            assert_eq!(missing(text, &files(uris)), lost, "{text} {uris:?}");
        }
    }
}
