//! What an error of the service's means: for one message, for a call, for the drain.

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;
use watershed::transport::Trouble;
use watershed::{Error, ErrorCode};

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Not applied, and worth another try: throttled, too many in flight.
    Passes,
    /// Not applied, and no try will help: no such queue, not allowed.
    Lasts,
    /// Not applied, because of something in this very request.
    Invalid,
    /// The receipt handle is no longer good.
    Lost,
    /// A message is invisible for 12 hours at most, from the receive on.
    Beyond,
    /// It may have been applied.
    NoAnswer,
}

/// Why something was not done.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) why: Why,
    pub(crate) error: Error,
}

impl Refusal {
    pub(crate) fn new(why: Why, text: String) -> Self {
        Self { why, error: Error::new(ErrorCode::Source, text) }
    }

    /// Of a whole call: `what` failed at the queue `name`.
    pub(crate) fn of_call<E>(what: &str, name: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let said = (error.code().unwrap_or("no code"), error.message().unwrap_or_default());
        let why = match &error {
            SdkError::ServiceError(answer) => why(said, answer.raw().status().as_u16()),
            // What the program itself has done wrong.
            SdkError::ConstructionFailure(_) => Why::Lasts,
            SdkError::DispatchFailure(failure) if failure.is_user() => Why::Lasts,
            _ => Why::NoAnswer,
        };
        let text = match &error {
            SdkError::ServiceError(_) => format!("{what} {name}: {}: {}", said.0, said.1),
            _ => format!("{what} {name}: no answer"),
        };
        Self { why, error: Error::new(ErrorCode::Source, text).with_source(error) }
    }

    /// Of one entry of a batch.
    pub(crate) fn of_entry(what: &str, name: &str, entry: &BatchResultErrorEntry) -> Self {
        let said = (entry.code(), entry.message().unwrap_or_default());
        let why = why(said, if entry.sender_fault() { 400 } else { 500 });
        Self::new(why, format!("{what} {name}: {}: {}", said.0, said.1))
    }

    /// As an answer to a fetch, which changes nothing that could be in doubt.
    pub(crate) fn trouble(self) -> Trouble {
        match self.why {
            Why::Passes | Why::NoAnswer => Trouble::Passes(self.error),
            _ => Trouble::Lasts(self.error),
        }
    }
}

/// What a code means. The service says the same in two ways, with and without a prefix.
fn why((code, message): (&str, &str), status: u16) -> Why {
    match code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code) {
        "RequestThrottled"
        | "ThrottlingException"
        | "Throttling"
        | "KMS.ThrottlingException"
        | "KmsThrottled"
        | "TooManyRequestsException"
        | "SlowDown"
        | "OverLimit" => Why::Passes,
        "MessageNotInflight" | "ReceiptHandleIsInvalid" => Why::Lost,
        "InvalidParameterValue" if message.contains("beyond the limit") => Why::Beyond,
        "InvalidParameterValue"
            if message.contains("receipt handle has expired")
                || message.contains("not available for visibility timeout change") =>
        {
            Why::Lost
        }
        "NonExistentQueue"
        | "QueueDoesNotExist"
        | "UnsupportedOperation"
        | "InvalidAddress"
        | "InvalidSecurity"
        | "OptInRequired"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException" => Why::Lasts,
        code if ["AccessDenied", "KMS.", "Kms"].iter().any(|it| code.starts_with(it)) => Why::Lasts,
        _ if status == 429 => Why::Passes,
        _ if status >= 500 => Why::NoAnswer,
        // Nobody whom the service knows, or allows to do this.
        _ if status == 401 || status == 403 => Why::Lasts,
        _ => Why::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_means_one_thing_with_and_without_its_prefix() {
        let cases = [
            ("AWS.SimpleQueueService.NonExistentQueue", "", 400, Why::Lasts),
            ("QueueDoesNotExist", "", 400, Why::Lasts),
            ("AWS.SimpleQueueService.MessageNotInflight", "", 400, Why::Lost),
            ("MessageNotInflight", "", 400, Why::Lost),
            ("AccessDeniedException", "", 400, Why::Lasts),
            ("KMS.DisabledException", "", 400, Why::Lasts),
            ("KMS.ThrottlingException", "", 400, Why::Passes),
            ("OverLimit", "", 403, Why::Passes),
            ("InvalidClientTokenId", "", 403, Why::Lasts),
            ("RequestThrottled", "", 503, Why::Passes),
            ("InternalError", "", 500, Why::NoAnswer),
            ("ServiceUnavailable", "", 503, Why::NoAnswer),
            ("InvalidParameterValue", "Value 7 is invalid", 400, Why::Invalid),
            ("InvalidParameterValue", "Reason: The receipt handle has expired.", 400, Why::Lost),
            (
                "InvalidParameterValue",
                "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]",
                400,
                Why::Beyond,
            ),
        ];
        for (code, message, status, meant) in cases {
            assert_eq!(why((code, message), status), meant, "{code} {message}");
        }
    }
}
