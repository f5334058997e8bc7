//! `lint`: everything that can be said of a config before an event comes.
//!
//! The reader is that of `serve`, so a file is valid here exactly if it is there. On top come warnings
//! for what is legal and surely wrong, and the same file in today's format.

pub(crate) mod event_paths;
pub(crate) mod output;
mod rules;
pub(crate) mod upgrade;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::input::{is_stdin, read};
use crate::cli::{Exit, LintSettings};
use crate::job_config::problem::{Problem, Severity};
use crate::job_config::reader::{self, Examined, Format};
use crate::job_config::yaml::Node;
use output::{Colours, Output};
use upgrade::Upgraded;

/// All problems of a text: the errors, then the warnings, each in the order of the file.
pub(crate) fn problems(bytes: &[u8]) -> Vec<Problem> {
    let mut examined = reader::examine(bytes);
    let mut warnings = std::mem::take(&mut examined.warnings);
    if let (Some(config), Some(tree), Some(format)) =
        (&examined.config, &examined.tree, examined.format)
    {
        warnings.extend(rules::warnings(config, tree, format));
        warnings.sort_by_key(|problem| problem.place.map(|place| place.start));
        warnings.splice(0..0, deprecated(bytes, &examined));
    }
    let mut problems = Vec::new();
    if let Some(errors) = examined.errors {
        let more = errors.more;
        problems.extend(errors.problems);
        if more > 0 {
            problems.push(Problem::error(None, "", format!("{more} more errors")));
        }
    }
    problems.extend(warnings);
    problems
}

/// A format that is read for the sake of old files, with its text in today's.
fn deprecated(bytes: &[u8], examined: &Examined) -> Option<Problem> {
    let format = match examined.format? {
        Format::V2 => return None,
        Format::V1 => "`apiVersion: v1` is an old format",
        Format::Unversioned => "no `apiVersion`, which is an old format",
    };
    let help = match upgrade::upgrade(std::str::from_utf8(bytes).ok()?, examined) {
        Ok(Some(Upgraded { text, .. })) => {
            format!("`lint --fix` writes it as `apiVersion: v2`:\n{text}")
        }
        Ok(None) => return None,
        Err(reason) => format!("write it as `apiVersion: v2` (`lint --fix` cannot: {reason})"),
    };
    let place = examined.tree.as_ref().map(Node::head);
    Some(Problem::warning(place, "", format).help(Some(help)))
}

/// Runs the command.
pub(crate) fn main(settings: &LintSettings) -> anyhow::Result<Exit> {
    let stdout = io::stdout();
    // As the other commands do it.
    let colours = match anstream::AutoStream::choice(&stdout) {
        anstream::ColorChoice::Never => Colours::None,
        _ => Colours::Ansi,
    };
    lint(settings, &mut stdout.lock(), colours).context("cannot write the results")
}

/// Writes the problems of all files.
pub(crate) fn lint(
    settings: &LintSettings,
    to: &mut dyn Write,
    colours: Colours,
) -> io::Result<Exit> {
    let mut output = Output::new(settings.output, colours);
    let mut refused = false;
    for path in &settings.files {
        let name = path.display().to_string();
        let name = if is_stdin(path) { "<stdin>" } else { &name };
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(reason) => {
                let problem = Problem::error(None, "", reason);
                output.problems(name, b"", &[problem], to)?;
                continue;
            }
        };
        let fixed = if settings.fix {
            fix(path, &bytes)
        } else {
            Ok(None)
        };
        match fixed {
            Ok(None) => output.problems(name, &bytes, &problems(&bytes), to)?,
            Ok(Some(Upgraded {
                text,
                removed,
                notes,
            })) => {
                output.note(name, &format!("{name} is `apiVersion: v2` now"), to)?;
                for key in removed {
                    output.note(name, &format!("{key} was ignored, and is removed"), to)?;
                }
                for note in notes {
                    output.note(name, &note, to)?;
                }
                output.problems(name, text.as_bytes(), &problems(text.as_bytes()), to)?;
            }
            Err(reason) => {
                refused = true;
                output.problems(name, &bytes, &problems(&bytes), to)?;
                output.note(name, &format!("{name} is left as it is: {reason}"), to)?;
            }
        }
    }
    output.finish(to)?;
    Ok(if output.count(Severity::Error) > 0 {
        Exit::BadInput
    } else if refused || settings.deny_warnings && output.count(Severity::Warning) > 0 {
        Exit::Errored
    } else {
        Exit::Succeeded
    })
}

/// Writes the file in today's format, if it is valid and in another.
fn fix(path: &Path, bytes: &[u8]) -> Result<Option<Upgraded>, String> {
    let examined = reader::examine(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(None);
    };
    if examined.errors.is_some() {
        return Ok(None);
    }
    let Some(upgraded) = upgrade::upgrade(text, &examined)? else {
        return Ok(None);
    };
    if is_stdin(path) {
        return Err("standard input cannot be written, name a file".into());
    }
    replace(path, &upgraded.text).map_err(|error| format!("cannot be written: {error}"))?;
    Ok(Some(upgraded))
}

/// By way of a file beside it, so that nobody ever sees half a file.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // What a link points to is replaced, not the link.
    let path = fs::canonicalize(path)?;
    let permissions = fs::metadata(&path)?.permissions();
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let beside: PathBuf = path.with_file_name(name);
    let written = File::create_new(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    });
    if written.is_err() {
        // The first error tells more.
        fs::remove_file(&beside).ok();
    }
    written
}
