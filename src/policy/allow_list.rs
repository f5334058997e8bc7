//! Names that tasks may use: a list of globs, as the original's list of images.

use globset::{Glob, GlobMatcher};

#[derive(Debug, Clone, Default)]
pub(crate) struct AllowList {
    /// Empty allows everything.
    globs: Vec<GlobMatcher>,
}

impl AllowList {
    /// Reads a comma-separated list; empty entries are dropped, blanks around one are cut off.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        // Empty is not set; a list of nothing is not taken for all.
        if !list.is_empty() && entries(list).next().is_none() {
            return Err(
                "a list without an entry, expected patterns separated by commas, or nothing".into(),
            );
        }
        let globs = entries(list)
            .map(|entry| {
                Glob::new(entry)
                    .map(|glob| glob.compile_matcher())
                    .map_err(|error| {
                        format!(
                            "`{entry}` is no pattern ({}), expected names with `*`, `?`, `[ab]` or \
                             `[!a]`, such as `registry.example.com/*`",
                            error.kind()
                        )
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { globs })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    pub(crate) fn allows(&self, name: &str) -> bool {
        self.globs.is_empty() || self.globs.iter().any(|glob| glob.is_match(name))
    }
}

/// Of a comma-separated list; empty ones are dropped, blanks around one are cut off.
pub(super) fn entries(list: &str) -> impl Iterator<Item = &str> {
    let entries = list.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// List, allowed, refused: the original's own vectors, and one that demands a digest.
    #[test]
    fn images_are_matched_as_in_the_original() {
        let rows: [(&str, &[&str], &[&str]); 8] = [
            (
                "r2.test/other/img:*,r2.test/me/img:1.2.3",
                &[
                    "r2.test/me/img:1.2.3",
                    "r2.test/other/img:3",
                    "r2.test/other/img:latest",
                ],
                &[
                    "any-image",
                    "r2.test/me/img",
                    "r2.test/me/img:1.2.5",
                    "r2.test/me/img:latest",
                    "r2.test/other/img",
                ],
            ),
            (
                "r1.test/[AB]/some-image,r1.test/me/img:1.2.3",
                &["r1.test/A/some-image", "r1.test/B/some-image"],
                &[
                    "r1.test/A/some-image:tag",
                    "B/some-image",
                    "some-image:123",
                    "me/img:1.2.3",
                    "r2.test/me/img:1.2.3",
                ],
            ),
            (
                "r1.test/*,*[AB]/some-image*,m.test/load/k6:0.34.*",
                &[
                    "r1.test/A/x",
                    "r1.test/me/img:1.2.3",
                    "B/some-image",
                    "A/some-image:latest",
                    "r2.test/B/some-image",
                    "m.test/load/k6:0.34.1",
                ],
                &[
                    "some-image",
                    "r2.test/A/img:1.2.3",
                    "r2.test/me/some-image",
                    "m.test/load/k6:0.35.0",
                    "m.test/load/k6",
                ],
            ),
            (
                "r2.test/*,a.b.test/*,a.test:1337/*",
                &["a.b.test/user/a", "a.test:1337/user/a"],
                &[
                    "a.b.test:8080/user/a",
                    "a.test:1338/user/a",
                    "r1.test/user/a",
                ],
            ),
            (
                "r2.test/user/image@sha256*,image@sha256:a428de*",
                &["image@sha256:a428de44", "r2.test/user/image@sha256:1"],
                &["user/image@sha256:a42bde", "other/abc/image@sha256:4428de"],
            ),
            (
                "r1.test/*@sha256:*",
                &["r1.test/a/b@sha256:0a", "r1.test/a:1@sha256:0a"],
                &["r1.test/a/b:latest", "r1.test/a"],
            ),
            ("", &["any", "<some/random/string._a-~#2ß1 dse"], &[]),
            (
                "r1.test/*, r2.test, *",
                &["any", "<some/random/string._a-~#2ß1 dse"],
                &[],
            ),
        ];
        for (list, allowed, refused) in rows {
            let images = AllowList::parse(list).unwrap();
            for image in allowed {
                assert!(images.allows(image), "{list} allows {image}");
            }
            for image in refused {
                assert!(!images.allows(image), "{list} refuses {image}");
            }
        }
        assert!(AllowList::parse("a[").is_err());
    }
}
