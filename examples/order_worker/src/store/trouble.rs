//! What an error of the database means for an order.

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the store: {0}")]
pub(crate) struct StoreError(#[from] sqlx::Error);

impl StoreError {
    /// Whether it is the order itself that the store does not take: a value that is too long, say, or
    /// has a character that no text may have. Everything else is trouble that passes, or that
    /// somebody has to mend; the order is as good as before.
    pub(crate) fn is_about_the_order(&self) -> bool {
        let code = self.0.as_database_error().and_then(sqlx::error::DatabaseError::code);
        // Classes of PostgreSQL: data exception, integrity constraint. SQLite: too big, constraint.
        code.is_some_and(|code| match &*code {
            code if code.len() == 5 => code.starts_with("22") || code.starts_with("23"),
            code => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18 | 19)),
        })
    }

    /// Whether it is the configuration: no such server name, database or user.
    pub(crate) fn lasts(&self) -> bool {
        match &self.0 {
            sqlx::Error::Configuration(_) => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["28", "3D", "3F", "42"].iter().any(|class| code.starts_with(class))
                    && code.len() == 5
            }),
            _ => false,
        }
    }
}
