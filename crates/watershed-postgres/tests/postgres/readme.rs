//! The program on the crate's page is the example, which is compiled and run.

#[test]
fn the_program_on_the_page_is_the_example() {
    let example = include_str!("../../examples/leased_orders.rs");
    let program = example.split_once("\n\n").map(|(_, program)| program.trim()).unwrap_or_default();
    assert!(program.starts_with("use std"));
    assert!(include_str!("../../README.md").contains(program));
}
