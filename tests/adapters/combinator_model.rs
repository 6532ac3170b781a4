//! Random trees of combinators, by seed: whatever happens in them, every effect is undone or kept,
//! once.
//!
//! An operation's value is the list of the effects that made it. So when a tree succeeds, exactly
//! the effects in its value are staged; when it fails, none are; and when it is dropped, every
//! effect that was not undone is. The driver polls only when it was woken, moves the clock only
//! when nobody wants to be polled, and cancels only when nobody waits for the clock.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{roll_back, yields};
use fastrand::Rng;
use futures::FutureExt;
use futures::future::BoxFuture;
use watershed::combinators::{Fallback, retry, when_all, when_any};
use watershed::{
    BoxError, CancellationSource, CompensationPolicy, ManualClock, RetryPolicy, StepContext,
};

type Value = Vec<u32>;
type Outcome = Result<Value, BoxError>;

/// What an operation does when its effects are done.
#[derive(Debug)]
enum End {
    Succeed,
    Fail,
    Panic,
    /// Waits for its token, and does one more effect.
    Heed {
        succeeds: bool,
    },
    Deaf,
}

#[derive(Debug)]
struct Limits {
    concurrency: Option<usize>,
    timeout: Option<Duration>,
    grace: Duration,
    parallel: bool,
}

#[derive(Debug)]
enum Node {
    Leaf { effects: u32, slow: bool, yields: usize, sleep: Duration, end: End },
    All(Vec<Arc<Node>>, Limits),
    Any(Vec<Arc<Node>>, Limits),
    Retry { attempts: u32, wait: Duration, each: Vec<Arc<Node>>, limits: Limits },
    Fallback(Vec<Vec<Arc<Node>>>, Limits),
}

fn millis(rng: &mut Rng, below: u64) -> Duration {
    Duration::from_millis(rng.u64(..below))
}

fn limits(rng: &mut Rng) -> Limits {
    Limits {
        concurrency: rng.bool().then(|| rng.usize(1..3)),
        timeout: (rng.u8(..3) == 0).then(|| millis(rng, 20)),
        grace: if rng.bool() { Duration::ZERO } else { millis(rng, 20) },
        parallel: rng.u8(..3) == 0,
    }
}

fn leaf(rng: &mut Rng) -> Node {
    let end = match rng.u8(..12) {
        0..=4 => End::Succeed,
        5..=7 => End::Fail,
        8 => End::Panic,
        9 => End::Heed { succeeds: true },
        10 => End::Heed { succeeds: false },
        _ => End::Deaf,
    };
    let sleep = if rng.bool() { Duration::ZERO } else { millis(rng, 10) };
    Node::Leaf { effects: rng.u32(..3), slow: rng.bool(), yields: rng.usize(..3), sleep, end }
}

fn nodes(rng: &mut Rng, least: usize, depth: u32) -> Vec<Arc<Node>> {
    (0..rng.usize(least..4)).map(|_| Arc::new(node(rng, depth))).collect()
}

fn node(rng: &mut Rng, depth: u32) -> Node {
    if depth == 0 || depth < 3 && rng.u8(..5) < 2 {
        return leaf(rng);
    }
    match rng.u8(..4) {
        0 => Node::All(nodes(rng, 0, depth - 1), limits(rng)),
        1 => Node::Any(nodes(rng, 0, depth - 1), limits(rng)),
        2 => Node::Retry {
            attempts: 1 + rng.u32(..3),
            wait: millis(rng, 5),
            each: nodes(rng, 1, depth - 1),
            limits: limits(rng),
        },
        _ => {
            let tiers = (0..rng.usize(..3)).map(|_| nodes(rng, 0, depth - 1)).collect();
            Node::Fallback(tiers, limits(rng))
        }
    }
}

/// The effects of a tree by their number, which is their place in the order of registration.
#[derive(Clone, Debug, Default)]
struct Effects {
    done: Arc<AtomicU32>,
    undone: Arc<Mutex<Vec<u32>>>,
}

impl Effects {
    fn apply(&self, step: &StepContext, slow: bool) -> u32 {
        let effect = self.done.fetch_add(1, Ordering::Relaxed);
        step.register_compensation_with(Arc::clone(&self.undone), move |undone| async move {
            yields(usize::from(slow)).await;
            undone.lock().expect("no panic under the lock").push(effect);
        });
        effect
    }

    fn undone(&self) -> Vec<u32> {
        self.undone.lock().expect("no panic under the lock").clone()
    }

    /// Every effect was undone once.
    fn assert_all_undone(&self, tree: &Tree) {
        let mut undone = self.undone();
        undone.sort_unstable();
        let done: Vec<_> = (0..self.done.load(Ordering::Relaxed)).collect();
        assert_eq!(undone, done, "{tree:?}");
    }
}

fn operation(
    node: &Arc<Node>,
    effects: &Effects,
) -> impl FnOnce(StepContext) -> BoxFuture<'static, Outcome> + Send + use<> {
    let (node, effects) = (Arc::clone(node), effects.clone());
    move |step| async move { run(&node, &effects, step).await }.boxed()
}

async fn run(node: &Node, effects: &Effects, step: StepContext) -> Outcome {
    let operations =
        |nodes: &[Arc<Node>]| nodes.iter().map(|node| operation(node, effects)).collect::<Vec<_>>();
    let compensation = |limits: &Limits| {
        if limits.parallel {
            CompensationPolicy::parallel()
        } else {
            CompensationPolicy::sequential_reverse()
        }
    };
    match node {
        Node::Leaf { effects: count, slow, yields: times, sleep, end } => {
            let mut value = Vec::new();
            for _ in 0..*count {
                value.push(effects.apply(&step, *slow));
                yields(*times).await;
            }
            if !sleep.is_zero() {
                step.clock().sleep_until(step.clock().now() + *sleep).await;
            }
            match end {
                End::Succeed => Ok(value),
                End::Fail => Err("it fails".into()),
                End::Panic => panic!("it panics"),
                End::Heed { succeeds } => {
                    step.cancellation().cancelled().await;
                    value.push(effects.apply(&step, *slow));
                    yields(*times).await;
                    if *succeeds { Ok(value) } else { Err("told to stop".into()) }
                }
                End::Deaf => std::future::pending().await,
            }
        }
        Node::All(nodes, limits) => {
            let mut all = when_all(&step, operations(nodes)).grace(limits.grace);
            if let Some(most) = limits.concurrency {
                all = all.concurrency(most);
            }
            if let Some(timeout) = limits.timeout {
                all = all.timeout(timeout);
            }
            Ok(all.compensation(compensation(limits)).await?.concat())
        }
        Node::Any(nodes, limits) => {
            let mut any = when_any(&step, operations(nodes)).grace(limits.grace);
            if let Some(timeout) = limits.timeout {
                any = any.timeout(timeout);
            }
            let raced = any.compensation(compensation(limits)).await?;
            raced.rollback().expect("every compensation succeeds");
            Ok(raced.into_value())
        }
        Node::Retry { attempts, wait, each, limits } => {
            let policy = RetryPolicy::exponential(*attempts, *wait);
            let mut each = each.iter().cycle();
            let attempt = |step| operation(each.next().expect("there is one"), effects)(step);
            let retried = retry(&step, policy, attempt).compensation(compensation(limits));
            Ok(retried.grace(limits.grace).await?)
        }
        Node::Fallback(tiers, limits) => {
            let mut all =
                Fallback::new(&step).compensation(compensation(limits)).grace(limits.grace);
            for nodes in tiers {
                all = all.tier("tier");
                for node in nodes {
                    all = all.strategy("strategy", operation(node, effects));
                }
            }
            let reached = all.await?;
            reached.rollback().expect("every compensation succeeds");
            Ok(reached.into_value())
        }
    }
}

/// A tree that can be run again and again.
#[derive(Debug)]
struct Tree {
    #[allow(dead_code, reason = "a test that fails prints it")]
    seed: u64,
    root: Node,
}

struct World {
    clock: ManualClock,
    stop: CancellationSource,
    context: StepContext,
    effects: Effects,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tree {
    fn new(seed: u64) -> Self {
        // The root is a combinator: an operation alone leaves what it did to its caller.
        Self { seed, root: node(&mut Rng::with_seed(seed), 3) }
    }

    /// Runs the tree for so many polls, and cancels it before the poll with this number.
    fn run(&self, polls: usize, cancel_at: usize) -> (World, usize, Option<Outcome>) {
        let (clock, stop) = (ManualClock::new(), CancellationSource::new());
        let context = StepContext::new("tree").with_clock(Arc::new(clock.clone()));
        let context = context.with_cancellation(stop.token());
        let world = World { clock, stop, context, effects: Effects::default() };
        let mut running = Box::pin(run(&self.root, &world.effects, world.context.clone()));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut polled = 0;
        let outcome = loop {
            if polled == cancel_at {
                world.stop.cancel();
            }
            if polled == polls {
                break None;
            }
            polled += 1;
            if let Poll::Ready(outcome) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                break Some(outcome);
            }
            while !woken.0.swap(false, Ordering::Relaxed) {
                if !world.clock.advance_to_next() {
                    assert!(!world.stop.is_cancelled(), "it hangs: {self:?}");
                    world.stop.cancel();
                }
            }
        };
        drop(running);
        (world, polled, outcome)
    }
}

/// What a tree left behind is what its outcome says.
fn assert_accounted(tree: &Tree, world: &World, outcome: Option<&Outcome>) {
    let effects = &world.effects;
    let before = effects.undone().len();
    let staged = world.context.scope().len();
    assert_eq!(roll_back(world.context.scope()), staged, "{tree:?}");
    let mut kept = effects.undone()[before..].to_vec();
    assert!(kept.is_sorted_by(|later, earlier| later > earlier), "in reverse: {kept:?}, {tree:?}");
    match outcome {
        Some(Ok(value)) => {
            let mut value = value.clone();
            value.sort_unstable();
            kept.reverse();
            assert_eq!(kept, value, "what made the value is staged: {tree:?}");
        }
        Some(Err(_)) => assert_eq!(kept, [], "all was undone: {tree:?}"),
        None => {}
    }
    effects.assert_all_undone(tree);
}

// Rules 4.1, 4.2, 5.4
#[test]
fn a_tree_keeps_what_made_its_value_and_undoes_everything_else() {
    let (mut succeeded, mut failed) = (0, 0);
    for seed in 0..3_000 {
        let tree = Tree::new(seed);
        let (world, _, outcome) = tree.run(usize::MAX, usize::MAX);
        let outcome = outcome.expect("it ends");
        assert_accounted(&tree, &world, Some(&outcome));
        if outcome.is_ok() { succeeded += 1 } else { failed += 1 }
    }
    assert!(succeeded > 300 && failed > 300, "{succeeded} succeeded, {failed} failed");
}

// Rules 3.5, 4.1
#[test]
fn a_tree_cancelled_before_any_poll_ends_and_leaves_nothing_behind() {
    for seed in 0..300 {
        let tree = Tree::new(seed);
        for cancel_at in 0.. {
            let (world, polled, outcome) = tree.run(usize::MAX, cancel_at);
            let outcome = outcome.expect("it ends");
            assert_accounted(&tree, &world, Some(&outcome));
            if polled <= cancel_at {
                break;
            }
        }
    }
}

// Rules 4.1, 4.5
#[test]
fn a_tree_dropped_after_any_poll_loses_no_compensation() {
    let mut drops = 0;
    for seed in 0..300 {
        let tree = Tree::new(seed);
        for polls in 0.. {
            let (world, _, outcome) = tree.run(polls, usize::MAX);
            assert_accounted(&tree, &world, outcome.as_ref());
            drops += 1;
            if outcome.is_some() {
                break;
            }
        }
    }
    assert!(drops > 1_000, "{drops} drops");
}

// Rule 5.4
#[test]
fn the_same_tree_leaves_the_same_trace() {
    for seed in 0..300 {
        let tree = Tree::new(seed);
        let trace = || {
            let (world, polled, outcome) = tree.run(usize::MAX, usize::MAX);
            roll_back(world.context.scope());
            let outcome = outcome.expect("it ends").map_err(|error| format!("{error:?}"));
            (polled, world.effects.undone(), outcome)
        };
        assert_eq!(trace(), trace(), "{tree:?}");
    }
}
