//! The behaviours that the .NET original's tests assert, P1 to P56: each is cited by a test here,
//! or is not applicable for a reason. And where the original falls short of its own words: what
//! shows that this library does not.

use std::path::Path;

/// Cited nowhere, because there is nothing to show.
const NOT_APPLICABLE: [(u32, &str); 0] = [];

/// The shortcomings of the original by their number, and a test that shows the better thing.
const BETTER: [(u32, &str); 18] = [
    (1, "success_clears_what_the_messages_staged_and_nothing_else"),
    (2, "absorbed_scopes_roll_back_in_reverse_of_registration_over_any_nesting"),
    (3, "every_subset_of_failing_actions_is_attempted_reported_and_kept"),
    (4, "nothing_runs_by_the_policy_none_and_a_limit_of_none_at_all_is_an_error"),
    (5, "when_one_fails_all_are_undone_in_reverse_the_failing_one_included"),
    (6, "an_operation_is_tried_until_it_succeeds_and_failed_attempts_are_undone_before_the_next"),
    (7, "a_handler_that_panics_before_its_first_await_loses_nothing"),
    (8, "timeout_ends_a_handler_that_never_does"),
    (9, "handlers_that_yield_overlap_up_to_the_concurrency"),
    (10, "a_source_fault_is_noticed_although_another_source_is_always_ready"),
    (11, "without_a_useful_answer_the_ready_sources_have_their_turns"),
    (12, "nothing_is_taken_ahead_of_a_window_that_nobody_has_taken"),
    (13, "fail_reports_who_has_the_item_and_who_does_not"),
    (14, "fan_out_is_cancelled_after_it_has_returned_and_ends_its_branches"),
    (15, "a_task_that_fails_or_panics_keeps_what_it_staged"),
    // Cron policies are left out: a custom `RetryPolicy` can ask a crate made for them.
    (16, "waits_double_up_to_the_cap_and_jitter_is_the_same_for_the_same_seed"),
    (17, "the_lowest_priority_wins_and_equal_ones_take_turns_within_a_bound"),
    (18, "every_subset_of_failing_actions_is_attempted_reported_and_kept"),
];

/// The text of every test file but this one, and of the examples with tests.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for folder in ["tests", "tests/contract", "examples"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("parity.rs") {
                text.push_str(&std::fs::read_to_string(path).expect("it is text"));
            }
        }
    }
    text
}

#[test]
fn every_asserted_behaviour_is_cited_by_a_test_or_not_applicable() {
    let text = sources();
    let cited = |number: u32| {
        let name = format!("P{number}");
        let comments = text.lines().filter(|line| line.trim_start().starts_with("// "));
        comments
            .into_iter()
            .any(|line| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == name))
    };
    let excused = |number: u32| NOT_APPLICABLE.iter().any(|(known, _)| *known == number);
    let missing: Vec<_> = (1..=56).filter(|number| !cited(*number) && !excused(*number)).collect();
    assert!(missing.is_empty(), "cited by no test: {missing:?}");
}

#[test]
fn every_shortcoming_of_the_original_has_a_test_of_the_better_thing() {
    let text = sources();
    let is_there = |test: &str| text.contains(&format!("fn {test}("));
    let missing: Vec<_> = BETTER.iter().filter(|(_, test)| !is_there(test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}
