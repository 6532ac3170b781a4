//! Tokens in crowds. Rules 3.5, 4.13.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::FutureExt;
use watershed::{CancellationSource, CancellationToken};

/// How much longer ten times as much of it takes: the least of a few tries, on a machine that may be
/// busy.
pub(crate) fn tenfold(mut work: impl FnMut(usize)) -> f64 {
    let mut time = |size| {
        let began = Instant::now();
        work(size);
        began.elapsed().max(Duration::from_micros(50)).as_secs_f64()
    };
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        least = least.min(time(100_000) / time(10_000));
        if least < 20.0 {
            break;
        }
    }
    least
}

// Rule 4.13
#[test]
fn a_crowd_that_waits_for_one_token_is_woken_and_dropped_in_linear_time() {
    let ratio = tenfold(|size| {
        let source = CancellationSource::new();
        let mut waits: Vec<_> = (0..size).map(|_| source.token().cancelled()).collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.iter_mut().all(|wait| wait.poll_unpin(&mut cx).is_pending()));
        // Half of them go away, the first, the last and those between.
        let mut index = 0;
        waits.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        source.cancel();
        assert!(waits.iter_mut().all(|wait| wait.poll_unpin(&mut cx) == Poll::Ready(())));
    });
    assert!(ratio < 40.0, "ten times the crowd takes {ratio} times as long");
}

// Rules 3.5, 4.13
#[test]
fn a_token_that_is_linked_to_a_crowd_is_made_asked_and_awaited_in_linear_time() {
    let ratio = tenfold(|size| {
        let sources: Vec<_> = (0..size).map(|_| CancellationSource::new()).collect();
        let tokens = sources.iter().chain(&sources).map(CancellationSource::token);
        let token = CancellationToken::linked(tokens);
        let mut wait = token.cancelled();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.poll_unpin(&mut cx).is_pending());
        sources[size / 2].cancel();
        assert!(token.is_cancelled());
        assert!(wait.poll_unpin(&mut cx).is_ready());
    });
    assert!(ratio < 40.0, "ten times the crowd takes {ratio} times as long");
}

// Rule 3.5
#[test]
fn a_linked_token_knows_each_of_its_sources_however_many_and_how_often_linked() {
    for count in [1, 15, 16, 17, 100] {
        for cancelled in [0, count / 2, count - 1] {
            let sources: Vec<_> = (0..count).map(|_| CancellationSource::new()).collect();
            let half = CancellationToken::linked(sources[..count / 2].iter().map(|s| s.token()));
            let all = sources.iter().map(CancellationSource::token);
            let token = CancellationToken::linked([half].into_iter().chain(all));
            assert!(!token.is_cancelled());
            sources[cancelled].cancel();
            assert!(token.is_cancelled(), "{cancelled} of {count}");
            assert!(token.cancelled().now_or_never().is_some());
        }
    }
}
