//! What the effects of a model came to.
//!
//! The counts are plain atomics of `std`: to look is no step of the model, so that a proof has no
//! schedule more, and synchronizes nothing, for being looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::executor::give_way;
use crate::{Action, CompensationScope};

#[derive(Clone)]
pub(crate) struct Effects {
    list: Arc<[Effect]>,
}

#[derive(Default)]
struct Effect {
    begun: AtomicUsize,
    undone: AtomicUsize,
    forgotten: AtomicUsize,
}

/// Held by the action of an effect: counts when it is dropped.
pub(crate) struct Held {
    effects: Effects,
    index: usize,
}

impl Held {
    pub(crate) fn effects(&self) -> &Effects {
        &self.effects
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.effects.list[self.index].forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

impl Effects {
    pub(crate) fn new(count: usize) -> Self {
        Self { list: std::iter::repeat_with(Effect::default).take(count).collect() }
    }

    /// An action that undoes an effect, and gives way in the middle that many times.
    pub(crate) fn undo(&self, index: usize, gives_way: usize) -> impl Action + use<> {
        let held = self.held(index);
        move || {
            let effects = held.effects.clone();
            async move { effects.run(index, gives_way).await }
        }
    }

    /// What the action of an effect is to hold.
    pub(crate) fn held(&self, index: usize) -> Held {
        Held { effects: self.clone(), index }
    }

    /// Undoes an effect.
    pub(crate) async fn run(&self, index: usize, gives_way: usize) {
        let effect = &self.list[index];
        effect.begun.fetch_add(1, Ordering::Relaxed);
        for _ in 0..gives_way {
            give_way().await;
        }
        effect.undone.fetch_add(1, Ordering::Relaxed);
    }

    /// Stages the action of an effect that needs no second poll.
    pub(crate) fn stage(&self, scope: &CompensationScope, index: usize) {
        scope.register_compensation(self.undo(index, 0));
    }

    /// How often the action of an effect was begun.
    pub(crate) fn begun(&self, index: usize) -> usize {
        self.list[index].begun.load(Ordering::Relaxed)
    }

    /// How often the action of an effect came to its end.
    pub(crate) fn undone(&self, index: usize) -> usize {
        self.list[index].undone.load(Ordering::Relaxed)
    }

    /// How many effects have been undone, each of them once.
    pub(crate) fn undone_in_all(&self) -> usize {
        (0..self.list.len())
            .map(|index| self.undone(index))
            .inspect(|times| assert!(*times <= 1))
            .sum()
    }

    /// How many actions are gone without having been run.
    pub(crate) fn dropped(&self) -> usize {
        self.undone_and_kept().1
    }

    /// How many effects were undone, and how many were not although their action is gone.
    pub(crate) fn undone_and_kept(&self) -> (usize, usize) {
        let undone = self.undone_in_all();
        let gone: usize = (0..self.list.len()).map(|index| self.gone(index)).sum();
        (undone, gone - undone)
    }

    /// The action of every effect was run to its end once, and is gone.
    pub(crate) fn assert_undone(&self) {
        for index in 0..self.list.len() {
            assert_eq!(self.undone(index), 1, "effect {index}");
            assert_eq!(self.begun(index), 1, "effect {index}");
        }
        self.assert_gone();
    }

    /// How many actions of an effect are gone, whether they were run or not.
    pub(crate) fn gone(&self, index: usize) -> usize {
        self.list[index].forgotten.load(Ordering::Relaxed)
    }

    /// Every action is gone, whether it was run or not.
    pub(crate) fn assert_gone(&self) {
        for index in 0..self.list.len() {
            assert_eq!(self.gone(index), 1, "the action of effect {index}");
        }
    }
}
