//! A directory as Keptn's repository: `<project>/<stage>/<service>/…`, or just one service's files.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::event::EventScope;
use crate::job_config::reader::CONFIG_URI;

/// Deeper directories are a loop of links.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone)]
pub(crate) struct Repository {
    root: PathBuf,
    /// A file that is every service's job/config.yaml, whatever the directory has.
    config: Option<PathBuf>,
}

/// Whose files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level<'a> {
    Project(&'a str),
    Stage(&'a str, &'a str),
    Service(&'a str, &'a str, &'a str),
}

/// A config with the file that it is.
pub(crate) struct FoundConfig {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) enum Entry {
    File(Vec<u8>),
    Directory,
    Absent,
    /// With the reason.
    Unreadable(String),
}

impl Repository {
    pub(crate) fn new(root: PathBuf, config: Option<PathBuf>) -> Self {
        Self { root, config }
    }

    pub(crate) fn read(&self, level: Level<'_>, name: &str) -> Entry {
        if let (Level::Service(..), CONFIG_URI, Some(config)) = (level, name, &self.config) {
            return read(config);
        }
        match self
            .directory(level)
            .and_then(|directory| below(&directory, &[name]))
        {
            Some(path) => read(&path),
            None => Entry::Absent,
        }
    }

    /// The config of an event, on the level of the service, the stage or the project, as the service looks
    /// for it.
    pub(crate) fn config(&self, scope: &EventScope) -> Result<Option<FoundConfig>, String> {
        for path in self.config_paths(scope) {
            match read(&path) {
                Entry::File(bytes) => return Ok(Some(FoundConfig { path, bytes })),
                Entry::Absent => {}
                Entry::Directory => {
                    return Err(format!(
                        "{} is a directory, expected a file",
                        path.display()
                    ));
                }
                Entry::Unreadable(reason) => return Err(reason),
            }
        }
        Ok(None)
    }

    /// That there is no config, and where one would be.
    pub(crate) fn no_config(&self, scope: &EventScope) -> String {
        if scope.project.is_none() {
            return "the event has no `data.project`, so it has no config".into();
        }
        let mut paths: Vec<String> = self
            .config_paths(scope)
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let parts = [&scope.project, &scope.stage, &scope.service];
        let parts: Vec<&str> = parts
            .into_iter()
            .map_while(|part| part.as_deref())
            .collect();
        if let Some(path) = below(&self.root, &parts) {
            paths.push(path.join(CONFIG_URI).display().to_string());
        }
        paths.dedup();
        format!(
            "no {CONFIG_URI} on service, stage or project level; looked for {}",
            paths.join(", ")
        )
    }

    fn config_paths(&self, scope: &EventScope) -> Vec<PathBuf> {
        let (project, stage, service) = (&scope.project, &scope.stage, &scope.service);
        let project = project.as_deref();
        let staged = project.zip(stage.as_deref());
        let served = staged.zip(service.as_deref());
        let levels = [
            served.map(|((project, stage), service)| Level::Service(project, stage, service)),
            staged.map(|(project, stage)| Level::Stage(project, stage)),
            project.map(Level::Project),
        ];
        if let (Some(config), true) = (&self.config, served.is_some()) {
            return vec![config.clone()];
        }
        let directories = levels.into_iter().flatten();
        directories
            .filter_map(|level| Some(self.directory(level)?.join(CONFIG_URI)))
            .collect()
    }

    /// The names of all files of a level, without a leading slash, in order.
    pub(crate) fn list(&self, level: Level<'_>) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(directory) = self.directory(level) {
            collect(&directory, "", MAX_DEPTH, &mut names);
        }
        names.sort();
        names
    }

    /// A directory that has a job/config.yaml at its top is one service's; else it has projects.
    fn directory(&self, level: Level<'_>) -> Option<PathBuf> {
        let project = match level {
            Level::Project(project) | Level::Stage(project, _) | Level::Service(project, ..) => {
                project
            }
        };
        let is_one_service = self.root.join(CONFIG_URI).is_file()
            || !below(&self.root, &[project]).is_some_and(|project| project.is_dir());
        if is_one_service {
            return matches!(level, Level::Service(..)).then(|| self.root.clone());
        }
        match level {
            Level::Project(project) => below(&self.root, &[project]),
            Level::Stage(project, stage) => below(&self.root, &[project, stage]),
            Level::Service(project, stage, service) => {
                below(&self.root, &[project, stage, service])
            }
        }
    }
}

/// None where a name would lead out of the directory.
fn below(root: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for name in names {
        let name = Path::new(name.trim_start_matches('/'));
        if !name
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return None;
        }
        path.push(name);
    }
    Some(path)
}

fn read(path: &Path) -> Entry {
    let unreadable = |reason: String| Entry::Unreadable(format!("{}: {reason}", path.display()));
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Entry::Directory,
        // Whoever opens a pipe may wait for ever.
        Ok(metadata) if !metadata.is_file() => unreadable("no regular file".into()),
        Ok(_) => match fs::read(path) {
            Ok(content) => Entry::File(content),
            Err(error) => unreadable(error.to_string()),
        },
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Entry::Absent,
            _ => unreadable(error.to_string()),
        },
    }
}

/// As in Keptn, whatever has `.git` in its path is not listed.
fn collect(directory: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.contains(".git") {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        if path.is_file() {
            names.push(name);
        } else if path.is_dir() && depth > 0 {
            collect(&path, &format!("{name}/"), depth - 1, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[&str]) -> (tempfile::TempDir, Repository) {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, *file).unwrap();
        }
        let repository = Repository::new(directory.path().to_owned(), None);
        (directory, repository)
    }

    fn read(repository: &Repository, level: Level<'_>, name: &str) -> String {
        match repository.read(level, name) {
            Entry::File(content) => String::from_utf8(content).unwrap(),
            Entry::Directory => "a directory".into(),
            Entry::Absent => "nothing".into(),
            Entry::Unreadable(reason) => reason,
        }
    }

    const SERVICE: Level<'_> = Level::Service("p", "dev", "svc");

    #[test]
    fn a_repository_has_projects_stages_and_services() {
        let files = [
            "p/x",
            "p/dev/x",
            "p/dev/svc/x",
            "p/dev/svc/a/b",
            "p/dev/svc/.git/c",
        ];
        let (_directory, repository) = repository(&files);
        assert_eq!(read(&repository, Level::Project("p"), "x"), "p/x");
        assert_eq!(read(&repository, Level::Stage("p", "dev"), "x"), "p/dev/x");
        assert_eq!(read(&repository, SERVICE, "x"), "p/dev/svc/x");
        assert_eq!(read(&repository, SERVICE, "a"), "a directory");
        assert_eq!(read(&repository, SERVICE, "none"), "nothing");
        assert_eq!(
            read(&repository, Level::Service("p", "dev", "other"), "x"),
            "nothing"
        );
        assert_eq!(repository.list(SERVICE), ["a/b", "x"]);
    }

    #[test]
    fn a_directory_with_a_config_is_one_service() {
        let (_directory, repository) = repository(&["job/config.yaml", "p/dev/svc/x"]);
        assert_eq!(read(&repository, SERVICE, CONFIG_URI), CONFIG_URI);
        assert_eq!(
            read(&repository, Level::Stage("p", "dev"), CONFIG_URI),
            "nothing"
        );
        assert_eq!(repository.list(SERVICE), [CONFIG_URI, "p/dev/svc/x"]);
    }

    #[test]
    fn nothing_outside_of_the_directory_is_read() {
        let (directory, _) = repository(&["secret", "in/p/dev/svc/x"]);
        let repository = Repository::new(directory.path().join("in"), None);
        for name in [
            "../../../../secret",
            "/../secret",
            "a/../../../../../secret",
        ] {
            assert_eq!(read(&repository, SERVICE, name), "nothing", "{name}");
        }
        assert_eq!(
            read(&repository, Level::Service("..", ".", "."), "secret"),
            "nothing"
        );
    }
}
