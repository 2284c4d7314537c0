//! Where the programs under test are.

use std::path::PathBuf;

/// The folder of the programs under test: `TOTALITY_BIN_DIR`, else the release or the debug folder of the target
/// directory that this test was built into.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("TOTALITY_BIN_DIR") {
        return PathBuf::from(dir);
    }
    // target/<profile>/deps/<this test>
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().nth(3).unwrap();
    let dirs = [target.join("release"), target.join("debug")];
    dirs.iter()
        .find(|dir| dir.join("relay").exists())
        .unwrap_or(&dirs[0])
        .clone()
}

/// A program under test.
///
/// # Panics
///
/// When it has not been built.
pub fn bin(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(
        path.exists(),
        "expected the program {name} at {}, got nothing: `cargo build --release --bins`, or set TOTALITY_BIN_DIR",
        path.display()
    );
    path
}
