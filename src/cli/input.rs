//! A file that is named on the command line, whole; `-` is standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Of a file that is meant by mistake: neither an event nor a config may be as large.
const MAX_MEBIBYTES: u64 = 16;

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The bytes, or why there are none.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    if !is_stdin(path) && path.is_dir() {
        return Err("a directory, expected a file".into());
    }
    let most = MAX_MEBIBYTES << 20;
    let mut bytes = Vec::new();
    let read = if is_stdin(path) {
        io::stdin().take(most + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) if bytes.len() as u64 > most => Err(format!("larger than {MAX_MEBIBYTES} MiB")),
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err("no such file".into()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let large = directory.path().join("large");
        let file = File::create(&large).unwrap();
        file.set_len(MAX_MEBIBYTES << 20).unwrap();
        assert!(read(&large).is_ok());
        file.set_len((MAX_MEBIBYTES << 20) + 1).unwrap();
        let missing = directory.path().join("missing");
        let report = [directory.path(), &large, &missing].map(|path| read(path).unwrap_err());
        insta::assert_snapshot!(report.join("\n"), @"
        a directory, expected a file
        larger than 16 MiB
        no such file
        ");
    }
}
