//! `join` against good and bad servers.

use crate::world::{Manner, run_json, server};

#[test]
fn newcomers_of_a_good_server_join() {
    let url = format!("http://{}/bench.ts", server(&[Manner::Good]));
    let (code, report, stderr) = run_json(&["join", &url, "--count", "5", "--pause-ms", "0"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        (&report["sent"], &report["got_a_byte"], &report["joined"]),
        (&5.into(), &5.into(), &5.into())
    );
    let ms = |what: &str, which: &str| report[what][which].as_f64().unwrap();
    assert!(ms("first_byte_ms", "min") <= ms("joined_ms", "min") && ms("joined_ms", "max") > 0.0);
}

#[test]
fn newcomers_of_bad_servers_give_up_with_a_reason() {
    let url = format!(
        "http://{}/bench.ts",
        server(&[Manner::Stalls, Manner::Lies, Manner::Refuses])
    );
    let args = [
        "join",
        &url,
        "--count",
        "3",
        "--pause-ms",
        "0",
        "--patience-ms",
        "200",
    ];
    let (code, report, stderr) = run_json(&args);
    assert!(code == 1 && stderr.contains("no newcomer"), "{code} {stderr}");
    assert_eq!((&report["sent"], &report["joined"]), (&3.into(), &0.into()));
    assert!(
        report["first_error"]
            .as_str()
            .unwrap()
            .contains("no join point within 200ms"),
        "{report}"
    );
}
