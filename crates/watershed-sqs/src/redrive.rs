//! What the queue itself puts aside: its redrive policy.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use watershed::Error;
use watershed::transport::Trouble;

use crate::answers::Refusal;
use crate::calls::name;

/// After how many receives the queue puts a message aside, if it does.
pub(crate) async fn max_receives(client: &Client, url: &str) -> Result<Option<u32>, Trouble> {
    let policy = attribute(client, url, QueueAttributeName::RedrivePolicy).await;
    let policy = policy.map_err(Refusal::trouble)?;
    let Some(policy) = policy else { return Ok(None) };
    let receives = number_behind(&policy, "\"maxReceiveCount\"");
    let unreadable = || {
        let text = format!("the redrive policy of {} has no maxReceiveCount: {policy}", name(url));
        Trouble::Lasts(Error::validation(text))
    };
    receives.map(Some).ok_or_else(unreadable)
}

/// One attribute of a queue.
pub(crate) async fn attribute(
    client: &Client,
    url: &str,
    which: QueueAttributeName,
) -> Result<Option<String>, Refusal> {
    let call = client.get_queue_attributes().queue_url(url).attribute_names(which.clone());
    let answer = call.send().await;
    let refused = |error| Refusal::of_call("reading an attribute of", name(url), error);
    Ok(answer.map_err(refused)?.attributes.and_then(|mut attributes| attributes.remove(&which)))
}

/// The queue has to hand out a message once more than the drain handles it, so that the drain is who
/// puts it aside, with what it has failed with.
pub(crate) fn check(
    url: &str,
    receives: Option<u32>,
    deliveries: Option<u32>,
    redriven: bool,
) -> Result<(), Error> {
    match (receives, deliveries) {
        (Some(receives), Some(deliveries)) if receives <= deliveries => {
            let text = format!(
                "the maxReceiveCount of {} is {receives} and has to exceed `max_deliveries`, \
                 which is {deliveries}: the queue would put aside what the drain has not given up",
                name(url)
            );
            Err(Error::validation(text))
        }
        (None, _) if redriven => {
            let text = format!("{} is said to be `redriven`, and has no redrive policy", name(url));
            Err(Error::validation(text))
        }
        _ => Ok(()),
    }
}

/// The number behind a key in a policy, which some write as a text.
fn number_behind(policy: &str, key: &str) -> Option<u32> {
    let (_, rest) = policy.split_once(key)?;
    let rest = rest.trim_start_matches([' ', ':', '"']);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_policy_is_read_as_a_number_and_as_a_text() {
        let key = "\"maxReceiveCount\"";
        assert_eq!(number_behind(r#"{"maxReceiveCount":5}"#, key), Some(5));
        assert_eq!(number_behind(r#"{"maxReceiveCount": "12", "a": 1}"#, key), Some(12));
        assert_eq!(number_behind(r#"{"deadLetterTargetArn":"x:5"}"#, key), None);
    }

    #[test]
    fn the_limit_of_the_queue_exceeds_that_of_the_drain() {
        let both = |receives, deliveries| check("q/orders", receives, deliveries, false);
        let error = both(Some(5), Some(5)).unwrap_err().to_string();
        assert!(error.contains("is 5 and") && error.contains("which is 5"), "{error}");
        assert!(both(Some(6), Some(5)).is_ok());
        assert!(both(None, Some(5)).is_ok());
        assert!(both(Some(1), None).is_ok());
        assert!(check("q/orders", None, None, true).is_err());
        assert!(check("q/orders", Some(3), None, true).is_ok());
    }
}
