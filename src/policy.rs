//! What a task may use, as the operator of this service decides it.

use globset::{Glob, GlobMatcher};

use crate::job_config::Task;

/// Images that tasks may run: globs as the original's, over the whole text of the image.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageAllowList {
    /// Empty allows everything.
    globs: Vec<GlobMatcher>,
}

impl ImageAllowList {
    /// Reads a comma-separated list; empty entries are dropped, blanks around one are cut off.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let globs = list
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                Glob::new(entry)
                    .map(|glob| glob.compile_matcher())
                    .map_err(|error| {
                        format!(
                            "`{entry}` is no pattern for images ({}), expected one such as \
                             `registry.example.com/*`",
                            error.kind()
                        )
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { globs })
    }

    fn allows(&self, image: &str) -> bool {
        self.globs.is_empty() || self.globs.iter().any(|glob| glob.is_match(image))
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) images: ImageAllowList,
    pub(crate) privileged: Privileged,
    /// Where Jobs run.
    pub(crate) namespace: String,
    /// The account of this service, where it runs in a cluster; no task may use it.
    pub(crate) own_service_account: Option<String>,
    /// The Secret with Keptn's token: whoever may push a job/config.yaml must not be able to read it.
    pub(crate) own_secret: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Privileged {
    #[default]
    Refused,
    Allowed,
}

impl Policy {
    /// Tells why a task must not run; the texts are the original's where it had one.
    pub(crate) fn check(&self, task: &Task) -> Result<(), String> {
        if !self.images.allows(&task.image) {
            return Err(format!(
                "Forbidden: Image {} does not match configured image allowlist.\n",
                task.image
            ));
        }
        let privileged = task.security_context.privileged == Some(true);
        if privileged && self.privileged == Privileged::Refused {
            return Err("privileged containers are not allowed".into());
        }
        if let Some(namespace) = &task.namespace
            && namespace.as_str() != self.namespace
        {
            return Err(format!(
                "namespace `{namespace}` is not allowed, Jobs run in `{}`",
                self.namespace
            ));
        }
        if task.service_account.is_some() && task.service_account == self.own_service_account {
            return Err(format!(
                "service account `{}` is not allowed, it is the one of this service",
                task.service_account.as_deref().unwrap_or_default()
            ));
        }
        Ok(())
    }

    pub(crate) fn check_secret(&self, name: &str) -> Result<(), String> {
        if name == self.own_secret {
            return Err(format!(
                "secret \"{name}\" is not allowed, it holds the credentials of this service"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The original's own vectors: list, allowed, refused.
    #[test]
    fn images_are_matched_as_in_the_original() {
        let rows: [(&str, &[&str], &[&str]); 7] = [
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
            ("", &["any", "<some/random/string._a-~#2ß1 dse"], &[]),
            (
                "r1.test/*, r2.test, *",
                &["any", "<some/random/string._a-~#2ß1 dse"],
                &[],
            ),
        ];
        for (list, allowed, refused) in rows {
            let images = ImageAllowList::parse(list).unwrap();
            for image in allowed {
                assert!(images.allows(image), "{list} allows {image}");
            }
            for image in refused {
                assert!(!images.allows(image), "{list} refuses {image}");
            }
        }
        assert!(ImageAllowList::parse("a[").is_err());
    }
}
