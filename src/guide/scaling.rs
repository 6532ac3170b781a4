#![doc = include_str!("scaling.md")]
#![allow(clippy::doc_markdown, reason = "PostgreSQL is a name on that page, and no code")]
