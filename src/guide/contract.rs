//! The contract: what you may rely on, rule by rule.
//!
//! The tests cite a rule by its number, and each rule can be linked to (`contract/index.html#2.1`).
//!
//! | word | meaning |
//! | --- | --- |
//! | source | any `futures::Stream`; a message is one of its items |
//! | handler | your async function, called once per message with the message and its `StepContext` |
//! | compensation | an async action that undoes one effect |
//! | scope | the ordered collection of compensations staged so far; all its clones are one |
//! | drain | one run of `fan_in`, from its first poll to its result |
//! | permit | the right to run one handler |
//! | turn, quantum | what one source may take before the others have theirs; at most so many messages |
//! | grace | the time that running handlers have once the drain must end |
//! | given up | a failed message without attempts left |
//! | put back | given to the function of `put_back`, once for each message that something held |
//!
//! # 2. Taking messages
//!
//! <a id="2.1"></a>**2.1** A message is taken from its source only when its handler is about to be
//! called. Nothing is prefetched, so when a drain ends, for whatever reason, every message whose
//! handler was not called is still in its source. (`&mut S` and clones of a receiver are valid
//! sources: that is how a user drains the rest later.) Three things must hold messages: a window its
//! open batch, an ordered source at most one message whose key is busy, the drain what waits for its
//! next attempt ([3.10](#3.10)). What they hold when a drain ends goes back to the user (`put_back`)
//! and is counted in the report and in the error where the user gave no place for it. Nothing is
//! dropped without a word. The end of its source, and an idle drain ([2.10](#2.10)), give an open
//! window out as it is, never empty; any other end puts its messages back one by one.
//!
//! <a id="2.2"></a>**2.2** Within one source, messages are handled one after another in their order
//! (the default); or in order by key (`ordered_by`, keys counted per source, or over all sources
//! where asked); or in any order (`unordered`). At most `concurrency` handlers run at once, over all
//! sources; at most `per_source_concurrency` of one source. The default is 1: one handler at a time,
//! a total order. Limits are plain `usize`; 0 is `error.validation` before anything is taken. A
//! limit is no size: what is not used costs nothing. An option that can have no effect on this drain
//! is told in the report and the progress, and as a `tracing` event; nothing is printed.
//!
//! <a id="2.3"></a>**2.3** No source starves: between two turns of one ready source, every other
//! ready source gets a turn; a turn is at most `quantum` messages (1 to 256, 64 by default), of a
//! source with weight w at most w times as many, in pieces of at most 256. While a source of a more
//! urgent priority is known to be ready, the turns of less urgent ones are one message. A freed
//! permit goes by the same rules (where handlers wait for permits, the turn is w messages). The
//! bounds are tested.
//!
//! <a id="2.4"></a>**2.4** An always-ready source never starves the timeout, the cancellation or the
//! executor: the token is looked at before every message, and, whatever the weight, at most 256
//! messages are taken between two looks at the deadline and before the thread goes back to the
//! executor.
//!
//! <a id="2.5"></a>**2.5** A handler that has started keeps being polled until it ends, whatever
//! else the drain is waiting for. No handler is frozen because another one waits.
//!
//! <a id="2.6"></a>**2.6** A source that ends is dropped at once and is not polled again; nothing of
//! it is kept. Zero sources and none to come: the drain succeeds at once, whatever the timeout,
//! unless it was cancelled before.
//!
//! <a id="2.7"></a>**2.7** Sources may be added while the drain runs, and a source can be removed,
//! paused and resumed by its id; removal waits for its messages in flight, and can also be asked for
//! without waiting (from its own handler, say). For its own messages a removal is what the drain's
//! end is ([3.10](#3.10)). A paused source starts no handler: due retries, a held message and an
//! open window wait for `resume`, their time going on; what runs is finished. Pause and resume are
//! switches, not counters, and hold when the call returns, but for a message that the drain is taking
//! on another thread at that very moment. An id is never used again; what is asked of a source that
//! is gone has no effect and says so. A drain that was asked to end, or has ended, gives an added
//! source back; no source is dropped and no wait on a handle hangs. Every option of a drain works
//! with sources that come later, too.
//!
//! <a id="2.8"></a>**2.8** An endless drain runs in constant memory and constant time a message: a
//! million sources that came and went, a million tasks, retries, failures, priorities leave nothing
//! behind. The report has a row for each source up to a documented number of them, and the totals
//! always. (What is staged for the commit of a whole drain is the user's choice.)
//!
//! <a id="2.9"></a>**2.9** An idle source costs no room for a handler: memory for handler futures
//! goes with the handlers that run.
//!
//! <a id="2.10"></a>**2.10** `until_idle()`: the drain succeeds when, in one poll, every source is
//! pending, no handler runs and no retry waits (a queue that feeds itself; producers outside the
//! drain are the user's concern). `rate(n, per)`: in no span of `per` do more than n attempts begin,
//! retries included; unused room is not saved. It can be given to the drain and to one source, and
//! while one waits for its rate, the others go on.
//!
//! # 3. Ending
//!
//! <a id="3.1"></a>**3.1** All sources ended and all handlers returned `Ok`: the drain succeeds with
//! a `FanInReport` (messages handled, in all and per source; time by the context's clock).
//!
//! <a id="3.2"></a>**3.2** The first handler error, handler panic or source fault ends the drain: no
//! further message is taken, the handlers' token is cancelled, the handlers in flight are awaited
//! for up to `grace` (by the context's clock), and the error is returned. Further errors met
//! meanwhile are attached to it as 6.4 says: the first of them by value, every one counted. The
//! report comes with the error, as a value ([6.1](#6.1)). A source of `Result<T, E>` items can be
//! drained with its `Err` as a fault, noticed at its source's next turn, like a message, however
//! busy other sources are. (Asking a source needs a permit, because it may answer with a message.)
//!
//! <a id="3.3"></a>**3.3** `timeout` is one absolute deadline for the whole drain, by the context's
//! clock, from the first poll. Zero: times out before a message is taken. `Duration::MAX` or none:
//! never. The error is `ErrorCode::Timeout` and says the duration. It fires while a handler is
//! running: rule 3.2's path. A drain whose sources have all ended and whose handlers have all
//! returned `Ok` by the poll in which it would look at deadline and token has succeeded; otherwise
//! cancellation goes before the deadline, and both before a shutdown.
//!
//! <a id="3.4"></a>**3.4** `message_timeout` is a deadline per message and attempt; passing it fails
//! that attempt. (A handler that returns `Ok` in the very poll in which it passed has succeeded.)
//! The attempt's token is cancelled and its handler dropped at once, without grace; undo, next
//! attempt and letter begin after that.
//!
//! <a id="3.5"></a>**3.5** The handlers' token is linked to the context's token and to the call's
//! own. Either cancelled: `ErrorCode::Canceled`, by rule 3.2's path, also where handlers that heard
//! of it first return errors of their own: those are attached, and such a message is no dead letter.
//! Cancelled before the first poll: no message is taken.
//!
//! <a id="3.6"></a>**3.6** A handler, a message's rollback or a dead-letter function in flight when
//! the grace ends is dropped, and the error says how many of each were.
//!
//! <a id="3.7"></a>**3.7** A panic never crosses the drain as a panic: it becomes `ErrorCode::Panic`
//! with its message. One in a key function fails its message, as one in its handler does. (This and
//! 4.6, 4.12 hold where panics unwind. What the library drops it drops one by one, each contained;
//! two panics within one value of the user's abort, as everywhere in Rust.) Where a success forgets
//! compensations, a destructor that panics is counted in `diagnostics`, and the success stands.
//!
//! <a id="3.8"></a>**3.8** Instead of ending the drain (the default), a failed message can be rolled
//! back alone: its own compensations run at once, in reverse, and the drain goes on.
//! `dead_letters(f)` or `on_failure(OnFailure::Continue)` asks for it; without either, a message
//! whose attempts are spent ends the drain. The dead letters are an async function that is given a
//! letter: the message (it needs `Message: Clone`), the error, how many attempts there were, how the
//! rollback went. It has a deadline, `dead_letter_timeout` (30 s by default); if it fails or passes
//! it, the drain ends with both errors, and the message goes where one that waits for its next
//! attempt goes ([3.10](#3.10)). While the drain ends, too, a message that fails or heeds its token
//! is rolled back alone, within the grace; what is not done by then is staged on the context's
//! scope.
//!
//! <a id="3.9"></a>**3.9** `shutdown(token)`: no further message is taken, what runs is finished,
//! and the drain *succeeds* with what it did. `finish_within(d)` after it: what still runs then is
//! cancelled by rule 3.2's path, and the error is `ErrorCode::Timeout`. A failure that ends the
//! drain is its result during a shutdown, too.
//!
//! <a id="3.10"></a>**3.10** A failed message is tried again as the drain's `RetryPolicy` says, its
//! compensations run between two attempts; only the last failure counts. A retry that waits holds no
//! permit, but its source or key waits with it, so order holds; a due retry is a message of its
//! source for 2.3, and where the source is not ordered, due retries (by the time they are due) and
//! new messages take turns, one and one. At most `max_waiting` (1,024) wait; beyond that a failed
//! message keeps its permit, changes places with a retry that is due, and progress says so while all
//! permits are kept. Any end of the drain ends the waiting at once: the message, already rolled
//! back, goes to `put_back`, else it is counted `unfinished`; it is neither a failure nor a dead
//! letter. An attempt that fails while the drain is stopping is its last: given up as usual. Where
//! an undo between two attempts fails for good, no further attempt is made: the message has failed,
//! and the action stays staged. `retry` needs `Message: Clone` (the docs show `Arc`).
//!
//! <a id="3.11"></a>**3.11** A handler may answer *later(d)*: its message is undone and waits for d
//! as for a retry, but that is no failure, costs no attempt, and the policy's cap and jitter do not
//! touch it.
//!
//! # 4. Compensations
//!
//! <a id="4.1"></a>**4.1** Every message has a child scope. When its handler ends, in whatever way
//! (Ok, Err, panic, dropped), the child's compensations belong to the drain, and when the drain has
//! ended, in whatever way, they are on the context's scope unless success cleared them: nothing
//! staged is lost, also when the `fan_in` future itself is dropped at any await point. What a
//! handler has staged is there for every thread as soon as the registration returns, whoever holds
//! the step by then. What a step that was kept registers after its message has ended is the drain's
//! while it runs, the context's scope's afterwards, and is counted. A drain that is leaked
//! (`mem::forget`) is the one way to lose sight of actions: 4.11 counts them.
//!
//! <a id="4.2"></a>**4.2** Rollback runs in the reverse of the order of registration, over all
//! messages, also when handlers ran concurrently or on several threads (under `Parallel`: it starts
//! them in that order).
//!
//! <a id="4.3"></a>**4.3** `Commit` says what success does. When the whole drain succeeds (the
//! default, the tutorial's), the compensations that its messages staged are removed, and only those;
//! what others registered on the scope stays. Per message: a message's compensations are removed
//! when its handler returns `Ok`, so that an endless feed runs in constant memory. Never: the caller
//! decides. A drain on the step of another drain's message is nested in it: when it succeeds, what
//! it staged goes to that step, and is final only when the outer message is. In a nested drain too,
//! a commit per message is final when it happens.
//!
//! <a id="4.4"></a>**4.4** A rollback runs every staged action. One that fails does not keep the
//! others from running. It is retried as the policy says; what still fails stays in the scope and
//! can be run again. What succeeded has run exactly once and is gone. The report names every action
//! that failed: its label if it has one, the source location that registered it, its error.
//!
//! <a id="4.5"></a>**4.5** Dropping the rollback future, or cancelling it, leaves in the scope every
//! action that has not succeeded, the one that was running included. Actions therefore may run more
//! than once and should be idempotent: the docs say so where a user registers one.
//!
//! <a id="4.6"></a>**4.6** Policies: `None` (keeps everything staged), `SequentialReverse`,
//! `Parallel` (with an optional limit), each with an optional deadline for each attempt of an
//! action, so that one that hangs has failed instead of holding up its source for ever. A panic in
//! an action is a failed action.
//!
//! <a id="4.7"></a>**4.7** A compensation registered while the scope is rolling back runs in the
//! same rollback.
//!
//! <a id="4.8"></a>**4.8** Two drains may share one scope; each clears only what it staged,
//! whichever ends first.
//!
//! <a id="4.9"></a>**4.9** The gap between an effect and its registration is closed by registering
//! first: `reserve` stages an action before the effect and returns a guard; `guard.disarm()`
//! withdraws it when the effect turned out not to happen. The docs show both orders and say when
//! each is right.
//!
//! <a id="4.10"></a>**4.10** Two rollbacks of one scope at once: every action runs once, and each
//! caller gets its answer only when the actions it waits for have ended, also while the other one is
//! held and not polled. An attempt runs under the policy, token and clock of the rollback that
//! started it; when that one goes away, the attempt is dropped, and one that waits starts the action
//! anew under its own. An action that itself awaits the rollback of the scope that runs it gets an
//! error, not a deadlock.
//!
//! <a id="4.11"></a>**4.11** When the last handle of a scope goes away with actions still staged,
//! they are not run (drop cannot await): the loss is counted in `diagnostics` and told, with the
//! places that registered them, as a `tracing` event where that feature is on, by a way that cannot
//! fail or panic.
//!
//! <a id="4.12"></a>**4.12** No user code (an action, a destructor of captured state, a waker) runs
//! while a lock of the library is held; a panic in any of them, a panicking destructor included,
//! neither poisons the scope nor leaks its neighbours.
//!
//! <a id="4.13"></a>**4.13** Rolling back a million actions takes linear time and constant stack.
//! Withdrawing, removing and looking up never scan what is staged or waiting.
//!
//! <a id="4.14"></a>**4.14** An action can wait, retry and use time like any step: it is given, or
//! can make, a step whose token is the rollback's, not the cancelled one of the work that it undoes.
//!
//! <a id="4.15"></a>**4.15** State that is not `Send` can be compensated in a drain that is not
//! `Send`: its actions live in a `LocalUndos` value that the user owns and hands to the drain and to
//! the rollback, and take their places in the same order. Where a drain must be `Send`, using one
//! does not compile. The scope holds only a place: a rollback that was not given the value reports
//! such an action as failed and keeps it, and 4.10's "held and not polled" does not reach it.
//!
//! # 5. Any executor
//!
//! <a id="5.1"></a>**5.1** No runtime dependency on tokio, directly or through another crate, and
//! none on any executor: `cargo tree -e normal` shows it. Nothing is spawned behind the user's back;
//! where a background task is needed, the user's own spawner is asked for.
//!
//! <a id="5.2"></a>**5.2** The same tests pass under smol, async-std, tokio (current-thread and
//! multi-thread), `futures::executor`, and an executor written in the test itself.
//!
//! <a id="5.3"></a>**5.3** The future of a drain is `Send` when its sources, messages, keys,
//! handler, its futures and the drain's other functions are.
//!
//! <a id="5.4"></a>**5.4** All time comes from the `Clock`. Under `ManualClock`, a drain with
//! timeouts, windows, tickers and retries runs without waiting, and the same input gives the same
//! trace every time. What is due is judged by the clock's `now` at each look, not by whether a timer
//! has fired.
//!
//! <a id="5.5"></a>**5.5** No `unsafe`.
//!
//! <a id="5.6"></a>**5.6** Where there is no thread to be had (`wasm32-unknown-unknown`, or a
//! process that may start none), nothing panics: a clock of the user's works, and the default one
//! says what is missing as an error: `Clock` has a `check() -> Result<(), Error>`, which an
//! operation that needs to wait calls first. Outside `clock` no code asks for the time or for a
//! thread.
//!
//! # 6. Errors and diagnostics
//!
//! <a id="6.1"></a>**6.1** One `Error` type: an `ErrorCode` with a stable string (`error.timeout`,
//! `error.canceled`, `error.panic`, `error.source`, `error.handler`, `error.validation`,
//! `error.aggregate`, `error.channel.completed`, `error.select.drained`, `error.clock`,
//! `error.unspecified`, …), a message, a source chain (`std::error::Error::source`), key/value
//! metadata, and `downcast_ref` to the user's own error. `{error}` says what failed and where,
//! `{error:#}` adds the chain of causes down to the user's own words. An operation that has more to
//! say (a drain its report, a rollback its own) fails with a thin pair of error and report, which
//! becomes an `Error` by `?` and prints like it.
//!
//! <a id="6.2"></a>**6.2** Bad arguments are reported as errors before anything is taken, or cannot
//! be written down at all; a library function never panics on a user's input.
//!
//! <a id="6.3"></a>**6.3** Each result is counted once in `diagnostics` (successes, failures, select
//! attempts, completions, timeouts, cancellations, latency, compensations run and failed), with
//! features `tracing` and `metrics` to hand them to those facades; off by default, costing nothing.
//! A running drain can be watched (handled, failed, in flight, staged, unsettled, per source)
//! without any of these. At every moment, in progress and report, each message taken is in exactly one of: handled, failed,
//! in flight, waiting, held, put back, unfinished; attempts are counted apart.
//!
//! <a id="6.4"></a>**6.4** What is gathered has a bound: a group, a retry or a drain that lives long
//! keeps the first errors (a documented number) and counts the rest.
