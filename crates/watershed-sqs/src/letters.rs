//! Dead letters: a rejected message is sent to another queue before it is deleted.
//!
//! It goes there as it came, body and attributes; what it has failed with is added as one more
//! attribute, and left out where the queue does not take the message with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use watershed::Error;

use crate::answers::{Refusal, Why};
use crate::calls::{Answer, each, incomplete, name};
use crate::redrive::attribute;

/// The attribute that says what a message has failed with, and how long it may be in bytes.
const ERROR: &str = "watershed-error";
const LONGEST_ERROR: usize = 1_024;

/// A message has no more attributes than so many.
const MOST_ATTRIBUTES: usize = 10;

/// A message that may become a letter: kept with its receipt as long as that is open.
#[derive(Debug)]
pub(crate) struct Letter {
    message: Message,
    /// It is in the dead-letter queue, and only its delete is missing.
    is_stored: AtomicBool,
}

impl Letter {
    pub(crate) fn of(message: &Message) -> Self {
        Self { message: message.clone(), is_stored: AtomicBool::new(false) }
    }

    /// With what it has failed with, or without.
    fn entry(
        &self,
        id: String,
        from: &str,
        to: &str,
        error: Option<&Error>,
    ) -> Result<SendMessageBatchRequestEntry, BuildError> {
        let Message { message_id, body, attributes, message_attributes, .. } = &self.message;
        let mut with = message_attributes.clone().unwrap_or_default();
        if let Some(error) = error.filter(|_| with.len() < MOST_ATTRIBUTES) {
            let text = MessageAttributeValue::builder().data_type("String");
            with.insert(ERROR.to_owned(), text.string_value(shortened(error)).build()?);
        }
        let entry = SendMessageBatchRequestEntry::builder()
            .id(id)
            .message_body(body.as_deref().unwrap_or_default())
            .set_message_attributes((!with.is_empty()).then_some(with));
        if !is_fifo(to) {
            return entry.build();
        }
        let empty = HashMap::new();
        let attributes = attributes.as_ref().unwrap_or(&empty);
        let count = attributes.get(&MessageSystemAttributeName::ApproximateReceiveCount);
        let id = message_id.as_deref().unwrap_or_default();
        // What comes from a queue without groups has no order to keep.
        let group = attributes.get(&MessageSystemAttributeName::MessageGroupId);
        let deduplication = format!("{}:{id}:{}", name(from), count.map_or("0", |count| count));
        entry
            .message_group_id(group.map_or(id, |group| group))
            .message_deduplication_id(deduplication)
            .build()
    }

    /// In bytes, as the service counts them.
    fn size(&self) -> usize {
        let attributes = self.message.message_attributes.iter().flatten();
        let attributes = attributes.map(|(name, value)| {
            let text = value.string_value().map_or(0, str::len);
            let bytes = value.binary_value().map_or(0, |bytes| bytes.as_ref().len());
            name.len() + value.data_type().len() + text + bytes
        });
        self.message.body().map_or(0, str::len) + attributes.sum::<usize>()
    }
}

pub(crate) fn is_fifo(url: &str) -> bool {
    name(url).rsplit_once('.').is_some_and(|(_, ending)| ending == "fifo")
}

/// The words of an error, as far as they fit. The service takes no control characters.
fn shortened(error: &Error) -> String {
    let text = format!("{error:#}").replace(|c: char| c.is_control(), " ");
    let end = (0..=LONGEST_ERROR.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

/// Sends letters from the queue `from` to the queue `to`. What is stored is not sent again.
pub(crate) async fn store(
    client: &Client,
    from: &str,
    to: &str,
    letters: &[(Arc<Letter>, Error)],
) -> Vec<Answer> {
    let mut answers = vec![Ok(()); letters.len()];
    let is_open = |at: &usize| !letters[*at].0.is_stored.load(Ordering::Relaxed);
    let open: Vec<_> = (0..letters.len()).filter(is_open).collect();
    let mut bare = Vec::new();
    for (at, answer) in open.iter().zip(send(client, from, to, letters, &open, true).await) {
        match answer {
            Err(refusal) if refusal.why == Why::Invalid => bare.push(*at),
            answer => answers[*at] = answer,
        }
    }
    for (at, answer) in bare.iter().zip(send(client, from, to, letters, &bare, false).await) {
        answers[*at] = match answer {
            Err(refusal) if refusal.why == Why::Invalid => {
                Err(too_large(client, to, letters[*at].0.size(), refusal.error).await)
            }
            answer => answer,
        };
    }
    for (answer, (letter, _)) in answers.iter_mut().zip(letters) {
        match answer {
            Ok(()) => letter.is_stored.store(true, Ordering::Relaxed),
            // The message itself is not deleted for certain: it may be tried again.
            Err(refusal) if refusal.why != Why::Lasts => refusal.why = Why::Passes,
            Err(_) => {}
        }
    }
    answers
}

async fn send(
    client: &Client,
    from: &str,
    to: &str,
    letters: &[(Arc<Letter>, Error)],
    which: &[usize],
    with_error: bool,
) -> Vec<Answer> {
    let (what, name) = ("sending a letter to", name(to));
    each(what, name, which, |part| {
        let entries = part.iter().enumerate().map(|(index, at)| {
            let (letter, error) = &letters[*at];
            letter.entry(index.to_string(), from, to, with_error.then_some(error))
        });
        let entries: Result<Vec<_>, _> = entries.collect();
        let call = client.send_message_batch().queue_url(to);
        async move {
            let call = call.set_entries(Some(entries.map_err(incomplete)?));
            let answer = Box::pin(call.send()).await;
            let answer = answer.map_err(|error| Refusal::of_call(what, name, error))?;
            let done = answer.successful.into_iter().map(|entry| entry.id).collect();
            Ok((done, answer.failed))
        }
    })
    .await
}

/// A queue does not take a message even as it came.
async fn too_large(client: &Client, to: &str, size: usize, error: Error) -> Refusal {
    let limit = attribute(client, to, QueueAttributeName::MaximumMessageSize).await.ok().flatten();
    let limit = limit.map_or("not known".to_owned(), |limit| format!("{limit} bytes"));
    let text = format!(
        "the dead-letter queue {} refuses a message of {size} bytes as it came; its limit is {limit}",
        name(to)
    );
    let refusal = Refusal::new(Why::Lasts, text);
    Refusal { error: refusal.error.with_source(error), ..refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_error_are_cut_between_two_characters() {
        let error = Error::validation("ä".repeat(600));
        let text = shortened(&error);
        assert_eq!(text.len(), 1_024);
        assert_eq!(shortened(&Error::validation("one\ntwo\u{1b}")), "one two ");
        // Not a boundary: one byte less.
        assert_eq!(shortened(&Error::validation(format!("x{}", "ä".repeat(600)))).len(), 1_023);
    }
}
