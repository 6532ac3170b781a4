//! How much a test goes through.

/// The first in a debug build, the second in a release build, the third with
/// `WATERSHED_PROOF=long` in the environment.
pub(crate) fn effort<T>(debug: T, release: T, long: T) -> T {
    if std::env::var("WATERSHED_PROOF").is_ok_and(|effort| effort == "long") {
        long
    } else if cfg!(debug_assertions) {
        debug
    } else {
        release
    }
}
