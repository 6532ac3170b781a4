//! What is said to the server, as text.
//!
//! Three rules hold for every statement here. Time is `clock_timestamp()`: `now()` stands still while a
//! transaction waits. Rows are picked and locked *once*, in a materialized `with`, in the order of their
//! ids; the planner may run a plain subquery again for each row, and lease what nobody hears of. And a
//! row that somebody else has locked is skipped, never waited for: one slow transaction on one row would
//! hold up the renewals of all the others.
//!
//! Plans are made for numbers that somebody guesses: a queue has no statistics that hold for a minute. So rows
//! are found by their ids, as an array, also where a join says the same (joined alone, a claim of a hundred
//! read all of ten thousand rows), and what is not held is looked for by a hash (joined, a hundred settlements
//! were ten thousand comparisons).

use std::sync::Arc;

use watershed::Error;

use crate::names;

/// The names that the user chose.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) table: String,
    /// `None`: that of the table, with `_dead` behind it.
    pub(crate) dead: Option<String>,
    pub(crate) key: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) schema: String,
    pub(crate) check: String,
    pub(crate) enqueue: Arc<str>,
    pub(crate) claim: Arc<str>,
    pub(crate) accept_all: Arc<str>,
    pub(crate) give_up: Arc<str>,
    pub(crate) renew: Arc<str>,
    pub(crate) ours: Arc<str>,
    pub(crate) accept: Arc<str>,
}

impl Statements {
    pub(crate) fn new(names: &Names) -> Result<Self, Error> {
        let dead = names.dead.clone().unwrap_or_else(|| format!("{}_dead", names.table));
        let texts = Texts {
            table: names::table(&names.table)?,
            dead: names::table(&dead)?,
            key: names.key.as_deref().map(names::quoted).transpose()?,
        };
        let by_key = names::index(&names.table, "by_key")?;
        Ok(Self {
            schema: texts.schema(&by_key),
            check: texts.check(),
            enqueue: texts.enqueue().into(),
            claim: texts.claim().into(),
            accept_all: texts.accept_all().into(),
            give_up: texts.give_up().into(),
            renew: texts.renew().into(),
            ours: texts.ours().into(),
            accept: texts.accept().into(),
        })
    }
}

const RECEIPTS: &str = "with asked as materialized (
                select * from unnest($1::bigint[], $2::bigint[]) as asked (id, token)
            )";

/// Finds rows by their ids, whatever the planner takes a join to cost. Not by an array that it is given:
/// it counts that one's members, and may take reading all rows to be cheaper.
const ASKED: &str = "rows.id = any (array(select asked.id from asked))";
const HELD: &str = "rows.id = any (array(select held.id from held))";

/// The receipts that are in a table, in one row: as a row each, they cost a client 2,600 instructions more
/// (callgrind, the drain of `beside_the_client` with 100 at once).
fn those(table: &str) -> String {
    let all = |column| format!("coalesce(array_agg({table}.{column}), '{{}}')");
    format!("select {}, {} from {table}", all("id"), all("token"))
}

struct Texts {
    table: String,
    dead: String,
    key: Option<String>,
}

impl Texts {
    /// The key of a row, where there are keys.
    fn key_of_row(&self) -> String {
        self.key.as_ref().map_or("null::text".into(), |key| format!("rows.{key}"))
    }

    fn schema(&self, by_key: &str) -> String {
        let Self { table, dead, key } = self;
        let (column, index) = match key {
            Some(key) => (
                format!("\n    {key} text,"),
                format!("create index if not exists {by_key} on {table} ({key}, id);\n"),
            ),
            None => Default::default(),
        };
        // No index on `not_before`: a lease that changes no index can be written beside the old version
        // of its row, in the room that `fillfactor` leaves, and is cleaned up without a vacuum. Half of each
        // page, since a claim leases all rows of a page at once: with a third, an eighth fewer messages a second
        // (`beside_the_client`, 100 at once).
        format!(
            "create table if not exists {table} (
    id bigint generated always as identity primary key,{column}
    body bytea not null,
    not_before timestamptz not null default '-infinity',
    token bigint not null default 0,
    deliveries integer not null default 0
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000);
{index}create table if not exists {dead} (
    letter bigint generated always as identity primary key,
    id bigint not null,
    key text,
    body bytea not null,
    deliveries integer not null,
    error text not null,
    died_at timestamptz not null default clock_timestamp()
);
"
        )
    }

    /// Fails where a table is not what `schema` would have made.
    fn check(&self) -> String {
        let Self { table, dead, key } = self;
        let key = key.as_ref().map_or_else(String::new, |key| format!("{key}, "));
        format!(
            "select id, {key}body, not_before, token, deliveries from {table} limit 0;
            select letter, id, key, body, deliveries, error, died_at from {dead} limit 0;"
        )
    }

    /// Keys in $1, bodies in $2, delays in seconds in $3. Whoever enqueues a row of a key holds that key
    /// until its transaction ends: so the ids of a key are in the order of the commits, and none
    /// appears before one that is out.
    fn enqueue(&self) -> String {
        let Self { table, key, .. } = self;
        let (column, value) = match key {
            Some(key) => (format!("{key}, "), "asked.key, "),
            None => Default::default(),
        };
        format!(
            "with asked as materialized (
                select * from unnest($1::text[], $2::bytea[], $3::float8[])
                    with ordinality as asked (key, body, delay, place)
            ), held as materialized (
                select pg_advisory_xact_lock(hashtextextended($4 || key, 0)) from
                    (select distinct key from asked where key is not null order by key) as keys
            )
            insert into {table} ({column}body, not_before)
            select {value}asked.body, case when asked.delay > 0
                then clock_timestamp() + make_interval(secs => asked.delay) else '-infinity' end
            from (select count(*) from held) as all_held, asked order by asked.place
            returning id"
        )
    }

    /// At most $1 rows, leased for $2 seconds.
    fn claim(&self) -> String {
        let Self { table, key, .. } = self;
        // A row of a key waits for every earlier one, whether that is leased or waits as well.
        let first = key.as_ref().map_or(String::new(), |key| {
            format!(
                "and (rows.{key} is null or rows.id =
                    (select min(earlier.id) from {table} as earlier where earlier.{key} = rows.{key}))"
            )
        });
        let key = self.key_of_row();
        format!(
            "with picked as materialized (
                select rows.id from {table} as rows
                where rows.not_before <= clock_timestamp() {first}
                order by rows.id limit $1 for update of rows skip locked
            )
            update {table} as rows set token = rows.token + 1, deliveries = rows.deliveries + 1,
                not_before = clock_timestamp() + make_interval(secs => $2)
            where rows.id = any (array(select picked.id from picked))
            returning rows.id, rows.token, rows.deliveries, rows.body, {key} as key"
        )
    }

    /// Locks those of `asked` that are ours, but for those that somebody else has locked.
    fn held(&self, columns: &str) -> String {
        format!(
            "held as materialized (
                select {columns} from {} as rows
                join asked on rows.id = asked.id and rows.token = asked.token
                where {ASKED} order by rows.id for update of rows skip locked
            )",
            self.table
        )
    }

    /// Deletes the rows of the receipts in $1 and $2, and returns those receipts.
    fn accept_all(&self) -> String {
        format!(
            "{RECEIPTS}, {}, done as (
                delete from {} as rows where {HELD} returning rows.id, rows.token
            )
            {}",
            self.held("asked.id"),
            self.table,
            those("done")
        )
    }

    /// Leases the rows of the receipts in $1 and $2 for $3 seconds more, and returns those receipts.
    fn renew(&self) -> String {
        format!(
            "{RECEIPTS}, {}, done as (
                update {} as rows set not_before = clock_timestamp() + make_interval(secs => $3)
                where {HELD} returning rows.id, rows.token
            )
            {}",
            self.held("asked.id"),
            self.table,
            those("done")
        )
    }

    /// The receipts in $1 and $2, each to be released or rejected. Returns those that were.
    fn give_up(&self) -> String {
        let (Self { table, dead, .. }, key) = (self, self.key_of_row());
        format!(
            "with asked as materialized (
                select * from unnest($1::bigint[], $2::bigint[], $3::float8[], $4::int[], $5::text[])
                    as asked (id, token, delay, taken_back, error)
            ), {}, gone as (
                delete from {table} as rows using held
                where rows.id = held.id and held.error is not null and {HELD}
                returning rows.id, {key} as key, rows.body, rows.deliveries, held.error
            ), kept as (
                insert into {dead} (id, key, body, deliveries, error)
                select id, key, body, deliveries, error from gone
            ), back as (
                update {table} as rows set token = rows.token + 1,
                    not_before = clock_timestamp() + make_interval(secs => held.delay),
                    deliveries = greatest(rows.deliveries - held.taken_back, 0)
                from held where rows.id = held.id and held.error is null and {HELD}
            )
            {}",
            self.held("asked.*"),
            those("held")
        )
    }

    /// Those of the receipts in $1 and $2 that are ours, whether or not somebody has them locked.
    fn ours(&self) -> String {
        let table = &self.table;
        format!(
            "{RECEIPTS}, ours as (
                select asked.* from {table} as rows
                join asked on rows.id = asked.id and rows.token = asked.token where {ASKED}
            )
            {}",
            those("ours")
        )
    }

    /// The accept of one row, as part of the user's own transaction.
    fn accept(&self) -> String {
        format!("delete from {} where id = $1 and token = $2 returning id", self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed() -> Statements {
        let key = Some("customer".to_owned());
        Statements::new(&Names { table: "orders".into(), dead: None, key }).unwrap()
    }

    #[test]
    fn rows_are_locked_once_in_the_order_of_their_ids_and_never_waited_for() {
        let all = keyed();
        for text in [&all.claim, &all.accept_all, &all.give_up, &all.renew] {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words.matches("for update").count(), 1, "{words}");
            let (picked, rest) = words.split_once(" for update of rows skip locked )").unwrap();
            assert!(picked.contains("as materialized ( select"), "{words}");
            assert!(picked.contains("order by rows.id"), "{words}");
            assert!(!rest.contains("order by"), "{words}");
        }
    }

    #[test]
    fn no_statement_goes_by_the_start_of_its_transaction() {
        let all = keyed();
        for text in
            [&*all.enqueue, &all.claim, &all.accept_all, &all.give_up, &all.renew, &all.schema]
        {
            for clock in ["now()", "current_timestamp", "localtimestamp", "statement_timestamp"] {
                assert!(!text.contains(clock), "{clock} in {text}");
            }
        }
    }
}
