//! Names of tables and columns: the user's own, as SQL has them.

use watershed::Error;

/// More is cut off by the server, in silence.
const LONGEST: usize = 63;

/// A name in quotation marks, so that it is that name whatever is in it.
pub(crate) fn quoted(name: &str) -> Result<String, Error> {
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST {
        "is longer than 63 bytes"
    } else if name.contains('\0') {
        "contains a zero byte"
    } else {
        return Ok(format!("\"{}\"", name.replace('"', "\"\"")));
    };
    Err(Error::validation(format!("the name {name:?} {wrong}")))
}

/// The name of a table, `orders` or `shop.orders`: what is before the first dot is its schema.
pub(crate) fn table(name: &str) -> Result<String, Error> {
    match name.split_once('.') {
        Some((schema, table)) => Ok(format!("{}.{}", quoted(schema)?, quoted(table)?)),
        None => quoted(name),
    }
}

/// The name of an index of that table, which is in the same schema by itself.
pub(crate) fn index(table: &str, by: &str) -> Result<String, Error> {
    let table = table.split_once('.').map_or(table, |(_, table)| table);
    quoted(&format!("{table}_{by}"))
}

#[cfg(test)]
mod tests {
    use watershed::ErrorCode;

    use super::*;

    #[test]
    fn a_name_is_quoted_and_cannot_end_its_quotation() {
        assert_eq!(table("orders").unwrap(), r#""orders""#);
        assert_eq!(table("shop.Orders").unwrap(), r#""shop"."Orders""#);
        assert_eq!(table(r#"o"; drop table x; --"#).unwrap(), r#""o""; drop table x; --""#);
        assert_eq!(index("shop.orders", "by_key").unwrap(), r#""orders_by_key""#);
    }

    #[test]
    fn a_name_that_the_server_would_change_is_a_validation_error() {
        for name in ["", "shop.", ".orders", "a\0b", &"x".repeat(64)] {
            assert_eq!(table(name).unwrap_err().code(), ErrorCode::Validation, "{name:?}");
        }
        table(&"x".repeat(63)).unwrap();
    }
}
