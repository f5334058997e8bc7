//! Writes files below one directory, and nowhere else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::job_config::files::ResourceUri;

/// The task may run as another user of the Pod's group.
const DIRECTORY_MODE: u32 = 0o775;
const FILE_MODE: u32 = 0o664;

/// Keptn does not keep the executable bit; a script says what it is in its first two bytes.
const SCRIPT_MODE: u32 = 0o775;

pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            bail!("{} is no directory", path.display());
        }
        Ok(Self(path.to_owned()))
    }

    /// Writes the file, with the directories above it; an existing one is overwritten.
    pub(super) fn write(&self, file: &ResourceUri, content: &[u8]) -> anyhow::Result<PathBuf> {
        let mut path = self.0.clone();
        let mut segments = file.as_str().split('/').peekable();
        while let Some(segment) = segments.next() {
            path.push(segment);
            if segments.peek().is_some() {
                directory(&path).with_context(|| {
                    format!(
                        "could not create directory {} for file {file}",
                        path.display()
                    )
                })?;
            }
        }
        let mode = if content.starts_with(b"#!") {
            SCRIPT_MODE
        } else {
            FILE_MODE
        };
        // Never through a link: what is there is replaced, not followed.
        if path
            .symlink_metadata()
            .is_ok_and(|metadata| !metadata.is_dir())
        {
            fs::remove_file(&path)
                .with_context(|| format!("could not replace {}", path.display()))?;
        }
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .with_context(|| format!("could not create file {}", path.display()))?;
        out.write_all(content)
            .and_then(|()| out.set_permissions(fs::Permissions::from_mode(mode)))
            .with_context(|| format!("could not write to file {}", path.display()))?;
        Ok(path)
    }
}

fn directory(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(std::io::Error::other("a file of this name is in the way")),
        Err(_) => {}
    }
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)?;
    // Whatever the umask is.
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_mode(permissions.mode() | DIRECTORY_MODE);
    fs::set_permissions(path, permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_can_be_read_by_another_user_and_scripts_be_run() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let write = |name: &str, content: &[u8]| {
            directory
                .write(&ResourceUri::parse(name).unwrap(), content)
                .unwrap()
        };
        let plain = write("a/b/c.bin", &[0, 255]);
        assert_eq!(fs::read(&plain).unwrap(), [0, 255]);
        assert_eq!(mode(&plain), 0o664);
        assert_eq!(mode(plain.parent().unwrap()), 0o775);
        assert_eq!(mode(&write("run.sh", b"#!/bin/sh\n")), 0o775);
        assert_eq!(fs::read(write("run.sh", b"")).unwrap(), b"");
    }

    #[test]
    fn no_link_leads_out_of_the_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let (inside, outside) = (temporary.path().join("in"), temporary.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        fs::write(outside.join("f"), "before").unwrap();
        std::os::unix::fs::symlink(outside.join("f"), inside.join("g")).unwrap();
        let directory = Directory::open(&inside).unwrap();
        let write = |name: &str| directory.write(&ResourceUri::parse(name).unwrap(), b"after");
        assert!(write("link/f").is_err());
        write("g").unwrap();
        assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "before");
    }
}
