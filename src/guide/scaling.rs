//! More than one process: who shares the work among them, what to set for a thousand, and what it costs to
//! settle each message.
//!
//! Processes never talk to each other here, and nothing elects anybody: the broker shares the work. Start the
//! same program once more, and it gets its part; kill one, and others get what it had.
//!
//! | | shares by | at most so many at work | one process more | one process less |
//! | --- | --- | --- | --- | --- |
//! | Kafka | partitions: the group assigns each to one member | as many as there are partitions; the others wait | partitions move: what runs there is finished and committed first, or undone | its partitions are assigned when it has left, or its session is over |
//! | SQS | receives: whoever asks gets messages that nobody else sees | no limit; FIFO: as many as there are groups with messages | nothing moves | what it had comes again when its visibility is over; at a shutdown at once |
//! | PostgreSQL | claims: `for update skip locked` gives each row to one of those who ask | no limit; with a `key_column`: as many as there are keys with rows | nothing moves | what it had comes again when its lease is over; at a shutdown at once |
//!
//! # What one process does
//!
//! A drain is one future, polled by one task: its handlers run side by side, and on one core. So the number of
//! handlers at once ([`concurrency`](crate::FanIn::concurrency)) is for handlers that wait, and the number of
//! processes is for cores and machines; several drains in one process, a thread and a link each, are as good as
//! several processes. What a process holds is bounded, whatever is in the queue:
//!
//! | | bounded by | by itself |
//! | --- | --- | --- |
//! | handlers that run | [`concurrency`](crate::FanIn::concurrency) | 1 |
//! | messages that wait for another attempt | [`max_waiting`](crate::FanIn::max_waiting) | 1,024 |
//! | verdicts without an answer | [`Link::max_unsettled`](crate::transport::Link::max_unsettled) | 1,024 |
//! | messages of a partition behind one that is not done (Kafka) | [`Link::max_ahead`](crate::transport::Link::max_ahead) | 1,024 |
//! | read ahead, Kafka | `ahead_bytes`, over all partitions | 64 MiB |
//! | read ahead, SQS | twenty messages a source | |
//! | read ahead, PostgreSQL | `prefetch` rows a source | 16 |
//!
//! # What to set for a thousand
//!
//! ## Kafka
//!
//! - *Partitions*: at least as many as processes. A member without one waits, and takes over when another one
//!   goes. [`ordered_by`](crate::FanIn::ordered_by) a key, or [`unordered`](crate::FanIn::unordered), handles
//!   many messages of one partition at once: with that, fewer partitions do.
//! - *Rebalances*: `partition.assignment.strategy=cooperative-sticky`, so that a process that comes or goes
//!   moves its share only. In the eager protocol all thousand stop, finish and commit for each of them; a rolling
//!   restart is a thousand of those. `group.instance.id` (static membership) is the client's own setting and is
//!   passed on; it was not tried here.
//! - `session.timeout.ms` is how long the partitions of a process that is killed stand still, and how long one may
//!   freeze. Slow handlers do not count: a thread of the adapter stays in the group. `max.poll.interval.ms` bounds
//!   how long a revocation waits for handlers (three quarters of it, or
//!   [`revoke_within`](crate::transport::Link::revoke_within) if that is less).
//! - *Commits*: one of a process is on its way at a time, and has all partitions that moved meanwhile; so a
//!   group's coordinator gets at most one request from each process in each round trip, however many messages.
//! - *Connections*: those of one client to each broker that leads one of its partitions, and to the coordinator,
//!   and those of one producer for dead letters. Two threads of the adapter, beside the client's own.
//! - *Memory*: `ahead_bytes` for each process. It is divided by the partitions that the topics have, not by those
//!   that the process has: with a thousand partitions and one or two in each process, 64 MiB is 64 KiB for each.
//!   Where bodies are large, raise it.
//!
//! ## SQS
//!
//! - *Receives*: one source is one receive at a time, of ten messages. Where the round trip is what limits, take
//!   several sources of one link, `(0..8).map(|_| link.source())`; deletes are in batches over all of them.
//! - *Idle polling*: a receive waits a sixth of the `visibility` (20 seconds at most), so an idle source makes 6
//!   calls a minute with the default of 60 seconds; a thousand make 100 a second. `visibility(2 min)` makes that
//!   50. Each call is paid for.
//! - *In flight*: what all processes hold counts against the queue's limit (120,000 messages, FIFO 20,000):
//!   twenty ahead for each source, and what is handled or waits for its retry. Beyond it the service answers
//!   `OverLimit`, and the drain waits and asks again.
//! - *Visibility*: how long messages of a killed process are away, and how long one may freeze. Slow handlers are
//!   renewed in batches, from a third of it on: a shorter one costs calls where handlers are slow.
//! - *Dead letters*: the queue's `maxReceiveCount` counts also what a shutdown gave back. With a thousand processes
//!   that are replaced often, leave room, or have the drain keep the letters (`letters`).
//!
//! ## PostgreSQL
//!
//! - *Connections*: three for each process, four with `listen()`, and one for each handler that has a transaction.
//!   A thousand are three thousand backends, which no server has by itself (`max_connections` is 100): have few
//!   processes with a high [`concurrency`](crate::FanIn::concurrency). (No pooler was tried.)
//! - *Claims* read past what others have leased: it stands at the head of the table, and `not_before` has no index,
//!   so that a lease writes none. So what counts is how many rows all processes together hold: `prefetch` and
//!   `concurrency`, times processes. A claim of 16 rows took 0.3 ms with nothing leased in front, 1.4 ms behind
//!   1,000 leased rows, 2.4 behind 5,000, and 8.8 behind 20,000. A high `prefetch` on a thousand processes costs
//!   every claim of every one of them.
//! - *Idle polling*: a claim that finds nothing writes nothing and waits for no disk, once in `asks_every` (1 second)
//!   for each process. With `listen()` the interval is only for leases that ran out and delays that are over, and can
//!   be half a minute; but one `NOTIFY` wakes all that listen, each of which claims once, and the server sends
//!   notifications of commits one after another.
//! - *Lease*: how long rows of a killed process are away. Renewed from a third of it on, in batches; a renewal writes
//!   each row, so a short lease with slow handlers is work for vacuum (the adapter's page says what to watch).
//! - *Commits* are what a queue of short handlers costs: one for a claim, one for a batch of settlements, shared by all
//!   that is settled while the one before is on its way.
//!
//! # Measured: one process, two and four
//!
//! On one machine with two cores, which builds of others kept busy: a topic of four partitions, one queue (of a
//! scripted service) and one table; handlers that wait for 2 ms, two at a time in each process, so that they are what
//! limits; 3,000 messages for each process. Messages a second, the median of three rounds, and beside one process:
//!
//! | | 1 | 2 | 4 |
//! | --- | ---: | ---: | ---: |
//! | Kafka | 943 | 1,832 (1.94) | 3,710 (3.94) |
//! | SQS | 942 | 1,860 (1.97) | 3,545 (3.76) |
//! | PostgreSQL | 948 | 1,860 (1.96) | 3,666 (3.87) |
//!
//! ```text
//! .ci/kafka cargo run --release -p watershed-kafka --example beside_the_client -- scale
//! cargo run --release -p watershed-sqs --example beside_the_client -- scale
//! .ci/postgres cargo run --release -p watershed-postgres --example beside_the_client -- scale
//! ```
//!
//! # What settling costs
//!
//! Messages a second, each settled behind its handler, and the settlement confirmed: the drain with everything on (a
//! compensation registered by each handler, retries, dead letters, `message_timeout`, a shutdown token,
//! `finish_within`), beside loops over the client alone with the same promise, and, in italics, beside what is not
//! compared with them: mostly loops that promise less. The same work for all, in turns, each round beginning with another
//! one; counted from the first message in hand to the last confirmed settlement; a ratio is that of the medians.
//!
//! *One by one*: the settlement of each message is confirmed before the next one is handled
//! ([`max_unsettled(1)`](crate::transport::Link::max_unsettled)), which is not what a drain does by itself. Handlers do
//! nearly nothing, but where it says that each makes a call of 1 ms.
//!
//! The same machine as above, and as busy: look at the ratios, and at how far apart the slowest and the fastest
//! round are, not at the rates.
//!
//! ```text
//! .ci/kafka cargo run --release -p watershed-kafka --example beside_the_client
//! cargo run --release -p watershed-sqs --example beside_the_client
//! .ci/postgres cargo run --release -p watershed-postgres --example beside_the_client
//! ```
//!
//! | Kafka, one by one | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed** | 1,693 | 573 to 2,081 |  |
//! | `BaseConsumer::poll`, commit of each | 3,006 | 1,922 to 7,024 | 0.56 |
//! | `for_each_concurrent(1)`, commit of each | 2,734 | 849 to 3,048 | 0.62 |
//! | the same, commit on a thread that may wait (`unblock`) | 3,648 | 1,548 to 6,288 | 0.46 |
//! | *watershed, as it is by itself*: the next message is handled while the last one is committed | 46,397 | 8,283 to 252,573 | 0.04 |
//! | *asynchronous commit of each*: nobody hears of one that is refused; a crash repeats what had no answer | 1,852 | 1,083 to 3,156 | 0.91 |
//! | *auto-commit*: what a crash, or an error, leaves half done is committed, and never comes again; what was done in the last 5 s comes again | 410,458 | 99,136 to 1,021,481 | 0.00 |
//!
//! Ours to the best with the same promise: 0.46 (10000 messages, 5 rounds).
//!
//! | Kafka, in batches | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed, 100 at once** | 80,438 | 16,360 to 108,542 |  |
//! | `ready_chunks(100)`, `for_each_concurrent(100)`, commit | 69,514 | 36,201 to 99,621 | 1.16 |
//! | the same, commit on a thread that may wait (`unblock`) | 135,460 | 115,417 to 220,930 | 0.59 |
//! | `BaseConsumer::poll`, commit of every 100 | 130,214 | 94,289 to 331,730 | 0.62 |
//! | *asynchronous commit of every 100*: nobody hears of one that is refused; a crash repeats what had no answer | 252,463 | 59,197 to 395,466 | 0.32 |
//! | *auto-commit*: as above | 266,044 | 54,364 to 478,316 | 0.30 |
//!
//! Ours to the best with the same promise: 0.59 (50000 messages, 5 rounds).
//!
//! | Kafka, calls of 1 ms, 100 at once | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed, 100 at once** | 62,359 | 52,331 to 79,927 |  |
//! | `ready_chunks(100)`, `for_each_concurrent(100)`, commit | 58,088 | 28,499 to 64,757 | 1.07 |
//! | the same, commit on a thread that may wait (`unblock`) | 60,884 | 35,493 to 73,190 | 1.02 |
//!
//! Ours to the best with the same promise: 1.02 (20000 messages, 5 rounds).
//!
//! | SQS, one by one, answered at once | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed** | 648 | 442 to 1,213 |  |
//! | receive 10, delete each | 760 | 427 to 931 | 0.85 |
//! | `for_each_concurrent(1)`, delete each | 906 | 396 to 1,218 | 0.71 |
//! | *watershed, as it is by itself*: the next message is handled while the last one is deleted | 3,999 | 2,676 to 6,875 | 0.16 |
//!
//! Ours to the best with the same promise: 0.71 (500 messages, 5 rounds).
//!
//! | SQS, in batches, answered at once | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed, 8 sources** | 4,018 | 2,290 to 7,077 |  |
//! | *watershed, 1 source*: one receive at a time | 4,007 | 2,158 to 6,238 | 1.00 |
//! | receive 10, delete 10 | 3,267 | 1,139 to 6,980 | 1.23 |
//! | `for_each_concurrent(8)`: receive 10, delete 10 | 2,395 | 2,128 to 6,894 | 1.68 |
//! | receive 10, `for_each_concurrent(100)`, delete each | 813 | 532 to 1,656 | 4.94 |
//!
//! Ours to the best with the same promise: 1.23 (2000 messages, 5 rounds).
//!
//! | SQS, in batches, answered after 5 ms | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed, 8 sources** | 4,692 | 2,711 to 5,920 |  |
//! | *watershed, 1 source*: one receive at a time | 1,004 | 538 to 1,135 | 4.68 |
//! | receive 10, delete 10 | 444 | 305 to 546 | 10.56 |
//! | `for_each_concurrent(8)`: receive 10, delete 10 | 3,810 | 1,454 to 4,410 | 1.23 |
//! | receive 10, `for_each_concurrent(100)`, delete each | 622 | 316 to 867 | 7.55 |
//!
//! Ours to the best with the same promise: 1.23 (2000 messages, 5 rounds).
//!
//! | SQS, calls of 1 ms, answered after 5 ms | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed, 8 sources** | 4,953 | 4,077 to 6,546 |  |
//! | *watershed, 1 source*: one receive at a time | 906 | 771 to 1,424 | 5.47 |
//! | receive 10, delete 10 | 509 | 434 to 637 | 9.74 |
//! | `for_each_concurrent(8)`: receive 10, delete 10 | 4,219 | 2,398 to 4,545 | 1.17 |
//! | receive 10, `for_each_concurrent(100)`, delete each | 757 | 372 to 1,426 | 6.54 |
//!
//! Ours to the best with the same promise: 1.17 (2000 messages, 5 rounds).
//!
//! | PostgreSQL, one by one | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed** | 220 | 115 to 454 |  |
//! | a transaction around each handler | 264 | 147 to 342 | 0.83 |
//! | lease, handle, delete | 137 | 48 to 262 | 1.60 |
//! | lease 16, `for_each_concurrent(1)`, delete each | 361 | 162 to 971 | 0.61 |
//! | *watershed, as it is by itself*: the next row is handled while the last one is deleted | 3,370 | 1,008 to 5,852 | 0.07 |
//! | *deleted when claimed*: what a crash, or an error, leaves half done is gone | 251 | 125 to 2,501 | 0.87 |
//!
//! Ours to the best with the same promise: 0.61 (198 messages, 15 rounds).
//!
//! | PostgreSQL, in batches | messages/s | slowest to fastest | ours to theirs |
//! | --- | ---: | ---: | ---: |
//! | **watershed, 100 at once** | 4,299 | 2,725 to 11,036 |  |
//! | a transaction around every 100 | 10,064 | 3,534 to 25,263 | 0.43 |
//! | lease 100, handle, delete 100 | 5,510 | 2,456 to 18,466 | 0.78 |
//! | lease 100, `for_each_concurrent(100)`, delete each | 1,150 | 871 to 1,770 | 3.74 |
//! | *100 deleted when claimed*: what a crash, or an error, leaves half done is gone | 12,907 | 4,299 to 49,703 | 0.33 |
//!
//! Ours to the best with the same promise: 0.43 (3300 messages, 15 rounds).
//!
//! Where ours falls behind, and why:
//!
//! - *Kafka, handlers that do nothing, in batches*: a record costs its loop about 2,000 instructions and a drain 17,000,
//!   13,000 of them the drain's own (a scope for its compensations, a deadline, a permit, an account of it). That is a
//!   few microseconds, and seen where a handler takes less than that: with calls of 1 ms there is no difference.
//! - *PostgreSQL, in batches*: a transaction around every hundred writes each row once, a lease twice. It pays with a
//!   transaction that stays open as long as the slowest of a hundred handlers, and with locks that outlive a machine.
//!   Beside leases by hand, what remains is `begin` and `commit` in calls of their own: what fails before the commit is
//!   sent was certainly not applied, and is not counted as unknown.
//! - *PostgreSQL, one by one*: the same three calls, where a delete by itself is one. On a disk of one's own the commit is
//!   what counts, and they are equal.
//! - *SQS, one by one*: each settlement is the call for a batch, with one entry.
