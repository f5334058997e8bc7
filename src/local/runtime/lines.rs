//! Output of a child process, handed on line by line as it comes.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::local::kubernetes::Output;

/// A longer line is handed on in parts.
const MAX_LINE: usize = 16 << 10;

/// Until the other end is closed. Whole lines, so that those of two tasks do not mix.
/// What has no end of a line yet is in `pending`.
pub(super) async fn copy(mut from: impl AsyncRead + Unpin, pending: &mut Vec<u8>, output: &Output) {
    let mut chunk = vec![0; 16 << 10];
    // An error is an end, too: there is nothing more to read.
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        pending.extend_from_slice(&chunk[..read]);
        let whole = match pending.iter().rposition(|&byte| byte == b'\n') {
            Some(end) => end + 1,
            None if pending.len() >= MAX_LINE => pending.len(),
            None => continue,
        };
        output.write(&pending[..whole]);
        pending.drain(..whole);
    }
}
