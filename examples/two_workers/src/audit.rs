//! What the orders have left, compared with what was ordered.

use std::fmt;
use std::path::Path;

use watershed::BoxError;

use crate::database::Database;

/// What was found, where everything is as it should be.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) orders: u64,
    delivered: u64,
    dead: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, delivered, dead } = self;
        write!(f, "{orders} orders: {delivered} delivered once, {dead} among the dead letters")
    }
}

/// Everything that must not be: what it is called, and the rows that are so.
const WRONG: [(&str, &str); 6] = [
    ("left in the queue", "SELECT id FROM queue"),
    ("not committed", "SELECT partition FROM partitions WHERE committed <> records"),
    (
        "half done",
        "SELECT token FROM ordered LEFT JOIN stock USING (token) LEFT JOIN outbox USING (token)
            WHERE (stock.token IS NULL) <> (outbox.token IS NULL)",
    ),
    (
        "not as ordered",
        "SELECT token FROM stock LEFT JOIN ordered USING (token)
            WHERE ordered.pieces IS NOT stock.pieces",
    ),
    (
        "neither delivered nor dead",
        "SELECT token FROM ordered WHERE token NOT IN (SELECT token FROM stock)
            AND token NOT IN (SELECT token FROM dead)",
    ),
    (
        "delivered and dead, or dead without a reason",
        "SELECT token FROM dead JOIN ordered USING (token)
            WHERE pieces <> 0 OR token IN (SELECT token FROM stock)",
    ),
];

/// Compares the database with what was ordered.
pub(crate) fn audit(folder: &Path) -> Result<Found, BoxError> {
    let database = Database::open(folder)?;
    let found = database.run_blocking(|database| {
        let mut wrong = Vec::new();
        for (what, sql) in WRONG {
            let rows: u64 =
                database
                    .query_row(&format!("SELECT count(*) FROM ({sql})"), (), |row| row.get(0))?;
            if rows > 0 {
                wrong.push(format!("{rows} {what}"));
            }
        }
        let count = |table: &str| {
            database.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0))
        };
        let found =
            Found { orders: count("ordered")?, delivered: count("outbox")?, dead: count("dead")? };
        Ok(if wrong.is_empty() { Ok(found) } else { Err(wrong.join(", ")) })
    })?;
    Ok(found?)
}
