//! Rule 7.20 in prefix order: windows over partitions.

use std::time::Duration;

use futures::FutureExt;
use watershed::channels::Window;
use watershed::testing::{LogRecord, for_every_poll};
use watershed::{CancellationSource, StepContext, fan_in};

use crate::scene::*;

type Windows = Vec<Window<watershed::transport::TransportSource<watershed::testing::LogConsumer>>>;

fn windows(context: &StepContext, member: &mut Member, every: Option<Duration>) -> Windows {
    let window = |source| {
        let window = Window::new(context, source).count(3);
        match every {
            Some(every) => window.every(every),
            None => window,
        }
    };
    std::mem::take(&mut member.sources).into_iter().map(window).collect()
}

fn drained(
    scene: &Scene,
    context: &StepContext,
    windows: Windows,
    stop: &CancellationSource,
    takes: Duration,
) -> futures::future::LocalBoxFuture<'static, Ended> {
    let (log, world) = (scene.log.clone(), scene.world.clone());
    let drain = fan_in(context, windows, move |records: Vec<LogRecord>, step| {
        let (log, world) = (log.clone(), world.clone());
        async move {
            use watershed::Clock;
            records.iter().for_each(|record| log.apply(&step, *record));
            world.pause().await;
            world.clock().sleep_until(world.clock().now() + takes).await;
            Ok::<_, watershed::BoxError>(())
        }
        .boxed()
    });
    std::future::IntoFuture::into_future(drain.unordered().concurrency(3).shutdown(stop.token()))
        .boxed_local()
}

// Rules 7.20, 7.22: a window that is not full is handed out at the end of its source
#[test]
fn a_window_is_handed_out_when_its_partition_is_read_until_empty() {
    for records in 0..9 {
        let scene = Scene::new(records, &[records]);
        let mut member = scene.member(&[0]);
        let context = scene.world.context("orders");
        let windows = windows(&context, &mut member, None);
        let drain = drained(&scene, &context, windows, &CancellationSource::new(), ms(0));
        assert_eq!(settled(scene.run(drain)).accepted(), records);
        scene.log.check().unwrap();
    }
}

// Rules 7.18, 7.20: what is in an open window is settled, or given back, before the answer
#[test]
fn a_partition_with_an_open_window_is_given_up_at_once() {
    for at in 0..40 {
        let scene = Scene::with(at, &[8, 4], |log| log.endless());
        let mut member = scene.member(&[0, 1]);
        let context = scene.world.context("orders");
        let windows = windows(&context, &mut member, Some(ms(3_600_000)));
        let stop = CancellationSource::new();
        let drain = drained(&scene, &context, windows, &stop, ms(0));
        let running = scene.simulation.spawn("drain", drain);
        scene.run(scene.sleep(ms(at)));
        assert_eq!(scene.run(member.consumer.revoke(0, None)), 0);
        assert!(std::time::Duration::from_nanos(now(&scene)) < ms(1_000));
        scene.run(scene.sleep(ms(1_000)));
        stop.cancel();
        let report = settled(scene.run(running));
        assert_eq!((report.lost(), report.abandoned(), report.unknown()), (0, 0, 0));
        assert_eq!(context.scope().len(), 0);
        scene.log.check().unwrap();
        scene.finish(&[0, 1]);
    }
}

fn now(scene: &Scene) -> u64 {
    use watershed::Clock;
    scene.world.clock().now().as_nanos()
}

// Rules 7.5, 7.20: lost while a window is open, or its handler runs
#[test]
fn a_partition_with_an_open_window_that_is_lost_is_committed_no_further() {
    for takes in [0, 20] {
        for at in 0..40 {
            let scene = Scene::with(at, &[8, 4], |log| log.endless());
            let mut member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let windows = windows(&context, &mut member, Some(ms(100)));
            let stop = CancellationSource::new();
            let drain = drained(&scene, &context, windows, &stop, ms(takes));
            let running = scene.simulation.spawn("drain", drain);
            scene.run(scene.sleep(ms(at)));
            member.consumer.lose(0);
            scene.run(scene.sleep(ms(1_000)));
            assert_eq!(scene.log.committed(1), 4);
            stop.cancel();
            settled(scene.run(running));
            assert_eq!(context.scope().len(), 0);
            scene.log.check().unwrap();
            scene.finish(&[0]);
        }
    }
}

// Rules 7.20, 7.21
#[test]
fn windows_are_shut_down_and_dropped_at_every_poll() {
    for dropped in [false, true] {
        for_every_poll(|point| {
            let scene = Scene::new(point.polls(), &[8, 4]);
            let mut member = scene.member(&[0, 1]);
            let context = scene.world.context("orders");
            let windows = windows(&context, &mut member, Some(ms(10)));
            let stop = CancellationSource::new();
            let drain = drained(&scene, &context, windows, &stop, ms(5));
            if dropped {
                scene.run(point.cut(drain)).map(settled);
                scene.roll_back(&context);
            } else {
                let report = settled(scene.run(point.cancel(&stop, drain)));
                assert_eq!((report.lost(), report.abandoned(), report.unknown()), (0, 0, 0));
            }
            assert_eq!(context.scope().len(), 0);
            scene.log.check().unwrap();
            drop(member.link);
            scene.finish(&[0, 1]);
        });
    }
}
