//! What hashing, proving and verifying cost on this machine, one core, no lanes:
//! `cargo run --release -p relay-merkle --example speed`.

use relay_merkle::{
    ChannelId, Context, Form, HashKind, LiveConfig, LiveTree, LiveVerifier, Munro, NtpTime, Signer,
    TreeConfig, Verifier,
};
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

/// Bytes of a chunk.
const CHUNK: usize = 1316;
const CHUNKS: u64 = 1 << 14;
const SIGNATURES: u32 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    for kind in [HashKind::Sha1, HashKind::Sha256] {
        hashes(kind);
        live(kind)?;
    }
    signatures()
}

/// Runs `work`, which does `count` of something, and prints how many a second that is.
fn measure<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = black_box(work());
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("{what:<40} {rate:>12.0} /s");
    result
}

fn hashes(kind: HashKind) {
    let chunk = [7; CHUNK];
    let leaf = kind.leaf(&chunk);
    measure(&format!("{kind:?} leaves of {CHUNK} bytes"), CHUNKS, || {
        for _ in 0..CHUNKS {
            black_box(kind.leaf(black_box(&chunk)));
        }
    });
    measure(&format!("{kind:?} parents"), CHUNKS, || {
        for _ in 0..CHUNKS {
            black_box(kind.parent(black_box(&leaf), &leaf));
        }
    });
}

fn live(kind: HashKind) -> Result<(), Box<dyn Error>> {
    let tree = TreeConfig {
        kind,
        window: CHUNKS,
        ..TreeConfig::default()
    };
    let config = LiveConfig {
        tree,
        ..LiveConfig::default()
    };
    let (signer, time) = (Signer::generate()?, NtpTime(0));
    let channel = ChannelId::of_mount("/eclipse.ts");
    let form = Form::Bound(Context { channel, epoch: 1 });
    let mut sender = LiveTree::new(tree)?;
    let mut receiver = LiveVerifier::new(config, Verifier::new(signer.public_key().clone(), form))?;
    let chunk = [7; CHUNK];
    let leaf = kind.leaf(&chunk);
    let munros = measure(&format!("{kind:?} leaf hashes appended"), CHUNKS, || {
        (0..CHUNKS)
            .filter_map(|_| sender.append(leaf).transpose())
            .collect::<Result<Vec<_>, _>>()
    })?;
    for munro in munros {
        let (bin, hash) = (munro.bin, munro.hash);
        receiver.offer(&signer.sign_munro(&form, Munro { bin, hash, time })?, time)?;
    }
    measure(&format!("{kind:?} chunks proven and accepted"), CHUNKS, || {
        let mut proof = Vec::new();
        for number in 0..CHUNKS {
            proof.clear();
            sender.proof_for(number, |bin| bin.first() < number, &mut proof)?;
            receiver.accept(number, &chunk, &proof)?;
        }
        Ok::<(), Box<dyn Error>>(())
    })
}

fn signatures() -> Result<(), Box<dyn Error>> {
    let signer = Signer::generate()?;
    let signature = measure("P-256 signatures made", SIGNATURES.into(), || {
        (0..SIGNATURES).try_fold(None, |_, _| signer.sign(b"munro").map(Some))
    })?;
    let signature = signature.ok_or("no signature")?;
    measure("P-256 signatures verified", SIGNATURES.into(), || {
        (0..SIGNATURES).all(|_| signer.public_key().verifies(b"munro", &signature))
    });
    Ok(())
}
