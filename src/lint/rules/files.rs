//! Paths below /keptn in a text, against what the task has there.

use globset::Glob;

use crate::job_config::Task;
use crate::job_config::files::{DIRECTORY, FileEntry, ResultFile};

/// What is below /keptn when the task has run: its files, its volumes, and what it writes as its result.
pub(super) struct Present {
    paths: Vec<Vec<Segment>>,
}

/// Of a path that a config names.
enum Segment {
    Named(String),
    Pattern(globset::GlobMatcher),
    /// Any number of segments.
    Any,
}

impl Present {
    pub(super) fn of(task: &Task) -> Self {
        let mounts = task.pod.volume_mounts.iter();
        let written = mounts.map(|mount| mount.mount_path.as_str());
        let written = written.chain(task.result_file.iter().map(ResultFile::as_str));
        let below = written.filter_map(|path| {
            let path = path.trim_start_matches('/').strip_prefix("keptn/")?;
            Some(
                segments(path)
                    .map(|one| Segment::Named(one.to_owned()))
                    .collect(),
            )
        });
        Self {
            paths: task.files.iter().map(pattern).chain(below).collect(),
        }
    }

    /// The paths below /keptn in a text that nothing brings; the empty one is /keptn itself.
    pub(super) fn missing(&self, text: &str) -> Vec<String> {
        let mut missing: Vec<String> = mentioned(text)
            .into_iter()
            .filter(|mention| !self.brings(&mention.path) && !self.brings(&mention.with_blanks))
            .map(|mention| mention.path.join("/"))
            .collect();
        missing.dedup();
        missing
    }

    fn brings(&self, path: &[&str]) -> bool {
        self.paths.iter().any(|present| brings(present, path))
    }
}

/// A path behind /keptn, in the two ways to read it.
struct Mention<'a> {
    /// As words of a command line.
    path: Vec<&'a str>,
    /// To the end of the quotes, or of the text.
    with_blanks: Vec<&'a str>,
}

/// Whether an entry is a pattern by its signs, and none by its syntax.
pub(super) fn is_broken_pattern(file: &FileEntry) -> bool {
    let path = file.path.as_str();
    path.contains(['*', '?', '[']) && Glob::new(path).is_err()
}

/// What is there may be the file itself, a directory above it, or something below a directory that is
/// mentioned.
fn brings(present: &[Segment], path: &[&str]) -> bool {
    for (segment, mentioned) in present.iter().zip(path) {
        match segment {
            Segment::Any => return true,
            Segment::Named(name) if name == mentioned => {}
            Segment::Pattern(pattern) if pattern.is_match(mentioned) => {}
            Segment::Named(_) | Segment::Pattern(_) => return false,
        }
    }
    true
}

fn pattern(file: &FileEntry) -> Vec<Segment> {
    let is_broken = is_broken_pattern(file);
    segments(file.path.as_str())
        .map(|segment| {
            let named = || Segment::Named(segment.to_owned());
            if is_broken || !segment.contains(['*', '?', '[']) {
                return named();
            }
            if segment.contains("**") {
                return Segment::Any;
            }
            Glob::new(segment)
                .map_or_else(|_| named(), |glob| Segment::Pattern(glob.compile_matcher()))
        })
        .collect()
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|segment| !segment.is_empty() && *segment != ".")
}

/// Where a text says /keptn, the segments behind it.
fn mentioned(text: &str) -> Vec<Mention<'_>> {
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
        let quote = before.chars().next_back();
        let quote = quote.filter(|last| "\"'`".contains(*last));
        let closed = quote.and_then(|quote| rest.find(quote));
        found.push(Mention {
            path,
            with_blanks: segments(&rest[..closed.unwrap_or(rest.len())]).collect(),
        });
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
        let present = |uris: &[&str]| {
            let files = uris
                .iter()
                .map(|uri| FileEntry::parse_argument(uri).unwrap());
            Present::of(&Task {
                files: files.collect(),
                ..Task::default()
            })
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
            ("/keptn/d/a.csv /keptn/d/b.txt", &["d/*.csv"], &["d/b.txt"]),
            ("/keptn/d", &["d/*.csv"], &[]),
            ("/keptn/d/e/f /keptn/e", &["d/**"], &["e"]),
            ("/keptn/a/x/y", &["**/x"], &[]),
            ("/keptn/x1/y /keptn/x3", &["x[12]"], &["x3"]),
            ("/keptn/x.csv", &["stage:/?.csv"], &[]),
            ("/keptn/d/a.csv", &["d/*["], &["d/a.csv"]),
            ("cat \"/keptn/a b.csv\" x", &["a b.csv"], &[]),
            ("/keptn/a b/c (1).csv", &["a b"], &[]),
            ("cat '/keptn/a b'", &["c"], &["a"]),
            ("sh -c \"/keptn/a b\"", &["a"], &[]),
        ] {
            assert_eq!(present(uris).missing(text), lost, "{text} {uris:?}");
        }
    }

    #[test]
    fn results_and_volumes_are_below_keptn_too() {
        let config = "apiVersion: v2\nactions: [{tasks: [{image: i, resultFile: /keptn/r.json, \
                      volumes: [{name: v, emptyDir: {}}], \
                      volumeMounts: [{name: v, mountPath: /keptn/cache}, {name: v, mountPath: /data}]}]}]";
        let config = crate::job_config::reader::read(config.as_bytes())
            .unwrap()
            .config;
        let present = Present::of(&config.actions[0].tasks[0]);
        for (text, lost) in [
            ("/keptn/r.json", &[][..]),
            ("/keptn", &[]),
            ("/keptn/out/other", &["out/other"]),
            ("/keptn/cache/x", &[]),
            ("/keptn/data", &["data"]),
        ] {
            assert_eq!(present.missing(text), lost, "{text}");
        }
    }
}
