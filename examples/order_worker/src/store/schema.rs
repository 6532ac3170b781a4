//! The tables.

use super::Store;

/// What an order leaves, and what was produced. Nothing but the primary key of `tokens` is unique: the
/// audit counts what is there, and would not see two of what there cannot be two of.
const TABLES: [&str; 4] = [
    // One row for each order that was begun: `begun`, then `done`. Whose it is says `undo_key`.
    "create table if not exists tokens (
        message text primary key,
        source text not null,
        state text not null,
        undo_key text not null
    )",
    // The domain events. Whoever publishes them takes those whose token is `done`.
    "create table if not exists outbox (
        event IDENTITY primary key,
        message text not null,
        undo_key text not null,
        body BYTES not null
    )",
    "create index if not exists outbox_by_message on outbox (message)",
    // What `produce` has sent, noted before it was.
    "create table if not exists produced (
        message text primary key,
        source text not null,
        body BYTES not null,
        poison bigint not null,
        sent bigint not null
    )",
];

/// What makes the tables, as the database has it.
pub(super) fn statements(store: &Store) -> impl Iterator<Item = String> {
    let (identity, bytes) = match store {
        Store::Postgres(..) => ("bigint generated always as identity", "bytea"),
        Store::Sqlite(_) => ("integer", "blob"),
    };
    TABLES.iter().map(move |sql| sql.replace("IDENTITY", identity).replace("BYTES", bytes))
}
