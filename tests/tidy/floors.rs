//! The floors: which package may use which. Read from `cargo metadata`, where each package states its own floor.

use crate::Finding;
use serde_json::Value;
use std::collections::BTreeMap;

/// The floor of what stands beside the house (bench-harness, tuning, tests): it may use anything, nothing uses it.
const BESIDE: u64 = 5;
/// The floor of the rules: none knows another.
const RULES: u64 = 2;
/// Arrows on one floor that exist on purpose: `relay demo` runs a peer inside.
const ON_PURPOSE: [(&str, &str); 1] = [("relay", "peer-lite")];

/// One package of the house.
pub struct Room {
    pub name: String,
    pub floor: Option<u64>,
    /// Manifest path relative to the repository.
    pub manifest: String,
    /// Names of normal and build dependencies; what only the tests use is not an arrow.
    pub uses: Vec<String>,
}

/// The packages of the house from `cargo metadata --no-deps`.
pub fn rooms(metadata: &Value) -> Vec<Room> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|package| room(package, root))
        .collect()
}

fn room(package: &Value, root: &str) -> Room {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = text(&package["manifest_path"]);
    let arrows = package["dependencies"].as_array().into_iter().flatten();
    Room {
        name: text(&package["name"]),
        floor: package["metadata"]["house"]["floor"].as_u64(),
        manifest: manifest
            .strip_prefix(root)
            .unwrap_or(&manifest)
            .trim_start_matches('/')
            .to_owned(),
        uses: arrows
            .filter(|arrow| arrow["kind"] != "dev")
            .map(|arrow| text(&arrow["name"]))
            .collect(),
    }
}

/// Every arrow that does not point down, and every package without a floor.
pub fn check(rooms: &[Room]) -> Vec<Finding> {
    let floors: BTreeMap<&str, u64> = rooms
        .iter()
        .filter_map(|room| Some((room.name.as_str(), room.floor?)))
        .collect();
    rooms.iter().flat_map(|room| check_room(room, &floors)).collect()
}

fn check_room(room: &Room, floors: &BTreeMap<&str, u64>) -> Vec<Finding> {
    let Some(floor) = room.floor.filter(|&floor| floor <= BESIDE) else {
        let what = format!("`{}` states no floor from 0 to {BESIDE}", room.name);
        return vec![Finding::new(
            &room.manifest,
            1,
            what,
            "add `[package.metadata.house] floor = N`",
        )];
    };
    if floor == BESIDE {
        return Vec::new();
    }
    let bad = room.uses.iter().filter_map(|used| {
        let below = *floors.get(used.as_str())?;
        let on_purpose = ON_PURPOSE.contains(&(room.name.as_str(), used.as_str()));
        (below >= floor && !on_purpose).then(|| arrow(room, floor, used, below))
    });
    bad.collect()
}

fn arrow(room: &Room, floor: u64, used: &str, below: u64) -> Finding {
    let what = format!("`{}` (floor {floor}) uses `{used}` (floor {below})", room.name);
    let remedy = match (floor, below) {
        (RULES, RULES) => "no rule knows another: move what both need down, or join them in relay/station",
        (_, BESIDE) => "what stands beside the house is used by nobody: move the shared part into a room",
        _ => "an arrow goes only to a lower floor: move the shared part down",
    };
    Finding::new(&room.manifest, 1, what, remedy)
}

#[cfg(test)]
fn sample(name: &str, floor: u64, uses: &[&str]) -> Room {
    let uses = uses.iter().map(|&name| name.to_owned()).collect();
    Room {
        name: name.into(),
        floor: Some(floor),
        manifest: format!("{name}/Cargo.toml"),
        uses,
    }
}

#[test]
fn arrows_up_and_sideways_are_found() {
    let house = [
        sample("wire", 0, &["serde"]),
        sample("source", 2, &["wire", "listener"]),
        sample("listener", 2, &["station"]),
        sample("station", 3, &["source", "tuning"]),
        sample("tuning", 5, &["station", "tests"]),
        sample("tests", 5, &[]),
    ];
    let said: Vec<String> = check(&house).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].contains("`source` (floor 2) uses `listener` (floor 2)") && said[0].contains("no rule"));
    assert!(said[1].contains("`listener` (floor 2) uses `station` (floor 3)"));
    assert!(said[2].contains("beside the house"));
}

#[test]
fn the_exception_is_one_way() {
    let house = [sample("relay", 4, &["peer-lite"]), sample("peer-lite", 4, &[])];
    assert!(check(&house).is_empty());
    let house = [sample("relay", 4, &[]), sample("peer-lite", 4, &["relay"])];
    assert_eq!(check(&house).len(), 1);
}

#[test]
fn a_package_without_a_floor_is_found_and_dev_arrows_are_not() {
    let metadata = serde_json::json!({"workspace_root": "/r", "packages": [
        {"name": "a", "manifest_path": "/r/a/Cargo.toml", "metadata": null, "dependencies": []},
        {"name": "b", "manifest_path": "/r/b/Cargo.toml", "metadata": {"house": {"floor": 0}},
         "dependencies": [{"name": "c", "kind": "dev"}, {"name": "c", "kind": null}]},
        {"name": "c", "manifest_path": "/r/c/Cargo.toml", "metadata": {"house": {"floor": 1}},
         "dependencies": [{"name": "c", "kind": "dev"}]},
    ]});
    let found = check(&rooms(&metadata));
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].file, "a/Cargo.toml");
    assert_eq!(found[1].file, "b/Cargo.toml");
}
