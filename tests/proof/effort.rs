//! How much a test goes through.

/// The first in a debug build, the second in a release build, unless `WATERSHED_PROOF` in the
/// environment asks for the first with `short`, or for the third with `long`.
pub(crate) fn effort<T>(short: T, usual: T, long: T) -> T {
    match std::env::var("WATERSHED_PROOF").as_deref() {
        Ok("short") => short,
        Ok("long") => long,
        _ if cfg!(debug_assertions) => short,
        _ => usual,
    }
}
