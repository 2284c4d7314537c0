//! What the tests of a station begin with.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_station::Config;

/// One worker that never waits, with rings of `ring` bytes and everything else as small as a test needs it.
pub(crate) fn config(ring: usize) -> Config {
    Config {
        node_id: "one".to_owned(),
        software: "totality".to_owned(),
        workers: 1,
        max_batch_delay: Duration::ZERO,
        connections_max: 100,
        reserved: 10,
        head_timeout: Duration::from_secs(15),
        channels_max: 4,
        ring_bytes: ring,
        ring_seconds: 1,
        ring_max_bytes: ring,
        chunk_size: 1316,
        listener: relay_listener::Config::default(),
        source: relay_source::Config::default(),
        mounts: BTreeMap::new(),
        node_token: None,
        upstream_timing: relay_link::UpstreamsConfig::default(),
        root_mount: None,
        upstreams: Vec::new(),
        on_demand: false,
        cast: None,
        team: None,
    }
}
