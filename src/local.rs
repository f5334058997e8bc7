//! The service at a desk: on a cluster and a Keptn in this process.

pub(crate) mod keptn;
pub(crate) mod kubernetes;
