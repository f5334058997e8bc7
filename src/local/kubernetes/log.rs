//! What a container printed.

use std::collections::VecDeque;

/// As the kubelet's `containerLogMaxSize`: what is older is gone.
const MAX_BYTES: usize = 10 << 20;

#[derive(Default)]
pub(super) struct Log(VecDeque<u8>);

impl Log {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(MAX_BYTES)..];
        let over = (self.0.len() + bytes.len()).saturating_sub(MAX_BYTES);
        self.0.drain(..over);
        self.0.extend(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn tail(&self, bytes: usize) -> Vec<u8> {
        let over = self.0.len().saturating_sub(bytes);
        self.0.iter().skip(over).copied().collect()
    }

    pub(super) fn read(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }
}
