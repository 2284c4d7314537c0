//! A live tree and its receiver: what gets through, what does not, and how far the window moves.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use relay_merkle::{
    BadSignature, Bin, ChannelId, ConfigError, Context, Digest, Form, HashKind, Judgement, LiveConfig,
    LiveTree, LiveVerifier, Munro, MunroRefusal, NoProof, Node, NtpTime, PROOF_MAX, Refusal, Signature,
    SignedMunro, Signer, StaticTree, TreeConfig, Verifier,
};
use std::sync::OnceLock;

/// Chunks per munro.
const N: u64 = 8;
/// Munros in the window.
const MUNROS: u64 = 4;

fn config() -> LiveConfig {
    let tree = TreeConfig {
        kind: HashKind::Sha1,
        chunks_per_munro: N as u32,
        window: N * MUNROS,
    };
    LiveConfig {
        tree,
        max_age_us: 2_000_000,
        max_ahead_us: 1_000_000,
    }
}

fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| Signer::generate().unwrap())
}

fn form(epoch: u64) -> Form {
    let channel = ChannelId::of_mount("/eclipse.ts");
    Form::Bound(Context { channel, epoch })
}

/// A munro every tenth of a second.
fn at(munro: u64) -> NtpTime {
    NtpTime::from_unix_us(1_786_000_000_000_000 + munro * 100_000)
}

fn chunk(number: u64) -> Vec<u8> {
    format!("chunk {number}").into_bytes()
}

/// An injector with `chunks` chunks behind it, and all of its munros.
fn injector(chunks: u64) -> (LiveTree, Vec<SignedMunro>) {
    let mut tree = LiveTree::new(config().tree).unwrap();
    let mut munros = Vec::new();
    for number in 0..chunks {
        munros.extend(tree.append_chunk(&chunk(number)).unwrap());
    }
    (tree, munros.iter().map(sign).collect())
}

fn sign(root: &Node) -> SignedMunro {
    let (bin, hash) = (root.bin, root.hash);
    let time = at(bin.offset());
    signer().sign_munro(&form(1), Munro { bin, hash, time }).unwrap()
}

/// Any hash at the place of this munro, signed by the injector.
fn made_up(munro: u64) -> SignedMunro {
    let bin = Bin::new(3, munro).unwrap();
    let hash = HashKind::Sha1.leaf(&munro.to_be_bytes());
    sign(&Node { bin, hash })
}

fn receiver() -> LiveVerifier {
    let verifier = Verifier::new(signer().public_key().clone(), form(1));
    LiveVerifier::new(config(), verifier).unwrap()
}

/// A receiver with these munros, each offered when it was made.
fn receiver_of(munros: &[SignedMunro]) -> LiveVerifier {
    let mut receiver = receiver();
    for munro in munros {
        assert_eq!(receiver.offer(munro, munro.munro.time), Ok(Judgement::New));
    }
    receiver
}

fn proof(tree: &LiveTree, chunk: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    tree.proof(chunk, &mut nodes).unwrap();
    nodes
}

#[test]
fn every_chunk_of_the_window_is_proven_in_any_order() {
    let (tree, munros) = injector(N * MUNROS);
    let mut receiver = receiver_of(&munros);
    // 13 and 32 have no common divisor: every chunk once, out of order.
    for number in (0..N * MUNROS).map(|step| step * 13 % (N * MUNROS)) {
        let accepted = receiver
            .accept(number, &chunk(number), &proof(&tree, number))
            .unwrap();
        assert_eq!((accepted.new, accepted.again), (1, 0), "{number}");
        assert!(receiver.holds(number));
    }
    let again = receiver.accept(5, &chunk(5), &[]).unwrap();
    assert_eq!((again.new, again.again, again.hashes), (0, 1, 0));
    let stats = *receiver.stats();
    assert_eq!(
        (
            stats.munros,
            stats.signature_checks,
            stats.chunks,
            stats.chunks_again
        ),
        (4, 4, 32, 1)
    );
    // Every inner node below the munros, and the munros themselves once for each way up, never more than that.
    assert!(stats.hashes <= 32 + 4 * 3, "{}", stats.hashes);
}

#[test]
fn what_the_receiver_knows_is_not_sent_again() {
    let (tree, munros) = injector(N);
    let mut receiver = receiver_of(&munros);
    let mut sent = Vec::new();
    for number in 0..N {
        let mut nodes = Vec::new();
        let held = |bin: Bin| (bin.first()..=bin.last()).any(|chunk| receiver.holds(chunk));
        tree.proof_for(number, held, &mut nodes).unwrap();
        sent.push(nodes.iter().map(|node| node.bin.number()).collect::<Vec<_>>());
        assert_eq!(receiver.accept(number, &chunk(number), &nodes).unwrap().new, 1);
    }
    // RFC 7574 §5.4, with an eighth chunk.
    assert_eq!(
        sent,
        [
            vec![11, 5, 2],
            vec![],
            vec![6],
            vec![],
            vec![13, 10],
            vec![],
            vec![14],
            vec![]
        ]
    );
}

#[test]
fn a_whole_munro_needs_no_proof() {
    let (tree, munros) = injector(N);
    let mut receiver = receiver_of(&munros);
    let leaves: Vec<_> = (0..N).map(|number| HashKind::Sha1.leaf(&chunk(number))).collect();
    let mut nodes = Vec::new();
    tree.batch_proof(0, N - 1, &mut nodes).unwrap();
    assert_eq!(nodes, []);
    let accepted = receiver.accept_batch(0, &leaves, &nodes).unwrap();
    assert_eq!((accepted.new, accepted.hashes), (N, N - 1));
    assert_eq!(receiver.accept_batch(2, &leaves[2..5], &nodes).unwrap().again, 3);
}

#[test]
fn one_bad_chunk_refuses_its_batch_and_nothing_is_learnt() {
    let (_, munros) = injector(N);
    let mut receiver = receiver_of(&munros);
    let mut leaves: Vec<_> = (0..N).map(|number| HashKind::Sha1.leaf(&chunk(number))).collect();
    let good = leaves[3];
    leaves[3] = HashKind::Sha1.leaf(b"bad");
    let bin = munros[0].munro.bin;
    assert_eq!(
        receiver.accept_batch(0, &leaves, &[]),
        Err(Refusal::Wrong { chunk: 0, bin })
    );
    assert!((0..N).all(|number| !receiver.holds(number)));
    assert!((0..7).all(|number| receiver.hash(Bin::from_number(number).unwrap()).is_none()));
    assert_eq!(
        (receiver.stats().chunks_wrong, receiver.stats().hashes),
        (N, N - 1)
    );
    leaves[3] = good;
    assert!(receiver.accept_batch(0, &leaves, &[]).is_ok());
}

#[test]
fn what_was_learnt_convicts() {
    let (tree, munros) = injector(N);
    let mut receiver = receiver_of(&munros);
    receiver.accept(0, &chunk(0), &proof(&tree, 0)).unwrap();
    // The sibling's hash is known: a bad chunk is found without hashing any inner node.
    let before = receiver.stats().hashes;
    let bin = Bin::leaf(1).unwrap();
    assert_eq!(
        receiver.accept(1, b"bad", &[]),
        Err(Refusal::Wrong { chunk: 1, bin })
    );
    assert_eq!(receiver.stats().hashes, before);
}

#[test]
fn holes_and_malformed_proofs() {
    let (tree, munros) = injector(N);
    let mut receiver = receiver_of(&munros);
    let nodes = proof(&tree, 0);
    for missing in 0..nodes.len() {
        let mut holed = nodes.clone();
        let bin = holed.remove(missing).bin;
        assert_eq!(
            receiver.accept(0, &chunk(0), &holed),
            Err(Refusal::Missing { chunk: 0, bin })
        );
    }
    let mut foreign = nodes.clone();
    foreign[0].hash = HashKind::Sha256.leaf(b"of another function");
    let bin = foreign[0].bin;
    assert_eq!(
        receiver.accept(0, &chunk(0), &foreign),
        Err(Refusal::Missing { chunk: 0, bin })
    );
    let flood = vec![nodes[0]; PROOF_MAX + 1];
    let got = flood.len();
    assert_eq!(
        receiver.accept(0, &chunk(0), &flood),
        Err(Refusal::TooMany { chunk: 0, got })
    );
    let count = N;
    let leaf = HashKind::Sha1.leaf(&chunk(1));
    let leaves = vec![leaf; N as usize];
    assert_eq!(
        receiver.accept_batch(1, &leaves, &[]),
        Err(Refusal::Range { chunk: 1, count })
    );
    assert_eq!(
        receiver.accept_batch(1, &[], &[]),
        Err(Refusal::Range { chunk: 1, count: 0 })
    );
    for stranger in [HashKind::Sha1.zero(), HashKind::Sha256.leaf(&chunk(1))] {
        let refused = receiver.accept_batch(0, &[leaf, stranger], &[]);
        assert_eq!(refused, Err(Refusal::NotALeaf { chunk: 1 }));
    }
    let stats = receiver.stats();
    assert_eq!(
        (stats.chunks, stats.chunks_unproven, stats.chunks_malformed),
        (0, 4, 1 + N + 4)
    );
}

#[test]
fn nodes_that_lead_nowhere_are_passed_over() {
    let (tree, munros) = injector(2 * N);
    let mut receiver = receiver_of(&munros);
    let mut nodes = proof(&tree, 9);
    nodes.extend(proof(&tree, 0));
    assert!(receiver.accept(0, &chunk(0), &nodes).is_ok());
}

#[test]
fn chunks_without_a_munro() {
    let (tree, munros) = injector(N * 6);
    let mut receiver = receiver();
    assert_eq!(
        receiver.accept(0, &chunk(0), &[]),
        Err(Refusal::NoMunro { chunk: 0 })
    );
    receiver.offer(&munros[5], at(5)).unwrap();
    assert_eq!(receiver.window(), 16..48);
    // Chunk 72's munro would lie where munro 5 does.
    for number in [16, 39, 48, 72, u64::MAX] {
        assert_eq!(
            receiver.accept(number, &[], &[]),
            Err(Refusal::NoMunro { chunk: number })
        );
    }
    assert_eq!(
        receiver.accept(15, &[], &[]),
        Err(Refusal::TooOld { chunk: 15, first: 16 })
    );
    assert!(receiver.accept(40, &chunk(40), &proof(&tree, 40)).is_ok());
    assert_eq!(
        (receiver.stats().chunks_unproven, receiver.stats().chunks_old),
        (6, 1)
    );
}

#[test]
fn the_window_slides_with_verified_munros() {
    let (tree, munros) = injector(N * 9);
    let mut receiver = receiver_of(&munros[..4]);
    let number = N * 3;
    receiver
        .accept(number, &chunk(number), &proof_of_old(number))
        .unwrap();
    // Munro 5 before 4: a hole, filled later.
    receiver.offer(&munros[5], at(5)).unwrap();
    assert_eq!(receiver.window(), 2 * N..6 * N);
    assert!(receiver.holds(number) && receiver.munro(N).is_none() && receiver.munro(4 * N).is_none());
    assert_eq!(
        receiver.offer(&munros[4], at(40)),
        Ok(Judgement::New),
        "a hole is filled at any age"
    );
    let first = 2 * N;
    let bin = munros[1].munro.bin;
    assert_eq!(
        receiver.offer(&munros[1], at(5)),
        Err(MunroRefusal::TooOld { bin, first })
    );
    receiver.offer(&munros[8], at(8)).unwrap();
    assert_eq!(receiver.window(), 5 * N..9 * N);
    assert!(!receiver.holds(number));
    assert_eq!(receiver.munros().count(), 2);
    assert_eq!(receiver.newest(), Some(&munros[8]));
    assert!(tree.munro(N * 8).is_ok());
}

/// The proof of a chunk that a longer tree has forgotten.
fn proof_of_old(number: u64) -> Vec<Node> {
    proof(&injector(N * 4).0, number)
}

/// A jump is refused whoever signed it, until the receiver itself gives up its place.
#[test]
fn the_window_moves_by_at_most_its_length() {
    let mut receiver = receiver_of(&[made_up(10)]);
    assert_eq!(
        receiver.offer(&made_up(14), at(14)),
        Ok(Judgement::New),
        "just within reach"
    );
    let far = made_up(19);
    let refused = MunroRefusal::TooFar {
        bin: far.munro.bin,
        last: 15 * N - 1,
    };
    assert_eq!(receiver.offer(&far, at(19)), Err(refused));
    assert_eq!(receiver.window(), 11 * N..15 * N);
    assert_eq!(receiver.stats().signature_checks, 2);
    receiver.restart();
    assert_eq!(receiver.offer(&far, at(19)), Ok(Judgement::New));
    assert_eq!(
        (receiver.window(), receiver.stats().restarts),
        (16 * N..20 * N, 1)
    );
}

#[test]
fn munros_that_are_not_worth_a_signature_check() {
    let mut receiver = receiver_of(&[made_up(10)]);
    let now = at(11);
    let with = |change: &dyn Fn(&mut Munro)| {
        let mut signed = made_up(11);
        change(&mut signed.munro);
        signed
    };
    let bin = Bin::new(3, 11).unwrap();
    let (wide, narrow) = (bin.parent().unwrap(), bin.left().unwrap());
    let other = Bin::new(3, 10).unwrap();
    let cases = [
        (with(&|munro| munro.bin = wide), MunroRefusal::Shape { bin: wide }),
        (
            with(&|munro| munro.bin = narrow),
            MunroRefusal::Shape { bin: narrow },
        ),
        (
            with(&|munro| munro.bin = Bin::ALL),
            MunroRefusal::Shape { bin: Bin::ALL },
        ),
        (
            with(&|munro| munro.hash = HashKind::Sha1.zero()),
            MunroRefusal::Shape { bin },
        ),
        (
            with(&|munro| munro.hash = HashKind::Sha256.leaf(b"")),
            MunroRefusal::Shape { bin },
        ),
        (
            with(&|munro| munro.bin = other),
            MunroRefusal::Conflict { bin: other },
        ),
        (
            with(&|munro| munro.time = at(9)),
            MunroRefusal::Disorder { bin, other },
        ),
        (
            with(&|munro| munro.time = NtpTime(munro.time.0 - (21 << 31))),
            MunroRefusal::Stale {
                bin,
                age_us: 10_500_000,
                max_us: 2_000_000,
            },
        ),
        (
            with(&|munro| munro.time = NtpTime(munro.time.0 + (3 << 31))),
            MunroRefusal::Ahead {
                bin,
                ahead_us: 1_500_000,
                max_us: 1_000_000,
            },
        ),
    ];
    for (signed, refusal) in cases {
        assert_eq!(receiver.judge(&signed, now), Err(refusal));
        assert_eq!(receiver.offer(&signed, now), Err(refusal));
    }
    assert_eq!(
        (receiver.stats().munros_refused, receiver.stats().signature_checks),
        (9, 1)
    );
    // The same munro under another signature is not checked again either.
    let mut again = made_up(10);
    again.signature = Signature([7; 64]);
    assert_eq!(receiver.offer(&again, now), Ok(Judgement::Known));
    assert_eq!(receiver.stats().signature_checks, 1);
}

#[test]
fn a_hole_is_not_filled_with_what_was_made_later() {
    let mut receiver = receiver_of(&[made_up(10), made_up(12)]);
    let mut late = made_up(11);
    late.munro.time = at(13);
    let (bin, other) = (late.munro.bin, Bin::new(3, 12).unwrap());
    assert_eq!(
        receiver.offer(&late, at(13)),
        Err(MunroRefusal::Disorder { bin, other })
    );
    assert_eq!(receiver.offer(&made_up(11), at(13)), Ok(Judgement::New));
}

#[test]
fn forged_munros_move_nothing_and_cost_one_check_each() {
    let mut receiver = receiver_of(&[made_up(10)]);
    for round in 0..20_u8 {
        let mut forged = made_up(11);
        forged.signature.0[40] ^= round + 1;
        let bin = forged.munro.bin;
        let refused = receiver.offer(&forged, at(11)).unwrap_err();
        let expected = [BadSignature::Forged { bin }, BadSignature::HighS { bin }];
        assert!(
            expected.map(MunroRefusal::Signature).contains(&refused),
            "{refused:?}"
        );
    }
    assert_eq!(receiver.window(), 7 * N..11 * N);
    assert_eq!(
        (receiver.stats().signature_checks, receiver.stats().munros_forged),
        (21, 20)
    );
    assert_eq!(receiver.offer(&made_up(11), at(11)), Ok(Judgement::New));
}

/// Everything that was ever signed, brought again at another place or time.
#[test]
fn replays_are_refused() {
    // Another epoch of the channel, as after the injector's restart with the same key.
    let old = made_up(10);
    let verifier = Verifier::new(signer().public_key().clone(), form(2));
    let mut receiver = LiveVerifier::new(config(), verifier).unwrap();
    let bin = old.munro.bin;
    let forged = MunroRefusal::Signature(BadSignature::Forged { bin });
    assert_eq!(receiver.offer(&old, at(10)), Err(forged));
    // A minute later, to a newcomer.
    let mut newcomer = self::receiver();
    let stale = MunroRefusal::Stale {
        bin,
        age_us: 60_000_000,
        max_us: 2_000_000,
    };
    assert_eq!(newcomer.offer(&old, at(610)), Err(stale));
    // At a chunk number that has the same last 16 bits.
    let mut moved = old;
    moved.munro.bin = Bin::new(3, 10 + 65536 / N).unwrap();
    assert!(matches!(
        newcomer.offer(&moved, at(10)),
        Err(MunroRefusal::Signature(_))
    ));
}

#[test]
fn a_receiver_proves_on_what_it_accepted() {
    let (tree, munros) = injector(N);
    let mut first = receiver_of(&munros);
    first.accept(6, &chunk(6), &proof(&tree, 6)).unwrap();
    let mut nodes = Vec::new();
    let munro = *first.proof_for(6, |_| false, &mut nodes).unwrap();
    assert_eq!((munro, &nodes), (munros[0], &proof(&tree, 6)));
    let mut second = receiver_of(&[munro]);
    assert!(second.accept(6, &chunk(6), &nodes).is_ok());
    let bin = Bin::leaf(7).unwrap();
    assert_eq!(
        first.proof_for(7, |_| false, &mut nodes),
        Err(NoProof::Unknown { bin })
    );
    assert_eq!(
        first.proof_for(N, |_| false, &mut nodes),
        Err(NoProof::NoMunro { chunk: N })
    );
}

#[test]
fn the_senders_window() {
    let (tree, _) = injector(N * 6 + 3);
    assert_eq!((tree.next_chunk(), tree.window()), (51, 16..48));
    let mut nodes = Vec::new();
    assert_eq!(
        tree.proof(15, &mut nodes),
        Err(NoProof::Forgotten { chunk: 15, first: 16 })
    );
    assert_eq!(tree.proof(48, &mut nodes), Err(NoProof::NoMunro { chunk: 48 }));
    assert_eq!(
        tree.proof(u64::MAX, &mut nodes),
        Err(NoProof::NoMunro { chunk: u64::MAX })
    );
    for (first, last) in [(20, 19), (20, 24), (20, u64::MAX)] {
        assert_eq!(
            tree.batch_proof(first, last, &mut nodes),
            Err(NoProof::Range { first, last })
        );
    }
    assert_eq!(nodes, []);
    assert!(tree.proof(16, &mut nodes).is_ok() && tree.proof(47, &mut nodes).is_ok());
    assert_eq!(
        tree.have()
            .map(|bin| (bin.first(), bin.last()))
            .collect::<Vec<_>>(),
        [(0, 31), (32, 47)]
    );
}

#[test]
fn a_tree_that_begins_in_the_middle_gives_the_same_munros() {
    let (_, munros) = injector(N * 3);
    let mut tree = LiveTree::starting_at(config().tree, N).unwrap();
    let later: Vec<_> = (N..3 * N)
        .filter_map(|number| tree.append_chunk(&chunk(number)).unwrap())
        .collect();
    let hashes: Vec<_> = munros[1..].iter().map(|signed| signed.munro.hash).collect();
    assert_eq!(later.iter().map(|munro| munro.hash).collect::<Vec<_>>(), hashes);
    assert_eq!((tree.peaks(), tree.root()), (None, None));
    let got = N + 1;
    let chunks_per_munro = N as u32;
    let wrong = LiveTree::starting_at(config().tree, got).unwrap_err();
    assert_eq!(
        wrong,
        ConfigError::First {
            chunks_per_munro,
            got
        }
    );
}

/// After the broadcast the tree is a static one (RFC 7574 §6.1.2.1), whatever its length.
#[test]
fn a_closed_broadcast_has_the_static_trees_root() {
    for chunks in 1..80 {
        let (mut tree, _) = injector(chunks);
        assert_eq!(tree.root(), None);
        let last = tree.close();
        assert_eq!(last.is_some(), chunks % N != 0, "{chunks}");
        assert_eq!(tree.close(), None);
        assert!(tree.append_chunk(b"late").is_err());
        let leaves: Vec<_> = (0..chunks)
            .map(|number| HashKind::Sha1.leaf(&chunk(number)))
            .collect();
        let whole = StaticTree::new(HashKind::Sha1, &leaves).unwrap();
        assert_eq!(tree.root(), Some(whole.root()), "{chunks}");
    }
}

#[test]
fn the_last_chunks_of_an_epoch_are_proven_too() {
    let (mut tree, mut munros) = injector(N + 3);
    munros.push(sign(&tree.close().unwrap()));
    let mut receiver = receiver_of(&munros);
    let number = N + 2;
    assert!(
        receiver
            .accept(number, &chunk(number), &proof(&tree, number))
            .is_ok()
    );
    let mut nodes = Vec::new();
    tree.batch_proof(N, N + 2, &mut nodes).unwrap();
    assert_eq!(
        tree.batch_proof(N, N + 3, &mut nodes),
        Err(NoProof::Range {
            first: N,
            last: N + 3
        })
    );
    // What is not there cannot be accepted.
    assert_eq!(
        tree.proof(N + 3, &mut nodes),
        Err(NoProof::NoMunro { chunk: N + 3 })
    );
    let zero = HashKind::Sha1.zero();
    assert!(receiver.accept_batch(N + 3, &[zero], &nodes).is_err());
}

fn leaf_of(number: u64) -> Digest {
    HashKind::Sha1.leaf(&chunk(number))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Chunks of one munro in batches of any cut and order: each is accepted exactly once.
    #[test]
    fn batches_accept_every_chunk_once(cuts in proptest::collection::btree_set(1..N, 0..6), seed: u64) {
        let (tree, munros) = injector(N);
        let mut receiver = receiver_of(&munros);
        let mut edges: Vec<_> = std::iter::once(0).chain(cuts).collect();
        edges.push(N);
        let mut ranges: Vec<_> = edges.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let turn = (seed % ranges.len() as u64) as usize;
        ranges.rotate_left(turn);
        let mut new = 0;
        for (first, end) in ranges {
            let mut nodes = Vec::new();
            tree.batch_proof(first, end - 1, &mut nodes).unwrap();
            prop_assert!(nodes.windows(2).all(|pair| pair[0].bin.layer() >= pair[1].bin.layer()));
            let leaves: Vec<_> = (first..end).map(leaf_of).collect();
            let accepted = receiver.accept_batch(first, &leaves, &nodes).unwrap();
            prop_assert_eq!((accepted.new, accepted.again), (end - first, 0));
            new += accepted.new;
        }
        prop_assert_eq!(new, N);
        prop_assert_eq!(receiver.stats().chunks, N);
    }

    /// One bit of a proof, or of the chunk, turned over: never accepted, nothing learnt.
    #[test]
    fn altered_proofs_never_verify(number in 0..N, which in 0_usize..4, bit in 0_usize..160) {
        let (tree, munros) = injector(N);
        let mut receiver = receiver_of(&munros);
        let mut nodes = proof(&tree, number);
        let mut data = chunk(number);
        match nodes.get_mut(which) {
            Some(node) => {
                let mut bytes = node.hash.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                node.hash = Digest::from_slice(HashKind::Sha1, &bytes).unwrap();
            }
            None => data[bit % 7] ^= 1,
        }
        let refused = receiver.accept(number, &data, &nodes);
        prop_assert!(matches!(refused, Err(Refusal::Wrong { .. })), "{:?}", refused);
        prop_assert!((0..7).all(|number| receiver.hash(Bin::from_number(number).unwrap()).is_none()));
    }

    /// A proof at the place of another chunk: never accepted.
    #[test]
    fn moved_chunks_never_verify(from in 0..N * 2, to in 0..N * 2) {
        prop_assume!(from != to);
        let (tree, munros) = injector(N * 2);
        let mut receiver = receiver_of(&munros);
        let mut nodes = proof(&tree, to);
        nodes.extend(proof(&tree, from));
        prop_assert!(receiver.accept(to, &chunk(from), &nodes).is_err());
    }

    /// Nodes and chunks at random: no panic, nothing accepted, the window stays.
    #[test]
    fn noise_is_refused(
        number: u64,
        small in 0..N * 8,
        data in proptest::collection::vec(any::<u8>(), 0..40),
        noise in proptest::collection::vec((0..u64::MAX, any::<u8>()), 0..140),
        signed in (0..u64::MAX, any::<u64>()),
    ) {
        let (_, munros) = injector(N * 4);
        let mut receiver = receiver_of(&munros);
        let window = receiver.window();
        let nodes: Vec<_> = noise
            .iter()
            .map(|(bin, byte)| Node {
                bin: Bin::from_number(if bin % 2 == 0 { *bin } else { bin % 64 }).unwrap(),
                hash: HashKind::Sha1.leaf(&[*byte]),
            })
            .collect();
        for number in [number, small] {
            prop_assert!(receiver.accept(number, &data, &nodes).is_err());
            let leaves = vec![HashKind::Sha1.leaf(&data); data.len()];
            prop_assert!(receiver.accept_batch(number, &leaves, &nodes).is_err());
        }
        let munro = Munro {
            bin: Bin::from_number(signed.0).unwrap(),
            hash: HashKind::Sha1.leaf(&data),
            time: NtpTime(signed.1),
        };
        let forged = SignedMunro { munro, signature: Signature([9; 64]) };
        prop_assert!(receiver.offer(&forged, at(4)).is_err());
        prop_assert_eq!(receiver.window(), window);
        prop_assert_eq!(receiver.stats().chunks, 0);
    }

    /// Any sequence of signed munros: the window never moves back, nor by more than its length, and memory is bounded.
    #[test]
    fn the_window_moves_forward_and_not_far(places in proptest::collection::vec(0_u64..40, 1..24)) {
        let mut receiver = receiver();
        for place in places {
            let before = receiver.window();
            let offered = receiver.offer(&made_up(place), at(place));
            let after = receiver.window();
            prop_assert!(after.end >= before.end);
            if !before.is_empty() {
                prop_assert!(after.end - before.end <= N * MUNROS);
            }
            prop_assert_eq!(offered.is_ok(), receiver.munro(place * N).is_some());
            prop_assert!(receiver.munros().count() as u64 <= MUNROS);
            let all_inside = receiver.munros().all(|signed| after.contains(&signed.munro.bin.first()));
            prop_assert!(all_inside);
        }
    }

    /// Whatever has been received, what the sender leaves out of a proof is known.
    #[test]
    fn short_proofs_are_enough(order in Just((0..N * 2).collect::<Vec<_>>()).prop_shuffle()) {
        let (tree, munros) = injector(N * 2);
        let mut receiver = receiver_of(&munros);
        let mut sent = 0;
        for number in order {
            let mut nodes = Vec::new();
            let held = |bin: Bin| (bin.first()..=bin.last()).any(|chunk| receiver.holds(chunk));
            tree.proof_for(number, held, &mut nodes).unwrap();
            sent += nodes.len() as u64;
            prop_assert_eq!(receiver.accept(number, &chunk(number), &nodes).unwrap().new, 1);
        }
        // Never more than one hash a chunk in all: every inner node is either sent or computed from both its children.
        prop_assert!(sent <= 2 * N, "{}", sent);
    }
}
