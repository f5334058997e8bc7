//! The configs that were read last: a sequence sends several events for one, a burst thousands, and to read it
//! takes longer than to match an event with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::job_config::problem::ConfigErrors;
use crate::job_config::reader::{self, ReadConfig};

const KEPT: usize = 4;

/// What was read takes some times as much. A config of ten tasks has about 1 KiB.
const MAX_BYTES: usize = 16 << 10;

#[derive(Default)]
pub(super) struct LastConfigs(Mutex<VecDeque<Kept>>);

struct Kept {
    bytes: Vec<u8>,
    read: Arc<ReadConfig>,
}

impl LastConfigs {
    pub(super) fn get(&self, bytes: &[u8]) -> Option<Arc<ReadConfig>> {
        let kept = self.kept();
        let same = kept.iter().find(|kept| kept.bytes == bytes)?;
        Some(Arc::clone(&same.read))
    }

    /// Reads a config, unless somebody has just done so.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Arc<ReadConfig>, ConfigErrors> {
        if let Some(read) = self.get(bytes) {
            return Ok(read);
        }
        let read = Arc::new(reader::read(bytes)?);
        self.keep(bytes, &read);
        Ok(read)
    }

    fn keep(&self, bytes: &[u8], read: &Arc<ReadConfig>) {
        if bytes.len() > MAX_BYTES {
            return;
        }
        let mut kept = self.kept();
        // Two events may have read the same at once.
        kept.retain(|kept| kept.bytes != bytes);
        kept.push_front(Kept {
            bytes: bytes.to_vec(),
            read: Arc::clone(read),
        });
        kept.truncate(KEPT);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // No panic can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> Vec<u8> {
        format!("apiVersion: v2\nactions: [{{name: {name}, events: [], tasks: []}}]").into_bytes()
    }

    #[test]
    fn the_last_configs_are_kept_and_each_once() {
        let last = LastConfigs::default();
        for name in ["a", "b", "b", "c", "d", "e"] {
            let bytes = config(name);
            let read = Arc::new(reader::read(&bytes).unwrap());
            last.keep(&bytes, &read);
        }
        let kept = |name: &&str| last.get(&config(name)).is_some();
        let kept: Vec<&str> = ["a", "b", "c", "d", "e"].into_iter().filter(kept).collect();
        assert_eq!(kept, ["b", "c", "d", "e"]);
    }

    #[test]
    fn a_large_config_is_not_kept() {
        let last = LastConfigs::default();
        let mut bytes = config("a");
        bytes.extend(b"\n#");
        bytes.resize(MAX_BYTES + 1, b'#');
        last.keep(&bytes, &Arc::new(reader::read(&bytes).unwrap()));
        assert!(last.get(&bytes).is_none());
    }
}
