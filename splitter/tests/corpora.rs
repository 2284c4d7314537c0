//! The committed corpora of the fuzz targets, and random bytes, through the functions that fuzzing feeds.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

use proptest::prelude::*;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = folder.read_dir().unwrap();
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn every_committed_input_is_survived() {
    for (target, run) in [
        ("wires", fuzz::wires as fn(&[u8])),
        ("splitter", fuzz::splitter),
        ("peer", fuzz::peer),
    ] {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        inputs.iter().for_each(|input| run(input));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        fuzz::wires(&bytes);
        fuzz::splitter(&bytes);
        fuzz::peer(&bytes);
    }

    /// Each wire in turn, and datagrams of any length up to 2,000 bytes among events that make members.
    #[test]
    fn any_story_is_survived(
        wire in 0u8..8,
        events in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..2000)), 0..20),
    ) {
        let mut story = vec![wire];
        for (what, bytes) in events {
            let eighths = (bytes.len() / 8).min(250);
            story.extend([what, eighths as u8]);
            story.extend(&bytes[..eighths * 8]);
        }
        fuzz::splitter(&story);
        fuzz::peer(&story);
    }
}
