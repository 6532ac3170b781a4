//! What the tests of the .NET original assert, and the test here that shows it; and where the
//! original falls short of its own words, and what is better here.
//!
//! Each test is in the `tests` folder of the repository, or in an example, and one of them checks
//! this page.
//!
//! | | there | the test here |
//! | --- | --- | --- |
//! | P1 | a select absorbs the compensations of the winning continuation | `what_the_winning_continuation_registers_is_staged_on_the_context` |
//! | P2 | a fan-in absorbs the compensation that comes with each value | `a_handler_may_return_a_value_with_its_compensations` |
//! | P3 | a retry runs until the operation succeeds | `an_operation_is_tried_until_it_succeeds_and_failed_attempts_are_undone_before_the_next` |
//! | P4 | a timeout is returned as the timeout error | `the_operation_is_undone_in_reverse_before_the_timeout_is_reported` |
//! | P5 | the select builder composes cases | `cases_over_streams_of_different_types_give_one_type_of_result` |
//! | P6 | a wait group absorbs the compensations of its work | `a_wait_group_absorbs_the_compensations_of_its_tasks` |
//! | P7 | timers register a compensation that stops them | `a_ticker_registers_a_compensation_that_stops_it` |
//! | P8 | a fan-out gives every branch every value | `fan_out_gives_every_branch_every_item` |
//! | P9 | a merge with a strategy follows its order | `the_order_is_that_of_the_strategy` |
//! | P10 | a window is flushed by size or by interval, whichever comes first | `a_window_closes_when_it_is_full_or_old_enough_whichever_comes_first` |
//! | P11 | a window without an end of its interval gives full batches only, and the rest at the end | `without_an_end_of_the_interval_windows_are_full_but_for_the_last` |
//! | P12 | a window passes a cancellation on | `cancellation_hands_out_what_is_open_and_ends_the_stream` |
//! | P13 | a window whose timer fires before any data takes what comes later | `time_that_passes_before_any_message_closes_nothing` |
//! | P14 | delays follow the advances of a fake clock | `delays_follow_the_advances_of_the_clock` |
//! | P15 | an error group absorbs the compensations of its results | `an_err_group_absorbs_what_its_tasks_bring` |
//! | P16 | a window refuses an interval that cannot be | `an_interval_of_zero_and_a_window_without_bounds_are_refused_before_anything_is_taken` |
//! | P17 | `when_all` returns values in the order of the operations | `all_values_come_in_the_order_of_the_operations_and_their_compensations_are_staged` |
//! | P18 | `when_all` of nothing is an empty success | `all_of_nothing_succeeds_and_a_cancelled_token_runs_nothing` |
//! | P19 | `when_all` with a token that is cancelled already runs nothing | `all_of_nothing_succeeds_and_a_cancelled_token_runs_nothing` |
//! | P20 | `when_all` compensates when one fails | `when_one_fails_all_are_undone_in_reverse_the_failing_one_included` |
//! | P21 | `when_all` compensates when it is cancelled from outside | `a_cancellation_from_outside_undoes_what_has_succeeded` |
//! | P22 | `when_all` tells of partial failures | `when_one_fails_all_are_undone_in_reverse_the_failing_one_included` |
//! | P23 | `when_all` undoes nothing where nothing was completed | `when_one_fails_all_are_undone_in_reverse_the_failing_one_included` |
//! | P24 | `when_any` takes the first success and compensates the others | `the_first_success_wins_and_the_others_are_undone_whether_they_succeed_or_fail` |
//! | P25 | a peer that fails after the winner does not fail the race | `the_first_success_wins_and_the_others_are_undone_whether_they_succeed_or_fail` |
//! | P26 | cancellations after the winner change nothing | `the_first_success_wins_and_the_others_are_undone_whether_they_succeed_or_fail` |
//! | P27 | `when_any` with a cancelled token does not hang | `any_of_nothing_is_not_valid_and_a_cancelled_token_does_not_hang` |
//! | P28 | `when_any` of nothing is a validation error | `any_of_nothing_is_not_valid_and_a_cancelled_token_does_not_hang` |
//! | P29 | `when_any` without a winner gathers the errors | `without_a_winner_all_errors_are_there_and_all_cancelled_is_cancelled` |
//! | P30 | where all are cancelled the result is a cancellation | `without_a_winner_all_errors_are_there_and_all_cancelled_is_cancelled` |
//! | P31 | a loser that cannot be undone is reported | `a_loser_that_cannot_be_undone_is_reported_and_stays_staged` |
//! | P32 | a saga rolls back when a step fails, and returns its results otherwise | `a_saga_rolls_back_when_a_step_fails_and_returns_its_results_otherwise` |
//! | P33 | streams of results go into channels and back | `a_lifted_stream_goes_through_a_channel_and_back_with_its_cancellation` |
//! | P34 | a merge closes its destination at the end | `a_merge_delivers_every_message_in_the_order_of_its_source_and_closes` |
//! | P35 | a merge closes its destination when a source fails | `a_fault_ends_the_merge_and_closes_the_destination` |
//! | P36 | a fault of the source reaches every destination | `a_fault_and_a_closed_side_end_the_partition_and_close_both` |
//! | P37 | a partition splits, and completes both sides | `a_partition_splits_in_order_and_completes_both` |
//! | P38 | a stream in a channel ends with its cancellation | `a_lifted_stream_goes_through_a_channel_and_back_with_its_cancellation` |
//! | P39 | groups, partitions and windows stop at the first failure and evaluate nothing behind it | `nothing_is_asked_for_or_called_after_the_first_failure_of_either_side` |
//! | P40 | a retry returns the failure of the last attempt, with its history | `the_last_error_says_how_often_and_how_long_and_has_the_earlier_ones` |
//! | P41 | a select takes what is ready at once | `a_ready_message_is_taken_at_once_and_none_from_a_losing_case` |
//! | P42 | a select heeds priorities | `the_lowest_priority_wins_and_equal_ones_take_turns_within_a_bound` |
//! | P43 | a default case that fails is the failure of the select | `the_default_runs_when_nothing_is_ready_and_its_failure_is_that_of_the_run` |
//! | P44 | where all channels are closed a select is drained | `cases_that_have_ended_are_not_asked_again_and_when_all_have_the_select_is_drained` |
//! | P45 | a broadcast replicates every value and completes | `every_destination_gets_every_item_in_order_and_is_closed` |
//! | P46 | a cancelled broadcast is a cancellation | `a_broadcast_that_waits_ends_by_token_timeout_and_item_timeout` |
//! | P47 | a mapped stream stops at the first failure and contains panics | `a_mapped_stream_keeps_its_order_and_stages_what_its_operations_register` |
//! | P48 | a flattened stream passes failures and cancellations of inner streams on | `inner_streams_follow_one_another_and_their_failure_is_that_of_the_whole` |
//! | P49 | a filter leaves out what does not match, and keeps failures | `what_an_operation_leaves_out_is_left_out_and_failures_stay` |
//! | P50 | errors can be collected over a whole stream | `all_errors_are_collected_or_all_values` |
//! | P51 | an error group returns its first error, and cancels the rest before it compensates | `the_first_failure_of_an_err_group_cancels_the_rest_before_compensation` |
//! | P52 | a panic in a group is a structured error | `a_panic_is_a_structured_error` |
//! | P53 | a group is cancelled with its linked token | `a_group_is_cancelled_when_its_linked_token_is` |
//! | P54 | cancelling by hand does not replace an error that is there | `a_manual_cancel_does_not_overwrite_an_error` |
//! | P55 | a group refuses work after its end | `a_group_refuses_work_after_its_end` |
//! | P56 | the success of a primary stops its peers in a tiered fallback | `the_first_tier_that_succeeds_wins_and_its_peers_are_stopped_and_undone` |
//!
//! # Better than the original
//!
//! | | there | here | the test here |
//! | --- | --- | --- | --- |
//! | B1 | a fan-in that succeeds leaves what handlers registered on the shared context staged | success clears what the messages staged, and nothing else | `success_clears_what_the_messages_staged_and_nothing_else` |
//! | B2 | absorbing a scope turns the order of its actions round | the reverse of registration, over any nesting | `absorbed_scopes_roll_back_in_reverse_of_registration_over_any_nesting` |
//! | B3 | the first action that throws ends the rollback, and the rest is lost; so is all of it when the rollback is cancelled | every action is tried; what has not succeeded stays staged | `every_subset_of_failing_actions_is_attempted_reported_and_kept` |
//! | B4 | the policy `None` takes the actions out and runs none | they stay staged | `nothing_runs_by_the_policy_none_and_a_limit_of_none_at_all_is_an_error` |
//! | B5 | the compensations of the operation that fails are thrown away | it is undone like the others | `when_one_fails_all_are_undone_in_reverse_the_failing_one_included` |
//! | B6 | a retry clears what the failed attempt had staged | a failed attempt is undone before the next | `an_operation_is_tried_until_it_succeeds_and_failed_attempts_are_undone_before_the_next` |
//! | B7 | an exception between an effect and its registration loses what a child staged | what was staged reaches the outer scope, however the handler ends | `a_handler_that_panics_before_its_first_await_loses_nothing` |
//! | B8 | the deadline is looked at between messages only | a handler that never ends is ended | `timeout_ends_a_handler_that_never_does` |
//! | B9 | one handler at a time, and every case is built anew for every message | `concurrency`, and a cost that does not grow with idle sources | `handlers_that_yield_overlap_up_to_the_concurrency` |
//! | B10 | the fault of a source waits until no other one yields | it is noticed at its next turn | `a_source_fault_is_noticed_although_another_source_is_always_ready` |
//! | B11 | a merge with a strategy waits for a silent source, and spins for an index that is none | sources that are ready have their turns | `without_a_useful_answer_the_ready_sources_have_their_turns` |
//! | B12 | a window prefetches without a bound, and drops what is open when it is cancelled | nothing is taken ahead, and what is open is handed out | `nothing_is_taken_ahead_of_a_window_that_nobody_has_taken` |
//! | B13 | a broadcast that fails half way does not say who has the item | the error says who has it and who has not | `fail_reports_who_has_the_item_and_who_does_not` |
//! | B14 | the token of a fan-out is released while its branches run | it ends its branches, also later | `fan_out_is_cancelled_after_it_has_returned_and_ends_its_branches` |
//! | B15 | a wait group absorbs nothing of work that throws | what it staged is kept | `a_task_that_fails_or_panics_keeps_what_it_staged` |
//! | B16 | cron policies read their fields in the wrong order | left out: a custom `RetryPolicy` can ask a crate made for it; waits grow and jitter by a seed | `waits_double_up_to_the_cap_and_jitter_is_the_same_for_the_same_seed` |
//! | B17 | nothing is promised about ready cases of one priority | they take turns, within a bound | `the_lowest_priority_wins_and_equal_ones_take_turns_within_a_bound` |
//! | B18 | a parallel rollback reports one failure | it reports each | `every_subset_of_failing_actions_is_attempted_reported_and_kept` |
