//! What is on the volumes of a Pod: nothing, or the keys of a Secret or a `ConfigMap` as files.

use std::fs;
use std::io;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{KeyToPath, Volume};

use super::kubelet::Sandbox;

/// Whether it is a directory of this machine.
pub(super) fn is_made(volume: &Volume) -> bool {
    volume.empty_dir.is_some() || volume.secret.is_some() || volume.config_map.is_some()
}

impl Sandbox<'_> {
    /// # Errors
    ///
    /// What is missing for a volume, in a kubelet's words.
    pub(super) fn fill(&self, volume: &Volume) -> Result<(), String> {
        let (found, items, optional, no_key) = if let Some(of) = &volume.secret {
            let name = of.secret_name.as_deref().unwrap_or_default();
            let optional = of.optional.unwrap_or_default();
            let found = self.secret(name, optional)?;
            let no_key = "references non-existent secret key";
            (found, &of.items, optional, no_key)
        } else if let Some(of) = &volume.config_map {
            let optional = of.optional.unwrap_or_default();
            let found = self.config_map(&of.name, optional)?;
            let no_key = "configmap references non-existent config key";
            (found, &of.items, optional, no_key)
        } else if is_made(volume) || self.cluster.parts.volumes.is_none() {
            return Ok(());
        } else {
            return Err(
                "its kind is not found at a desk, which has `emptyDir`, `secret` and `configMap`"
                    .into(),
            );
        };
        let all = found.keys().map(|key| KeyToPath {
            key: key.clone(),
            path: key.clone(),
            mode: None,
        });
        let items = items.clone().unwrap_or_else(|| all.collect());
        for KeyToPath { key, path, .. } in items {
            match (found.get(&key), self.volumes.get(&volume.name)) {
                (Some(value), Some(directory)) => {
                    write(directory.path(), &path, value).map_err(|error| error.to_string())?;
                }
                (None, _) if !optional => return Err(format!("{no_key}: {key}")),
                (None, _) | (_, None) => {}
            }
        }
        Ok(())
    }
}

/// An API server refuses a path that leaves the volume.
fn write(directory: &Path, path: &str, value: &str) -> io::Result<()> {
    let path = Path::new(path);
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !path.components().all(stays) {
        let reason = format!("`{}` leaves the volume", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let file = directory.join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(file, value)
}
