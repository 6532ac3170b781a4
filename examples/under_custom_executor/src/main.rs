//! An executor of a few dozen lines, written here, that polls once a frame as a game loop would.
//!
//! Nothing but the loop decides when anything happens: the drain takes its time from a clock that
//! the loop advances by one frame's length, and does its work while the loop polls it.
//!
//! ```text
//! cargo run -p under_custom_executor
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::lock::Mutex;
use watershed::{BoxError, CompensationPolicy, ManualClock, Source, StepContext, fan_in};

const FRAME: Duration = Duration::from_millis(16);

/// Polls `future` once a frame until it is done, calling `draw` in between. Nobody needs to wake
/// it: the next frame comes anyway.
fn game_loop<F: Future>(clock: &ManualClock, mut draw: impl FnMut(u32), future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut frame = 0;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        frame += 1;
        draw(frame);
        clock.advance(FRAME);
    }
}

fn main() -> Result<(), BoxError> {
    let [(red, from_red), (blue, from_blue)] =
        [async_channel::unbounded(), async_channel::unbounded()];
    let draw = |frame: u32| {
        println!("frame {frame}");
        if frame % 2 == 0 {
            // A channel that is closed belongs to a game that is over.
            let _ = red.try_send(("red", frame / 2));
            let _ = blue.try_send(("blue", frame / 2));
        }
    };

    let clock = ManualClock::new();
    let towers = Arc::new(Mutex::new(Vec::new()));
    let context = StepContext::new("game").with_clock(Arc::new(clock.clone()));
    let players = [from_red.named("red"), from_blue.named("blue")];
    let play = async {
        let outcome = fan_in(&context, players, async |tower: (&'static str, u32), step| {
            towers.lock().await.push(tower);
            println!("  {tower:?} built");
            step.register_compensation_with(
                (Arc::clone(&towers), tower),
                async |(towers, tower)| {
                    towers.lock().await.retain(|other| *other != tower);
                    println!("  {tower:?} torn down");
                },
            );
            if tower == ("blue", 3) { Err("the tower does not stand") } else { Ok(()) }
        })
        .timeout(Duration::from_secs(2))
        .await;
        if let Err(failure) = outcome {
            println!("  {failure:#}");
            context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        }
        println!("  towers left: {:?}", *towers.lock().await);
        Ok(())
    };
    game_loop(&clock, draw, play)
}
