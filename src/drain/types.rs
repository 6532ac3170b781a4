//! The types of one drain, gathered in one parameter.
//!
//! Naming them ([`DrainTypes`]) and demanding something of them ([`Drains`]) are two traits. Whether
//! the future of a drain is `Send` is then a question of its fields alone: a closure's signature is
//! not asked, which the compiler cannot do in the future of an `async fn`.

use std::future::Future;
use std::marker::PhantomData;

use futures::Stream;

use super::letters::{DeadLetters, LetterTypes};
use super::order::{BusyKeys, Order, OrderTypes};
use super::put_back::PutBack;
use super::undos::{UndoTypes, UndoWith, Undone};
use crate::outcome::HandlerOutput;
use crate::source::{Receipt, Source};
use crate::step::StepContext;
use crate::undo::ActionOutput;

/// What a drain is made of.
pub trait DrainTypes {
    /// One of its sources.
    type Source;
    /// What the sources yield.
    type Message;
    /// What that is settled by.
    type Receipt;
    /// The user's handler.
    type Handler;
    /// What the handler makes of a message.
    type Future;
    /// In which order the messages of one source are handled.
    type Order;
    /// What is in order.
    type Key;
    /// The keys of the messages that are being handled.
    type Busy;
    /// Where messages go that were given up.
    type Letters;
    /// A letter on its way there.
    type Stored;
    /// Where messages go that were held when the drain ended.
    type PutBack;
    /// What a message is undone with.
    type Undos;
    /// A message on its way there.
    type Rollback;
    /// Where further sources come from.
    type Incoming;
}

/// Makes the message of another attempt, or of a letter.
pub(super) type CloneMessage<M> = fn(&M) -> M;

/// What a drain demands of its types.
pub trait Drains:
    DrainTypes<
        Source: Source<Message = Self::Message, Receipt = Self::Receipt>,
        Receipt: Receipt,
        Handler: FnMut(Self::Message, StepContext) -> Self::Future,
        Future: Future<Output: HandlerOutput>,
        Order: Order<Self::Message, Key = Self::Key, Busy = Self::Busy>,
        Letters: DeadLetters<Self::Message, Stored = Self::Stored>,
        Key: Clone,
        Busy: BusyKeys<Self::Key>,
        Stored: Future<Output: ActionOutput>,
        Rollback: Future<Output = Undone> + Unpin,
        PutBack: PutBack<Self::Message>,
        Undos: UndoWith<Rollback = Self::Rollback>,
        Incoming: Stream<Item = Self::Source>,
    >
{
}

/// The [`DrainTypes`] of a drain, by their parts.
#[derive(Debug)]
#[allow(clippy::type_complexity, reason = "it is what it is made of")]
pub struct Types<S, H, F, O, D, P, U, N>(PhantomData<fn() -> (S, H, F, O, D, P, U, N)>);

impl<S, H, F, O, D, P, U, N> DrainTypes for Types<S, H, F, O, D, P, U, N>
where
    S: Source,
    O: OrderTypes,
    D: LetterTypes,
    U: UndoTypes,
{
    type Source = S;
    type Message = S::Message;
    type Receipt = S::Receipt;
    type Handler = H;
    type Future = F;
    type Order = O;
    type Key = O::Key;
    type Busy = O::Busy;
    type Letters = D;
    type Stored = D::Stored;
    type PutBack = P;
    type Undos = U;
    type Rollback = U::Rollback;
    type Incoming = N;
}

impl<S, H, F, O, D, P, U, N> Drains for Types<S, H, F, O, D, P, U, N>
where
    S: Source,
    H: FnMut(S::Message, StepContext) -> F,
    F: Future<Output: HandlerOutput>,
    O: Order<S::Message>,
    D: DeadLetters<S::Message>,
    P: PutBack<S::Message>,
    U: UndoWith,
    N: Stream<Item = S>,
{
}
