//! A clock without a thread that would wake anybody.

use watershed::{Clock, Error, ErrorCode, ManualClock, Sleep, Tick};

/// A clock that can tell the time, and cannot wait.
#[derive(Debug, Default)]
pub struct CannotWait(ManualClock);

impl Clock for CannotWait {
    fn now(&self) -> Tick {
        self.0.now()
    }

    fn sleep_until(&self, _: Tick) -> Sleep {
        panic!("it was not asked whether it can wait");
    }

    fn check(&self) -> Result<(), Error> {
        Err(Error::new(ErrorCode::Clock, "there is nobody to wake"))
    }
}
