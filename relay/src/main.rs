//! The relay's program.

use std::sync::Arc;

fn main() {
    let password = std::env::var("RELAY_AUTH_SOURCE_PASSWORD").ok();
    let mut args = std::env::args().skip(1);
    let listen = args.next().unwrap_or("127.0.0.1:8000".into()).parse().expect("address");
    let backend = if args.next().as_deref() == Some("mio") { relay_driver::Backend::Mio } else { relay_driver::Backend::Uring };
    let ups: Vec<String> = args.collect();
    let mut source = relay_source::Config::default();
    source.password = password.and_then(|p| relay_source::Secret::new(&p).ok());
    let config = relay_station::Config {
        node_id: format!("n{}", std::process::id()),
        software: "totality/0.1".into(), workers: 1, max_batch_delay: std::time::Duration::from_millis(100),
        connections_max: 21000, reserved: 100, head_timeout: std::time::Duration::from_secs(15), channels_max: 64,
        ring_bytes: 4 << 20, ring_seconds: 16, chunk_size: 1316, listener: Default::default(), source,
        mounts: Default::default(), node_token: None, upstream_timing: Default::default(), root_mount: None,
        upstreams: ups.iter().map(|u| { let a: std::net::SocketAddr = u.parse().expect("up"); relay_station::UpstreamSpec { host: a.ip().to_string(), port: a.port(), mount: None, plain_url: None } }).collect(),
        on_demand: true,
    };
    let open = relay::run::open(config, listen, backend, Arc::new(|_, _| ())).expect("open");
    while let Ok(event) = open.events.recv() { println!("{event:?}"); }
}
