//! Deliveries of one order that are killed, undone, or meet.

use std::time::Duration;

use super::{Mark, Step, Taken, bury};
use crate::store::Store;

fn store() -> Store {
    let store = Store::open("sqlite::memory:", 1, Duration::from_secs(5)).unwrap();
    smol::block_on(store.create_tables()).unwrap();
    store
}

fn delivery(name: &str) -> Mark {
    Mark { message: "order".to_owned(), undo_key: name.to_owned() }
}

fn steps() -> [Step; 3] {
    [Step::Token("kafka".to_owned()), Step::Event(b"placed".to_vec()), Step::Done]
}

/// What is in the store: tokens that are begun and done, and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    begun: usize,
    done: usize,
    events: usize,
}

const NOTHING: Left = Left { begun: 0, done: 0, events: 0 };
const EFFECT: Left = Left { begun: 0, done: 1, events: 1 };

async fn left(store: &Store) -> Left {
    let mut look = store.look().await.unwrap();
    let mut left = NOTHING;
    for row in look.rows("select state from tokens", &[]).await.unwrap() {
        let is_done = row.text(0).unwrap() == "done";
        *(if is_done { &mut left.done } else { &mut left.begun }) += 1;
    }
    left.events = look.rows("select body from outbox", &[]).await.unwrap().len();
    look.commit().await.unwrap();
    left
}

async fn clear(store: &Store) {
    let mut transaction = store.begin("order").await.unwrap();
    for table in ["tokens", "outbox"] {
        transaction.run(format!("delete from {table}"), &[]).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// Takes steps as the worker does: it stops at one that is not its own.
async fn take(store: &Store, mark: &Mark, steps: &[Step]) -> Taken {
    let mut taken = Taken::Ours;
    for step in steps {
        taken = mark.take(store, step).await.unwrap();
        if taken != Taken::Ours {
            break;
        }
    }
    taken
}

async fn undo(store: &Store, mark: &Mark, steps: &[Step]) {
    for step in steps.iter().rev() {
        mark.undo(store, step).await.unwrap();
    }
}

#[test]
fn a_worker_that_is_killed_between_two_steps_is_finished_by_the_next_delivery() {
    let store = store();
    smol::block_on(async {
        let expected = [
            NOTHING,
            Left { begun: 1, ..NOTHING },
            Left { begun: 1, events: 1, ..NOTHING },
            EFFECT,
        ];
        for (killed_behind, expected) in expected.into_iter().enumerate() {
            clear(&store).await;
            take(&store, &delivery("a"), &steps()[..killed_behind]).await;
            assert_eq!(left(&store).await, expected);
            let taken = take(&store, &delivery("b"), &steps()).await;
            assert_eq!(taken, if killed_behind == 3 { Taken::Before } else { Taken::Ours });
            assert_eq!(left(&store).await, EFFECT, "killed behind {killed_behind} steps");
        }
    });
}

#[test]
fn what_was_done_is_undone_behind_every_step_and_can_be_done_again() {
    let store = store();
    smol::block_on(async {
        for behind in 0..=3 {
            clear(&store).await;
            let (mark, steps) = (delivery("a"), steps());
            take(&store, &mark, &steps[..behind]).await;
            undo(&store, &mark, &steps[..behind]).await;
            undo(&store, &mark, &steps[..behind]).await;
            // The last step is the point of no return.
            let expected = if behind == 3 { EFFECT } else { NOTHING };
            assert_eq!(left(&store).await, expected, "undone behind {behind} steps");
            take(&store, &mark, &steps).await;
            assert_eq!(left(&store).await, EFFECT);
        }
    });
}

#[test]
fn what_a_later_delivery_has_taken_over_is_not_undone_by_an_earlier_one() {
    let store = store();
    smol::block_on(async {
        for behind in 1..3 {
            clear(&store).await;
            let (a, b, steps) = (delivery("a"), delivery("b"), steps());
            take(&store, &a, &steps[..behind]).await;
            take(&store, &b, &steps[..1]).await;
            let taken = left(&store).await;
            undo(&store, &a, &steps[..behind]).await;
            assert_eq!(left(&store).await, taken);
            assert_eq!(a.take(&store, &steps[1]).await.unwrap(), Taken::Overtaken);
            assert_eq!(take(&store, &b, &steps[1..]).await, Taken::Ours);
            assert_eq!(left(&store).await, EFFECT);
            // What it took over with the token goes with it.
            clear(&store).await;
            take(&store, &a, &steps[..behind]).await;
            take(&store, &b, &steps[..1]).await;
            undo(&store, &b, &steps[..1]).await;
            assert_eq!(left(&store).await, NOTHING);
        }
    });
}

/// One thing that a delivery does.
#[derive(Clone, Copy)]
enum Act {
    Take(usize),
    Undo(usize),
}

/// What a delivery does that takes so many steps, and then is killed or undone.
fn life(behind: usize, is_undone: bool) -> Vec<Act> {
    let undos = (0..if is_undone { behind } else { 0 }).rev().map(Act::Undo);
    (0..behind).map(Act::Take).chain(undos).collect()
}

/// All ways in which two deliveries take turns: where the bit is set, it is the first one's.
fn orders_of(one: usize, other: usize) -> impl Iterator<Item = u32> {
    let ones = u32::try_from(one).unwrap();
    (0..1_u32 << (one + other)).filter(move |order| order.count_ones() == ones)
}

#[test]
fn however_two_deliveries_meet_the_effect_happens_once_and_never_goes_away() {
    let store = store();
    let lives = (0..=3).flat_map(|behind| [life(behind, false), life(behind, true)]);
    let lives: Vec<_> = lives.collect();
    smol::block_on(async {
        for (one, other) in lives.iter().flat_map(|one| lives.iter().map(move |it| (one, it))) {
            for order in orders_of(one.len(), other.len()) {
                clear(&store).await;
                meet(&store, one, other, order).await;
            }
        }
    });
}

async fn meet(store: &Store, one: &[Act], other: &[Act], order: u32) {
    let (steps, marks) = (steps(), [delivery("a"), delivery("b")]);
    // Whether a delivery still takes steps: it stops at one that is not its own.
    let mut goes_on = [true; 2];
    let mut acts = [one.iter(), other.iter()];
    let mut was_done = false;
    for turn in 0..one.len() + other.len() {
        let who = usize::from(order >> turn & 1 == 0);
        match acts[who].next() {
            Some(Act::Take(step)) if goes_on[who] => {
                let taken = marks[who].take(store, &steps[*step]).await.unwrap();
                goes_on[who] = taken == Taken::Ours;
            }
            Some(Act::Undo(step)) => marks[who].undo(store, &steps[*step]).await.unwrap(),
            _ => {}
        }
        let Left { begun, done, events } = left(store).await;
        assert!(begun + done <= 1 && events <= 1);
        assert!(!was_done || done == 1 && events == 1, "the effect has gone away");
        was_done = done == 1;
    }
    // Whatever they have left: the message comes again.
    take(store, &delivery("c"), &steps).await;
    assert_eq!(left(store).await, EFFECT);
}

#[test]
fn a_dead_letter_has_no_effect_unless_another_delivery_finished_it() {
    let store = store();
    smol::block_on(async {
        for behind in 0..3 {
            // Left by a worker that was killed; the last delivery had no handler, or undid its own.
            clear(&store).await;
            take(&store, &delivery("a"), &steps()[..behind]).await;
            for ours in [None, Some("b")] {
                assert!(!bury(&store, "order", ours).await.unwrap());
                assert_eq!(left(&store).await, NOTHING);
            }
        }
        // It was finished at the very moment at which it was given up.
        take(&store, &delivery("a"), &steps()).await;
        assert!(!bury(&store, "order", Some("a")).await.unwrap());
        assert_eq!(left(&store).await, NOTHING);
        // Another delivery has finished it, or has accepted it.
        take(&store, &delivery("a"), &steps()).await;
        take(&store, &delivery("b"), &steps()).await;
        for ours in [None, Some("a")] {
            assert!(bury(&store, "order", ours).await.unwrap());
            assert_eq!(left(&store).await, EFFECT);
        }
    });
}
