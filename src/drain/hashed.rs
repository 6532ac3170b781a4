//! A key of a message with its hash.
//!
//! A key is looked up twice a message: when that begins, and when it has ended. It is hashed once,
//! with the keyed hash of the standard library, which takes longer than the rest of a look (7 of 100
//! instructions of a message, `cargo bench -p benches --bench peers -- one_source --instructions`).

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// A key of a message with its hash. Clones are known to be equal without asking the key.
#[derive(Clone, Debug, Eq)]
pub struct Hashed<K> {
    hash: u64,
    number: u64,
    key: K,
}

impl<K: Hash> Hashed<K> {
    #[inline]
    pub(super) fn new(key: K, number: u64, by: &RandomState) -> Self {
        Self { hash: by.hash_one(&key), number, key }
    }
}

impl<K> Hashed<K> {
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

impl<K: PartialEq> PartialEq for Hashed<K> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (self.number == other.number || self.key == other.key)
    }
}

impl<K> Hash for Hashed<K> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// For maps whose keys have been hashed.
pub(super) type IsHashed = BuildHasherDefault<AsIs>;

/// Hands the hash of a key on as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Keys hand their hash over as one number.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
}
