//! Streams of results, worked on step by step.
//!
//! What is here is what `futures` cannot do: operations that are handed a
//! [`StepContext`], so that what they register is staged whatever becomes of the
//! stream; that contain panics; and that end with one `Err` when the context's token is cancelled.
//! After the first failure nothing further is asked for or called, and the stream is dropped; only
//! [`tap_err_step`](StepStreamExt::tap_err_step), [`collect_all`](StepStreamExt::collect_all) and
//! [`lifted`](StepStreamExt::lifted) go on after an `Err` of the stream.
//!
//! | with `futures` | here |
//! | --- | --- |
//! | `and_then` | [`map_step`](StepStreamExt::map_step) |
//! | `try_filter_map` | [`filter_map_step`](StepStreamExt::filter_map_step) |
//! | `and_then` and `try_flatten` | [`flat_map_step`](StepStreamExt::flat_map_step) |
//! | `inspect_err`, synchronous | [`tap_err_step`](StepStreamExt::tap_err_step) |
//! | `try_for_each` | [`for_each_step`](StepStreamExt::for_each_step), with a deadline and a token for each item |
//! | `try_collect`, which stops at the first error | [`collect_all`](StepStreamExt::collect_all) |
//! | `map_err` and `take_until` | [`lifted`](StepStreamExt::lifted) |
//!
//! For a side effect on success, `map_step` returns its item again. A receiver is a stream as it
//! is, and a stream goes into a channel by [`channels::merge_into`](crate::channels). Concurrency is the
//! matter of [`fan_in`](crate::fan_in).
//!
//! - `each`: one operation after another; the rest is built on it

mod collect;
mod each;
mod flat_map;
mod for_each;
mod item_step;
mod lifted;
mod map;
mod tap;

pub use collect::CollectAll;
pub use for_each::ForEachStep;
pub use lifted::Lifted;

use std::future::Future;

use futures::TryStream;

use self::flat_map::FlatMapStep;
use self::map::{FilterMapStep, MapStep};
use self::tap::TapErrStep;
use crate::error::{BoxError, Error};
use crate::step::StepContext;

/// Operations on streams of results that keep compensations, see [`streams`](crate::streams).
///
/// The streams have closures in their types: one that is to be kept in a struct is
/// [boxed](futures::StreamExt::boxed).
///
/// ```
/// # futures::executor::block_on(async {
/// use futures::{TryStreamExt, stream};
/// use watershed::{BoxError, StepContext, streams::StepStreamExt};
///
/// let context = StepContext::new("seats");
/// let seats = stream::iter([Ok::<_, BoxError>(1), Ok(2)]).map_step(&context, async |seat, step| {
///     step.register_compensation(move || async move { println!("free {seat}") });
///     Ok::<_, BoxError>(seat * 10)
/// });
/// assert_eq!(seats.try_collect::<Vec<_>>().await?, [10, 20]);
/// assert_eq!(context.scope().clear(), 2);
/// # Ok::<_, watershed::Error>(()) }).unwrap();
/// ```
pub trait StepStreamExt: TryStream<Error: Into<BoxError>> + Sized {
    /// Runs `operation` for each item, one after another, and yields what it returns.
    ///
    /// What an operation registers is staged on the context's scope when it has ended, in whatever
    /// way; its step's token is cancelled then. The first `Err`, of the stream or of an operation,
    /// is the last item. A cancellation drops the operation in flight.
    ///
    /// # Errors
    ///
    /// The items' own errors; those that are not an [`Error`] yet become
    /// [`ErrorCode::Source`](crate::ErrorCode::Source) if they come from the stream and
    /// [`ErrorCode::Handler`](crate::ErrorCode::Handler) if from the operation. Further
    /// [`ErrorCode::Panic`](crate::ErrorCode::Panic) and
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled).
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next item loses nothing. Dropping the stream drops the operation in
    /// flight with its item; what it has registered is staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("parse");
    /// let numbers = stream::iter(["1", "x", "3"].map(Ok::<_, BoxError>));
    /// let numbers = numbers.map_step(&context, async |text, _| text.parse::<u32>());
    /// let numbers: Vec<_> = numbers.collect().await;
    /// assert!(matches!(&numbers[..], [Ok(1), Err(_)]), "nothing after the first failure");
    /// # });
    /// ```
    fn map_step<U, E, F, O>(self, context: &StepContext, operation: O) -> MapStep<Self, O, F, U, E>
    where
        O: FnMut(Self::Ok, StepContext) -> F,
        F: Future<Output = Result<U, E>>,
        E: Into<BoxError>,
    {
        MapStep::new(self, context, operation)
    }

    /// Runs `operation` for each item, one after another, and yields what it returns as `Some`.
    /// Otherwise like [`map_step`](StepStreamExt::map_step).
    ///
    /// # Errors
    ///
    /// Those of [`map_step`](StepStreamExt::map_step).
    ///
    /// # Cancel safety
    ///
    /// That of [`map_step`](StepStreamExt::map_step).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{TryStreamExt, stream};
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("even");
    /// let even = stream::iter((1..=4).map(Ok::<_, BoxError>))
    ///     .filter_map_step(&context, async |n, _| Ok::<_, BoxError>((n % 2 == 0).then_some(n)));
    /// assert_eq!(even.try_collect::<Vec<_>>().await?, [2, 4]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn filter_map_step<U, E, F, O>(
        self,
        context: &StepContext,
        operation: O,
    ) -> FilterMapStep<Self, O, F, U, E>
    where
        O: FnMut(Self::Ok, StepContext) -> F,
        F: Future<Output = Result<Option<U>, E>>,
        E: Into<BoxError>,
    {
        FilterMapStep::new(self, context, operation)
    }

    /// Makes a stream of each item, and yields their items, one stream after another. The step of
    /// an item lasts as long as its stream: what it has registered by then is staged, and its token
    /// is cancelled. Otherwise like [`map_step`](StepStreamExt::map_step).
    ///
    /// # Errors
    ///
    /// Those of [`map_step`](StepStreamExt::map_step); an `Err` of an inner stream is the last item
    /// of the outer one, as [`ErrorCode::Source`](crate::ErrorCode::Source) if it is not an
    /// [`Error`] yet.
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next item loses nothing. Dropping the stream drops the inner stream
    /// with what is left in it; what its step has registered is staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{TryStreamExt, stream};
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("pages");
    /// let rows = stream::iter([Ok::<_, BoxError>(1), Ok(2)])
    ///     .flat_map_step(&context, |page, _| stream::iter([Ok::<_, BoxError>(page * 10), Ok(page * 10 + 1)]));
    /// assert_eq!(rows.try_collect::<Vec<_>>().await?, [10, 11, 20, 21]);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn flat_map_step<I, O>(self, context: &StepContext, operation: O) -> FlatMapStep<Self, O, I>
    where
        O: FnMut(Self::Ok, StepContext) -> I,
        I: TryStream<Error: Into<BoxError>>,
    {
        FlatMapStep::new(self, context, operation)
    }

    /// Runs `operation` when there is an `Err`, before it is yielded: to report it, or to undo
    /// something. Every `Err` that the stream yields is passed on; one of the operation, or its
    /// panic, is attached to it. Items go through as they are.
    ///
    /// A cancellation does not cut the operation short: its step's token tells it, it is awaited,
    /// and the stream ends afterwards, with an `Err` that the operation is told of as well.
    ///
    /// # Errors
    ///
    /// The items' own errors, those that are not an [`Error`] yet as
    /// [`ErrorCode::Source`](crate::ErrorCode::Source); then
    /// [`ErrorCode::Panic`](crate::ErrorCode::Panic), of the stream, or
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) as the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next item loses nothing. Dropping the stream drops the operation in
    /// flight, and the error it is about; what it has registered is staged.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("report");
    /// let items = stream::iter([Ok(1), Err("connection lost")]);
    /// let items = items.tap_err_step(&context, async |error, _| {
    ///     println!("{error}");
    ///     Ok::<_, BoxError>(())
    /// });
    /// assert_eq!(items.count().await, 2);
    /// # });
    /// ```
    fn tap_err_step<E, F, O>(self, context: &StepContext, operation: O) -> TapErrStep<Self, O, F, E>
    where
        O: FnMut(Error, StepContext) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        TapErrStep::new(self, context, operation)
    }

    /// Runs `operation` for each item, one after another, to the end of the stream, and gives their
    /// number. See [`ForEachStep`] for its options.
    ///
    /// # Errors
    ///
    /// Those of [`map_step`](StepStreamExt::map_step), and
    /// [`ErrorCode::Timeout`](crate::ErrorCode::Timeout); the metadata `handled` is the number of
    /// operations that succeeded before.
    ///
    /// # Cancel safety
    ///
    /// That of [`ForEachStep`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{BoxError, StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("all");
    /// let items = stream::iter([Ok::<_, BoxError>(1), Ok(2)]);
    /// assert_eq!(items.for_each_step(&context, async |_, _| Ok::<_, BoxError>(())).await?, 2);
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn for_each_step<E, F, O>(self, context: &StepContext, operation: O) -> ForEachStep<Self, O>
    where
        O: FnMut(Self::Ok, StepContext) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        ForEachStep::new(self, context, operation)
    }

    /// Takes everything, errors included: the values if there was no error, or all errors.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Aggregate`](crate::ErrorCode::Aggregate) with every `Err` of the stream attached
    /// in its order, and as metadata `succeeded`, the number of values. Cancelled:
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled), with the errors so far.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops what was collected.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::stream;
    /// use watershed::{StepContext, streams::StepStreamExt};
    ///
    /// let context = StepContext::new("all");
    /// let items = stream::iter([Ok(1), Err("no"), Ok(3), Err("nor this")]);
    /// let error = items.collect_all(&context).await.unwrap_err();
    /// assert_eq!((error.related().len(), error.metadata("succeeded")), (2, Some("2")));
    /// # });
    /// ```
    fn collect_all(self, context: &StepContext) -> CollectAll<Self> {
        CollectAll::new(self, context)
    }

    /// The same stream with its errors as [`Error`], which ends with one `Err` when the context's
    /// token is cancelled and contains a panic of the stream: what a channel of results is fed
    /// with. It goes on after an `Err` of the stream.
    ///
    /// # Errors
    ///
    /// The items' own errors, those that are not an [`Error`] yet as
    /// [`ErrorCode::Source`](crate::ErrorCode::Source); then
    /// [`ErrorCode::Panic`](crate::ErrorCode::Panic) or
    /// [`ErrorCode::Canceled`](crate::ErrorCode::Canceled) as the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait for the next item loses nothing.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::{StreamExt, stream};
    /// use watershed::{BoxError, CancellationSource, StepContext, streams::StepStreamExt};
    ///
    /// let stop = CancellationSource::new();
    /// let context = StepContext::new("feed").with_cancellation(stop.token());
    /// let mut items = Box::pin(stream::repeat_with(|| Ok::<_, BoxError>(7)).lifted(&context));
    /// assert_eq!(items.next().await.unwrap()?, 7);
    /// stop.cancel();
    /// assert!(items.next().await.unwrap().is_err());
    /// assert!(items.next().await.is_none());
    /// # Ok::<_, watershed::Error>(()) }).unwrap();
    /// ```
    fn lifted(self, context: &StepContext) -> Lifted<Self> {
        Lifted::new(self, context)
    }
}

impl<S: TryStream<Error: Into<BoxError>>> StepStreamExt for S {}
