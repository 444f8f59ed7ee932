//! What proves the choice of primitives (docs/PERFORMANCE.md, "Primitives"): each at the sizes that occur, key at hand.
//!
//! `cargo bench -p benches --bench primitives`

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ed25519_zebra::{SigningKey, VerificationKey, VerificationKeyBytes, batch};
use rand_core::OsRng;
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::hint::black_box;
use std::time::Duration;

/// A heartbeat or a vote, a frame of few messages, one packet, and what is sent in pieces.
const SIZES: [usize; 5] = [64, 256, 1 << 10, 8 << 10, 64 << 10];
/// What a frame's header has beside its nonce.
const HEAD: [u8; 16] = [1; 16];
const KEY: [u8; 32] = [3; 32];
/// Votes that a quorum of f = 1, 2 and 3 brings, and what a view change may.
const BATCHES: [usize; 4] = [3, 5, 7, 64];

fn aead(algorithm: &'static Algorithm, key: [u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("32 bytes"))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Sealing `size` bytes, each time under another nonce.
fn seal(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, algorithm: &'static Algorithm, size: usize) {
    let (key, mut text, mut number) = (aead(algorithm, KEY), vec![7; size], 0);
    group.bench_function(format!("{name}, sealed/{size}"), |b| {
        b.iter(|| {
            number += 1;
            key.seal_in_place_separate_tag(nonce(number), Aad::from(HEAD), black_box(&mut text))
        });
    });
}

/// The tag alone over `size` bytes in the clear.
fn authenticate(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    algorithm: &'static Algorithm,
    size: usize,
) {
    let (key, text, mut number) = (aead(algorithm, KEY), vec![7; size], 0);
    group.bench_function(format!("{name}, authenticated only/{size}"), |b| {
        b.iter(|| {
            number += 1;
            key.seal_in_place_separate_tag(nonce(number), Aad::from(black_box(&text)), &mut [])
        });
    });
}

fn codes(c: &mut Criterion) {
    let mut group = c.benchmark_group("codes");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        seal(&mut group, "AES-256-GCM", &AES_256_GCM, size);
        authenticate(&mut group, "AES-256-GCM", &AES_256_GCM, size);
        seal(&mut group, "ChaCha20-Poly1305", &CHACHA20_POLY1305, size);
        authenticate(&mut group, "ChaCha20-Poly1305", &CHACHA20_POLY1305, size);
        let text = vec![7; size];
        group.bench_function(format!("keyed BLAKE3/{size}"), |b| {
            b.iter(|| blake3::keyed_hash(&KEY, black_box(&text)));
        });
        let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
        group.bench_function(format!("HMAC-SHA-256/{size}"), |b| {
            b.iter(|| hmac::sign(&key, black_box(&text)));
        });
    }
    group.finish();
}

/// Opening frames that came together, under keys of their own: each for itself, and none begun before the one before it has
/// ended (its nonce depends on that one's text). What they differ by is what the processor overlaps between calls.
fn bursts(c: &mut Criterion) {
    const FRAMES: usize = 8;
    let keys: Vec<LessSafeKey> = (0..FRAMES as u8).map(|n| aead(&AES_256_GCM, [n; 32])).collect();
    let mut group = c.benchmark_group("open eight frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for size in [64, 256, 1 << 10] {
        // All texts are zero, so that the number made of one is the nonce of the next.
        let sealed: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| {
                let mut bytes = vec![0; size];
                key.seal_in_place_append_tag(nonce(0), Aad::from(HEAD), &mut bytes).expect("short");
                bytes
            })
            .collect();
        for (name, waits) in [("one after the other", false), ("each waiting for the one before", true)] {
            let mut bytes = sealed.clone();
            group.bench_function(format!("{name}/{size}"), |b| {
                b.iter(|| {
                    let mut number = 0;
                    for ((key, bytes), sealed) in keys.iter().zip(&mut bytes).zip(&sealed) {
                        bytes.copy_from_slice(sealed);
                        let text = key.open_in_place(nonce(number), Aad::from(HEAD), bytes).expect("genuine");
                        if waits {
                            number = u64::from(black_box(text[size - 1]));
                        }
                    }
                });
            });
        }
    }
    group.finish();
}

/// Signatures of a digest: by `ring`, which Ghidrah uses, and by the equation that holds for one and for many
/// (ZIP 215), each alone and all at once.
fn signatures(c: &mut Criterion) {
    let message = [9; 32];
    let mut group = c.benchmark_group("Ed25519");
    let pair = Ed25519KeyPair::from_seed_unchecked(&KEY).expect("32 bytes");
    group.bench_function("sign (ring)", |b| b.iter(|| pair.sign(black_box(&message))));
    let (public, signature) = (UnparsedPublicKey::new(&ED25519, pair.public_key()), pair.sign(&message));
    group.bench_function("verify (ring)", |b| {
        b.iter(|| public.verify(black_box(&message), signature.as_ref()).expect("genuine"));
    });
    let keys: Vec<SigningKey> = (0..64).map(|n| SigningKey::from([n; 32])).collect();
    let signed: Vec<_> =
        keys.iter().map(|key| (VerificationKeyBytes::from(key), key.sign(&message))).collect();
    let key = VerificationKey::try_from(signed[0].0).expect("a point");
    group.bench_function("verify (ed25519-zebra)", |b| {
        b.iter(|| key.verify(&signed[0].1, black_box(&message)).expect("genuine"));
    });
    for count in BATCHES {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("verify at once (ed25519-zebra)/{count}"), |b| {
            b.iter(|| {
                let mut all = batch::Verifier::new();
                signed[..count].iter().for_each(|(key, signature)| all.queue((*key, *signature, &message)));
                all.verify(OsRng).expect("genuine");
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = primitives;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    targets = codes, bursts, signatures
}
criterion_main!(primitives);
