//! What the client's errors mean to a drain.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use watershed::transport::{Settled, Trouble};
use watershed::{Error, ErrorCode};

/// What was not possible, and the client's reason.
pub(crate) fn error(what: impl Into<String>, cause: KafkaError) -> Error {
    Error::new(ErrorCode::Source, what.into()).with_source(cause)
}

pub(crate) fn trouble(what: impl Into<String>, cause: KafkaError) -> Trouble {
    let lasts = lasts(&cause);
    let error = error(what, cause);
    if lasts { Trouble::Lasts(error) } else { Trouble::Passes(error) }
}

/// Whether it stays like this until somebody changes a name, a right or a configuration.
pub(crate) fn lasts(cause: &KafkaError) -> bool {
    let codes = [
        Code::UnknownTopicOrPartition,
        Code::UnknownTopic,
        Code::UnknownPartition,
        Code::InvalidTopic,
        Code::TopicAuthorizationFailed,
        Code::GroupAuthorizationFailed,
        Code::ClusterAuthorizationFailed,
        Code::SaslAuthenticationFailed,
        Code::Authentication,
        Code::UnsupportedSASLMechanism,
        Code::UnsupportedVersion,
        Code::UnsupportedFeature,
        Code::InvalidGroupId,
        Code::InconsistentGroupProtocol,
        Code::InvalidSessionTimeout,
        Code::GroupMaxSizeReached,
        Code::FencedInstanceId,
        Code::Fatal,
    ];
    let is_fatal = matches!(cause, KafkaError::MessageConsumptionFatal(_));
    is_fatal || cause.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// Whether the log does not hold what was to be read next.
pub(crate) fn is_gone(cause: &KafkaError) -> bool {
    let codes = [Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::NoOffset];
    cause.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// Whether the group is in another generation than this member, or does not know it any more.
pub(crate) fn is_out_of_step(error: &Error) -> bool {
    let codes = [Code::RebalanceInProgress, Code::IllegalGeneration, Code::UnknownMemberId];
    let code = error.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code);
    code.is_some_and(|code| codes.contains(&code))
}

/// What became of a commit that the client says has failed.
pub(crate) fn outcome(cause: KafkaError) -> Settled {
    let code = cause.rdkafka_error_code();
    let error = error("the position was not committed", cause);
    match code {
        // The broker has said no. An older generation: what was on its way when a cooperative rebalance
        // came, and its partition has stayed here. Nobody else gets the message then, so it is sent
        // again. (Outside of a rebalance the client has lost its assignment by that, and says so.)
        Some(
            Code::RebalanceInProgress
            | Code::IllegalGeneration
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::UnstableOffsetCommit
            | Code::ThrottlingQuotaExceeded
            | Code::OffsetMetadataTooLarge
            | Code::InvalidCommitOffsetSize
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::UnknownTopicOrPartition
            // The client has not sent it.
            | Code::WaitingForCoordinator,
        ) => Settled::Refused(error),
        Some(
            Code::UnknownMemberId
            | Code::FencedInstanceId
            | Code::Fenced
            | Code::AssignmentLost
            | Code::State
            | Code::UnknownGroup,
        ) => Settled::Lost(error),
        _ => Settled::Unknown(error),
    }
}

/// The partition was given up, or came again: nothing is sent for a receipt of then.
pub(crate) fn not_ours() -> Error {
    Error::new(ErrorCode::Source, "the partition is not this consumer's any more")
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorCode::Source, "the consumer has left its group: make another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(code: Code) -> Settled {
        outcome(KafkaError::ConsumerCommit(code))
    }

    #[test]
    fn only_what_the_broker_refused_is_refused() {
        for code in [
            Code::RebalanceInProgress,
            Code::IllegalGeneration,
            Code::CoordinatorLoadInProgress,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
        ] {
            assert!(matches!(outcome_of(code), Settled::Refused(_)), "{code:?}");
        }
        for code in [Code::UnknownMemberId, Code::FencedInstanceId] {
            assert!(matches!(outcome_of(code), Settled::Lost(_)), "{code:?}");
        }
        for code in [
            Code::BrokerTransportFailure,
            Code::OperationTimedOut,
            Code::RequestTimedOut,
            Code::AllBrokersDown,
            Code::Unknown,
        ] {
            assert!(matches!(outcome_of(code), Settled::Unknown(_)), "{code:?}");
        }
    }

    #[test]
    fn a_connection_comes_back_and_a_right_does_not() {
        let fetch = KafkaError::MessageConsumption;
        assert!(!lasts(&fetch(Code::BrokerTransportFailure)));
        assert!(!lasts(&fetch(Code::NotLeaderForPartition)));
        assert!(lasts(&fetch(Code::TopicAuthorizationFailed)));
        assert!(lasts(&fetch(Code::UnknownTopicOrPartition)));
        assert!(lasts(&KafkaError::MessageConsumptionFatal(Code::Unknown)));
    }
}
