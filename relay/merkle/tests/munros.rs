//! Munros: what is signed, in which form, and which of them are not believed.

#![allow(clippy::unwrap_used)]

mod common;

use common::unhex;
use proptest::prelude::*;
use relay_merkle::{
    Addressing, BadSignature, Bin, ChannelId, Context, DecodeError, Digest, Form, HashKind, MUNRO_MAX, Munro,
    NtpTime, SignError, Signature, SignedMunro, Signer, Verifier, bound_text, rfc_text,
};

const TIME: NtpTime = NtpTime(0x1122_3344_5566_7788);

fn munro(kind: HashKind, bin: Bin) -> Munro {
    let hash = kind.leaf(b"root");
    Munro {
        bin,
        hash,
        time: TIME,
    }
}

fn bound(mount: &str, epoch: u64) -> Form {
    let channel = ChannelId::of_mount(mount);
    Form::Bound(Context { channel, epoch })
}

fn every_form() -> Vec<Form> {
    let methods = [
        Addressing::Bin32,
        Addressing::Range32,
        Addressing::Bin64,
        Addressing::Range64,
    ];
    let mut forms: Vec<_> = methods.map(Form::Rfc).to_vec();
    forms.extend([
        bound("/eclipse.ts", 1),
        bound("/eclipse.ts", 2),
        bound("/eclipse.ogg", 1),
    ]);
    forms
}

#[test]
fn rfc_texts() {
    let bin = Bin::from_range(32, 63).unwrap();
    let munro = munro(HashKind::Sha1, bin);
    let hash = munro.hash.to_string();
    let text = |addressing| rfc_text(addressing, &munro).unwrap();
    assert_eq!(
        text(Addressing::Range32),
        unhex(&format!("000000200000003f1122334455667788{hash}"))
    );
    assert_eq!(
        text(Addressing::Bin32),
        unhex(&format!("0000005f1122334455667788{hash}"))
    );
    assert_eq!(
        text(Addressing::Bin64),
        unhex(&format!("000000000000005f1122334455667788{hash}"))
    );
    let wide = format!("0000000000000020000000000000003f1122334455667788{hash}");
    assert_eq!(text(Addressing::Range64), unhex(&wide));
}

#[test]
fn bound_texts() {
    let bin = Bin::from_range(32, 63).unwrap();
    let munro = munro(HashKind::Sha256, bin);
    let channel = ChannelId([0xC4; 32]);
    let text = bound_text(&Context { channel, epoch: 7 }, &munro);
    let expected = [
        b"totality-munro-1".to_vec(),
        vec![0xC4; 32],
        unhex("0000000000000007000000000000005f112233445566778802"),
        munro.hash.as_bytes().to_vec(),
    ];
    assert_eq!(text, expected.concat());
    let mount = ChannelId::of_mount("/eclipse.ts");
    assert_eq!(mount.0[..], *HashKind::Sha256.leaf(b"/eclipse.ts").as_bytes());
}

/// A signature is good for its own form, channel and epoch, and for no other.
#[test]
fn forms_do_not_mix() {
    let signer = Signer::generate().unwrap();
    // Not the first munro: its text is the same in 32-bit ranges and in 64-bit bins, and means the same chunks.
    let munro = munro(HashKind::Sha256, Bin::from_range(32, 63).unwrap());
    for signed_in in every_form() {
        let signed = signer.sign_munro(&signed_in, munro).unwrap();
        for checked_in in every_form() {
            let verifier = Verifier::new(signer.public_key().clone(), checked_in);
            let good = verifier.verify(&signed).is_ok();
            assert_eq!(good, signed_in == checked_in, "{signed_in:?} as {checked_in:?}");
        }
    }
}

#[test]
fn no_fact_can_be_changed() {
    let signer = Signer::generate().unwrap();
    let bin = Bin::from_range(32, 63).unwrap();
    for form in every_form() {
        let signed = signer.sign_munro(&form, munro(HashKind::Sha1, bin)).unwrap();
        let verifier = Verifier::new(signer.public_key().clone(), form);
        assert_eq!(verifier.verify(&signed), Ok(()));
        let mut elsewhere = signed;
        elsewhere.munro.bin = bin.sibling().unwrap();
        let mut narrower = signed;
        narrower.munro.bin = bin.left().unwrap();
        let mut later = signed;
        later.munro.time.0 += 1;
        let mut other = signed;
        other.munro.hash = HashKind::Sha1.leaf(b"another root");
        // The chunk number 2^16 and 2^32 further on, where narrower counters would start again.
        let mut around = signed;
        around.munro.bin = Bin::from_range(65536 + 32, 65536 + 63).unwrap();
        let mut far = signed;
        far.munro.bin = Bin::from_range((1 << 32) + 32, (1 << 32) + 63).unwrap();
        for forged in [elsewhere, narrower, later, other, around, far] {
            assert!(verifier.verify(&forged).is_err(), "{form:?} {forged:?}");
        }
    }
}

#[test]
fn the_bound_form_insists_on_the_smaller_s() {
    let signer = Signer::generate().unwrap();
    let bin = Bin::from_range(0, 31).unwrap();
    for form in every_form() {
        let mut signed = signer.sign_munro(&form, munro(HashKind::Sha256, bin)).unwrap();
        signed.signature = signed.signature.twin();
        let verified = Verifier::new(signer.public_key().clone(), form).verify(&signed);
        let expected = match form {
            // Other injectors sign with either.
            Form::Rfc(_) => Ok(()),
            Form::Bound(_) => Err(BadSignature::HighS { bin }),
        };
        assert_eq!(verified, expected);
    }
}

#[test]
fn chunks_that_a_method_cannot_name() {
    let signer = Signer::generate().unwrap();
    let form = Form::Rfc(Addressing::Range32);
    let bin = Bin::from_range(1 << 32, (1 << 32) + 1).unwrap();
    let munro = munro(HashKind::Sha256, bin);
    let addressing = Addressing::Range32;
    assert_eq!(
        signer.sign_munro(&form, munro),
        Err(SignError::Unnameable { bin, addressing })
    );
    let signed = SignedMunro {
        munro,
        signature: Signature([1; 64]),
    };
    let verifier = Verifier::new(signer.public_key().clone(), form);
    assert_eq!(verifier.verify(&signed), Err(BadSignature::Unnameable { bin }));
}

#[test]
fn decoding_says_what_is_wrong() {
    let mut bytes = vec![0; 101];
    bytes[16] = 1;
    assert_eq!(SignedMunro::decode(&bytes), Err(DecodeError::HashKind { got: 1 }));
    bytes[16] = 0;
    assert!(SignedMunro::decode(&bytes).is_ok());
    bytes[16] = 2;
    let (expected, got) = (113, 101);
    assert_eq!(
        SignedMunro::decode(&bytes),
        Err(DecodeError::Length { expected, got })
    );
    bytes[16] = 0;
    bytes[..8].fill(0xFF);
    assert_eq!(SignedMunro::decode(&bytes), Err(DecodeError::Empty));
}

fn any_signed() -> impl Strategy<Value = SignedMunro> {
    let hash = (any::<bool>(), any::<[u8; 32]>()).prop_map(|(long, bytes)| {
        let kind = if long { HashKind::Sha256 } else { HashKind::Sha1 };
        Digest::from_slice(kind, &bytes[..kind.len()]).unwrap()
    });
    let signature = (any::<[u8; 32]>(), any::<[u8; 32]>());
    (0..u64::MAX, hash, any::<u64>(), signature).prop_map(|(bin, hash, time, (r, s))| SignedMunro {
        munro: Munro {
            bin: Bin::from_number(bin).unwrap(),
            hash,
            time: NtpTime(time),
        },
        signature: Signature([r, s].concat().try_into().unwrap()),
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(signed in any_signed()) {
        let mut bytes = Vec::new();
        signed.encode(&mut bytes);
        prop_assert!(bytes.len() <= MUNRO_MAX);
        prop_assert_eq!(SignedMunro::decode(&bytes), Ok(signed));
        for length in 0..bytes.len() {
            prop_assert!(SignedMunro::decode(&bytes[..length]).is_err());
        }
        bytes.push(0);
        prop_assert!(SignedMunro::decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
        if let Ok(signed) = SignedMunro::decode(&bytes) {
            let mut again = Vec::new();
            signed.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}
