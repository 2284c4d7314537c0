//! Keys and signatures: known answers, and everything that must be refused.

#![allow(clippy::unwrap_used)]

mod common;

use common::unhex;
use relay_merkle::{ALGORITHM, KeyError, PublicKey, Signature, Signer};

/// RFC 6979, A.2.5: the key, and its signature of "sample" with SHA-256.
const PRIVATE: &str = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
const PUBLIC: &str = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
                      7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const SIGNED: &str = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
                      f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
/// The order of the group.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

fn known() -> (Signer, Signature) {
    let signature = Signature(unhex(SIGNED).try_into().unwrap());
    (Signer::from_bytes(&unhex(PRIVATE)).unwrap(), signature)
}

#[test]
fn known_answers() {
    let (signer, signature) = known();
    let id = [&[ALGORITHM][..], &unhex(PUBLIC)].concat();
    assert_eq!(signer.public_key().swarm_id()[..], id);
    let public = PublicKey::from_swarm_id(&id).unwrap();
    assert!(public.verifies(b"sample", &signature));
    assert!(!public.verifies(b"simple", &signature));
    assert_eq!(&public, signer.public_key());
    assert_eq!(signer.to_bytes().unwrap()[..], unhex(PRIVATE));
}

#[test]
fn a_signature_has_one_twin() {
    let (signer, signature) = known();
    let twin = signature.twin();
    assert!(!signature.is_low_s() && twin.is_low_s());
    assert_eq!(twin.twin(), signature);
    assert!(signer.public_key().verifies(b"sample", &twin));
}

#[test]
fn ours_are_low() {
    let signer = Signer::generate().unwrap();
    for round in 0..64_u8 {
        let signature = signer.sign(&[round]).unwrap();
        assert!(signature.is_low_s());
        assert!(signer.public_key().verifies(&[round], &signature));
    }
}

/// *r* and *s* at and beyond the edges of what is allowed, with a key and a text for which no such signature is known.
#[test]
fn numbers_that_no_signature_has_are_refused() {
    let (signer, good) = known();
    let order = unhex(ORDER);
    let zero = vec![0; 32];
    let mut one = zero.clone();
    one[31] = 1;
    let ones = vec![0xFF; 32];
    let (r, s) = (good.0[..32].to_vec(), good.0[32..].to_vec());
    let odd = [&zero, &one, &order, &ones];
    for number in odd {
        for (r, s) in [(number, &s), (&r, number), (number, number)] {
            let signature = Signature([&r[..], &s[..]].concat().try_into().unwrap());
            assert!(
                !signer.public_key().verifies(b"sample", &signature),
                "{signature:?}"
            );
        }
    }
    let swapped = Signature([&s[..], &r[..]].concat().try_into().unwrap());
    assert!(!signer.public_key().verifies(b"sample", &swapped));
}

#[test]
fn twins_of_nonsense_stay() {
    let beyond = Signature([0xFF; 64]);
    assert_eq!(beyond.twin(), beyond);
    assert!(!beyond.is_low_s());
}

#[test]
fn every_bit_of_a_signature_matters() {
    let (signer, good) = known();
    for bit in 0..512 {
        let mut altered = good;
        altered.0[bit / 8] ^= 1 << (bit % 8);
        assert!(!signer.public_key().verifies(b"sample", &altered), "bit {bit}");
    }
}

#[test]
fn another_key_does_not_verify() {
    let (_, signature) = known();
    let other = Signer::generate().unwrap();
    assert!(!other.public_key().verifies(b"sample", &signature));
}

#[test]
fn public_keys_that_are_none() {
    let good = [&[ALGORITHM][..], &unhex(PUBLIC)].concat();
    let refused = |id: &[u8]| PublicKey::from_swarm_id(id).unwrap_err();
    for length in (0..65).chain([66, 97]) {
        let mut id = good.clone();
        id.resize(length, 0);
        assert_eq!(
            refused(&id),
            KeyError::Length {
                expected: 65,
                got: length
            }
        );
    }
    for got in [0, 2, 3, 4, 5, 8, 14, 255] {
        let mut id = good.clone();
        id[0] = got;
        assert_eq!(refused(&id), KeyError::Algorithm { got });
    }
    // Off the curve; the point at infinity; coordinates beyond the field.
    let mut off = good.clone();
    off[64] ^= 1;
    let infinity = [&[ALGORITHM][..], &[0; 64]].concat();
    let beyond = [&[ALGORITHM][..], &[0xFF; 64]].concat();
    for id in [off, infinity, beyond] {
        assert_eq!(refused(&id), KeyError::Invalid);
    }
}

#[test]
fn private_keys_that_are_none() {
    let refused = |bytes: &[u8]| Signer::from_bytes(bytes).unwrap_err();
    for got in [0, 31, 33, 64] {
        assert_eq!(refused(&vec![1; got]), KeyError::Length { expected: 32, got });
    }
    assert_eq!(refused(&[0; 32]), KeyError::Invalid);
    assert_eq!(refused(&[0xFF; 32]), KeyError::Invalid);
    assert_eq!(refused(&unhex(ORDER)), KeyError::Invalid);
}

#[test]
fn pem_of_openssl() {
    let sec1 = Signer::from_pem(include_str!("keys/sec1.pem")).unwrap();
    let pkcs8 = Signer::from_pem(include_str!("keys/pkcs8.pem")).unwrap();
    assert_eq!(sec1.public_key(), pkcs8.public_key());
    assert_eq!(sec1.public_key().swarm_id()[1..5], unhex("9dca5821"));
}

#[test]
fn pem_of_ours() {
    let signer = Signer::generate().unwrap();
    let pem = signer.to_pem().unwrap();
    assert!(pem.lines().all(|line| line.len() <= 64));
    let again = Signer::from_pem(&pem).unwrap();
    assert_eq!(again.public_key(), signer.public_key());
    let among = format!("# a note\r\n{}\n", pem.replace('\n', "\r\n"));
    assert_eq!(
        Signer::from_pem(&among).unwrap().public_key(),
        signer.public_key()
    );
}

#[test]
fn pem_that_is_none() {
    let refused = |text: &str| Signer::from_pem(text).unwrap_err();
    let good = include_str!("keys/pkcs8.pem");
    assert_eq!(refused(""), KeyError::Pem);
    assert_eq!(refused(&good.replace("PRIVATE", "PUBLIC")), KeyError::Pem);
    assert_eq!(refused(&good[..good.len() - 30]), KeyError::Pem);
    assert_eq!(refused(&good.replace("MIGH", "!!!!")), KeyError::Pem);
    assert_eq!(
        refused(&(" ".repeat(relay_merkle::PEM_MAX) + good)),
        KeyError::Pem
    );
    assert_eq!(refused(&good.replace("MIGH", "MIGG")), KeyError::Invalid);
    // Keys of other curves.
    assert_eq!(refused(include_str!("keys/p384.pem")), KeyError::Invalid);
    assert_eq!(refused(include_str!("keys/secp256k1.pem")), KeyError::Invalid);
}

#[test]
fn a_private_key_does_not_show_itself() {
    let (signer, _) = known();
    let shown = format!("{signer:?} {signer:#?}").to_lowercase();
    assert!(shown.contains("60fed4ba"), "the public half is shown");
    assert!(
        !shown.contains("c9afa9d8") && !shown.contains("201, 175"),
        "{shown}"
    );
}
