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

/// And every cut of it.
#[test]
fn every_committed_input_is_survived() {
    for (target, run) in [("receive", fuzz::receive as fn(&[u8])), ("texts", fuzz::texts)] {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            (0..=input.len()).for_each(|cut| run(&input[..cut]));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        fuzz::texts(&bytes);
        fuzz::receive(&bytes);
    }

    /// Datagrams of any length up to 2,000 bytes, with a head that is nearly right.
    #[test]
    fn any_story_is_survived(
        events in prop::collection::vec((any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..2000)), 0..20),
    ) {
        let mut story = Vec::new();
        for (what, kind, mut bytes) in events {
            if let Some(head) = bytes.get_mut(..2) {
                head.copy_from_slice(&[0x80 | kind & 0x30, if kind & 1 == 0 { 33 } else { 97 }]);
            }
            story.push(what);
            story.extend((bytes.len() as u16).to_be_bytes());
            story.extend(bytes);
        }
        fuzz::receive(&story);
    }
}
