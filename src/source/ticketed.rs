//! Any source among those that settle: one without a transport has tickets for nothing.

use std::pin::Pin;
use std::task::Context;

use pin_project_lite::pin_project;

use super::passing::leave_to_source;
use super::{Delivery, DeliveryOf, Polled, Receipt, Source};
use crate::settlement::Ticket;

pin_project! {
    pub(super) struct Ticketed<S> {
        #[pin]
        source: S,
    }
}

impl<S> Ticketed<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source }
    }
}

fn ticketed<M, R: Receipt>(delivery: Delivery<M, R>) -> Delivery<M, Ticket> {
    Delivery { body: delivery.body, receipt: delivery.receipt.into_ticket() }
}

impl<S: Source> Source for Ticketed<S> {
    type Message = S::Message;
    type Receipt = Ticket;

    leave_to_source!(profile);

    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        let polled = self.project().source.poll_delivery(cx);
        polled.map(|item| item.map(|delivery| delivery.map(ticketed)))
    }

    fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        self.project().source.take_held().map(ticketed)
    }
}
